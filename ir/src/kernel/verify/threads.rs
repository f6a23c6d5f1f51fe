//! That all threads of a block reach the same barriers and shuffles.
//!
//! A register may differ between threads if it is derived from the variable of a thread loop or from loaded data, or
//! if whether it is assigned depends on such a register.

use super::*;

pub(super) fn check(kernel: &Kernel) -> Result<(), KernelError> {
    let mut threads = Threads {
        kernel,
        differs: vec![false; kernel.registers.len()],
        changed: true,
    };
    // Each round marks at least one register, or is the last.
    while std::mem::take(&mut threads.changed) {
        threads.mark(&kernel.body, false);
    }
    let control = Control {
        report: Reporter::new(kernel),
        differs: &threads.differs,
    };
    control.check(&kernel.body, None, false)
}

struct Threads<'k> {
    kernel: &'k Kernel,
    differs: Vec<bool>,
    changed: bool,
}

fn bound_differs(differs: &[bool], bound: Bound) -> Option<Reg> {
    match bound {
        Bound::Reg(reg) if differs[reg.0 as usize] => Some(reg),
        _ => None,
    }
}

impl Threads<'_> {
    fn set(&mut self, reg: Reg, differs: bool) {
        if differs && !std::mem::replace(&mut self.differs[reg.0 as usize], true) {
            self.changed = true;
        }
    }

    fn mark(&mut self, body: &[Stmt], diverged: bool) {
        for stmt in body {
            let mut inside = diverged;
            match stmt {
                Stmt::Let(reg, inst) => {
                    let is_mutable = self.kernel.registers[reg.0 as usize].mutable;
                    let mut differs = is_mutable && diverged;
                    differs |= matches!(inst, Inst::Load { .. } | Inst::Shuffle(..));
                    inst.for_each_operand(|operand| differs |= self.differs[operand.0 as usize]);
                    self.set(*reg, differs);
                }
                Stmt::For {
                    kind,
                    var,
                    start,
                    end,
                    ..
                } => {
                    inside |= [*start, *end]
                        .iter()
                        .any(|b| bound_differs(&self.differs, *b).is_some());
                    self.set(*var, inside || *kind == LoopKind::Thread);
                }
                Stmt::If { condition, .. } => inside |= self.differs[condition.0 as usize],
                Stmt::Store { .. } | Stmt::Barrier | Stmt::Prefetch { .. } => {}
            }
            for body in stmt.bodies() {
                self.mark(body, inside);
            }
        }
    }
}

struct Control<'k, 't> {
    report: Reporter<'k>,
    differs: &'t [bool],
}

impl Control<'_, '_> {
    /// `decided_by` is a register that may differ and decides whether this body runs.
    fn check(&self, body: &[Stmt], decided_by: Option<Reg>, in_threads: bool) -> Result<(), KernelError> {
        for stmt in body {
            let mut inside = decided_by;
            let mut threads = in_threads;
            match stmt {
                Stmt::For { kind, start, end, .. } => {
                    inside = inside
                        .or_else(|| bound_differs(self.differs, *start))
                        .or_else(|| bound_differs(self.differs, *end));
                    threads |= *kind == LoopKind::Thread;
                }
                Stmt::If { condition, .. } if self.differs[condition.0 as usize] => {
                    inside = inside.or(Some(*condition));
                }
                Stmt::Let(_, Inst::Shuffle(..)) | Stmt::Barrier => {
                    if let Some(reg) = decided_by {
                        return Err(self.report.at(stmt, Fault::Divergent(self.report.reg(reg))));
                    }
                    if !in_threads && *stmt != Stmt::Barrier {
                        return Err(self.report.at(stmt, Fault::ShuffleOutside));
                    }
                }
                _ => {}
            }
            for body in stmt.bodies() {
                self.check(body, inside, threads)?;
            }
        }
        Ok(())
    }
}
