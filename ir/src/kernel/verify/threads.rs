//! That all threads of a block reach the same barriers, shuffles and products of warps.
//!
//! A register may differ between threads if it is derived from the variable of a thread loop or from data that a kernel
//! may write, or if whether it is assigned depends on such a register.

use super::*;

/// Threads of a warp.
const WARP: u64 = 32;

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
    control.check(&kernel.body, None, None)
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
                    let is_written = |buf: Buf| {
                        let param = self.kernel.params.get(buf.0 as usize);
                        param.is_none_or(|p| p.access != Access::Read)
                    };
                    differs |= inst.loaded(self.kernel).is_some_and(|(buf, ..)| is_written(buf));
                    differs |= inst.common().is_some();
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
    /// `decided_by` is a register that may differ and decides whether this body runs; `threads` counts those of the
    /// thread loop around it.
    fn check(&self, body: &[Stmt], decided_by: Option<Reg>, threads: Option<u64>) -> Result<(), KernelError> {
        for stmt in body {
            let mut inside = decided_by;
            let mut threads = threads;
            match stmt {
                Stmt::For {
                    kind,
                    start,
                    end,
                    step,
                    ..
                } => {
                    inside = inside
                        .or_else(|| bound_differs(self.differs, *start))
                        .or_else(|| bound_differs(self.differs, *end));
                    if *kind == LoopKind::Thread {
                        threads = structure::iterations(*start, *end, *step);
                    }
                }
                Stmt::If { condition, .. } if self.differs[condition.0 as usize] => {
                    inside = inside.or(Some(*condition));
                }
                Stmt::Let(_, inst) => self
                    .check_common(inst, decided_by, threads)
                    .map_err(|fault| self.report.at(stmt, fault))?,
                Stmt::Barrier => self
                    .check_reached(decided_by)
                    .map_err(|fault| self.report.at(stmt, fault))?,
                _ => {}
            }
            for body in stmt.bodies() {
                self.check(body, inside, threads)?;
            }
        }
        Ok(())
    }

    fn check_reached(&self, decided_by: Option<Reg>) -> Result<(), Fault> {
        decided_by.map_or(Ok(()), |reg| Err(Fault::Divergent(self.report.reg(reg))))
    }

    /// An instruction that needs other threads.
    fn check_common(&self, inst: &Inst, decided_by: Option<Reg>, threads: Option<u64>) -> Result<(), Fault> {
        let Some(name) = inst.common() else {
            return Ok(());
        };
        self.check_reached(decided_by)?;
        match threads {
            None => Err(Fault::OutsideThreads(name)),
            Some(count) if matches!(inst, Inst::Mma { .. }) && count % WARP != 0 => Err(Fault::Warps(count)),
            Some(_) => Ok(()),
        }
    }
}
