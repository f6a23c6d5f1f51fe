//! The shape of a kernel: names, sizes, types, loops and scopes.

use std::collections::HashSet;

use super::super::parse::MAX_DEPTH;
use super::super::text::{LOOP, is_identifier, word};
use super::*;

/// The fixed part of an extent, at most.
const MAX_FIXED: i64 = 1 << 60;

/// What a token may add to an extent, at most: with [`MAX_TOKENS`], half of the 64-bit range.
const MAX_PER_TOKEN: i64 = 1 << 31;

pub(super) fn check(kernel: &Kernel) -> Result<(), KernelError> {
    let report = Reporter::new(kernel);
    report.check_whole().map_err(|fault| report.whole(fault))?;
    let mut scopes = Scopes {
        homes: vec![Home::Nowhere; kernel.registers.len()],
        defined: vec![false; kernel.registers.len()],
        thread_loop: 0,
        thread_loops: 0,
        in_parallel: false,
        report,
    };
    scopes.body(&kernel.body, 1)
}

impl Reporter<'_> {
    fn limit<T: ToString + PartialOrd>(
        &self,
        what: impl Into<String>,
        found: T,
        most: T,
    ) -> Result<(), Fault> {
        if found <= most {
            return Ok(());
        }
        let expected = format!("at most {}", most.to_string());
        Err(Fault::Limit {
            what: what.into(),
            found: found.to_string(),
            expected,
        })
    }

    fn extent(&self, what: &str, extent: Extent) -> Result<(), Fault> {
        self.limit(
            format!("the fixed part of {what}"),
            extent.fixed.saturating_abs(),
            MAX_FIXED,
        )?;
        self.limit(
            format!("the part of {what} that each token adds"),
            extent.per_token.saturating_abs(),
            MAX_PER_TOKEN,
        )
    }

    /// All that is not a statement.
    fn check_whole(&self) -> Result<(), Fault> {
        let kernel = self.kernel;
        let name = |what, name: &String| match is_identifier(name) {
            true => Ok(()),
            false => Err(Fault::Name {
                what,
                name: name.clone(),
            }),
        };
        name("the kernel", &kernel.name)?;
        self.limit("buffers", kernel.params.len() + kernel.locals.len(), MAX_BUFFERS)?;
        self.limit("registers", kernel.registers.len(), MAX_REGISTERS)?;
        self.extent("the grid", kernel.grid)?;
        let mut names = HashSet::new();
        for param in &kernel.params {
            name("a parameter", &param.name)?;
            names
                .insert(&param.name)
                .then_some(())
                .ok_or_else(|| Fault::SameName(param.name.clone()))?;
            let what = format!("the length of `{}`", param.name);
            self.extent(&what, param.len)?;
            if param.len.per_token < 0 || param.len.at(1) < 0 {
                let expected = "one that is never negative".into();
                return Err(Fault::Limit {
                    what,
                    found: param.len.to_string(),
                    expected,
                });
            }
        }
        let mut bytes = 0_i64;
        for local in &kernel.locals {
            name("a local", &local.name)?;
            names
                .insert(&local.name)
                .then_some(())
                .ok_or_else(|| Fault::SameName(local.name.clone()))?;
            if local.len < 0 {
                let what = format!("the length of `{}`", local.name);
                let expected = "one that is not negative".into();
                return Err(Fault::Limit {
                    what,
                    found: local.len.to_string(),
                    expected,
                });
            }
            bytes = bytes.saturating_add(local.len.saturating_mul(local.dtype.size() as i64));
        }
        self.limit("bytes of all locals", bytes, MAX_LOCAL_BYTES)?;
        self.check_registers()?;
        let mut parallel = 0;
        let statements = written_out(&kernel.body, 1, &mut parallel)?;
        self.limit(
            "statements with unrolled loops written out",
            statements,
            MAX_STATEMENTS,
        )?;
        if parallel == 1 {
            Ok(())
        } else {
            Err(Fault::ParallelLoops(parallel))
        }
    }
}

/// Counts statements with unrolled loops written out, and parallel loops. Refuses too deep nesting, so that all that
/// comes later may recurse.
fn written_out(body: &[Stmt], depth: usize, parallel: &mut usize) -> Result<u64, Fault> {
    if depth > MAX_DEPTH {
        let expected = format!("at most {MAX_DEPTH}");
        return Err(Fault::Limit {
            what: "bodies in each other".into(),
            found: depth.to_string(),
            expected,
        });
    }
    let mut count = 0_u64;
    for stmt in body {
        let mut inner = 0_u64;
        for body in stmt.bodies() {
            inner = inner.saturating_add(written_out(body, depth + 1, parallel)?);
        }
        if let Stmt::For {
            kind,
            start,
            end,
            step,
            ..
        } = stmt
        {
            *parallel += usize::from(*kind == LoopKind::Parallel);
            if *kind == LoopKind::Unrolled {
                inner = inner.saturating_mul(iterations(*start, *end, *step).unwrap_or(0));
            }
        }
        count = count.saturating_add(inner).saturating_add(1);
    }
    Ok(count)
}

/// The iterations of a loop of fixed extent.
pub(crate) fn iterations(start: Bound, end: Bound, step: i64) -> Option<u64> {
    let (Bound::Extent(start), Bound::Extent(end)) = (start, end) else {
        return None;
    };
    let distance = i128::from(end.as_fixed()?) - i128::from(start.as_fixed()?);
    let step = i128::from(step.max(1));
    u64::try_from((distance.max(0) + step - 1) / step).ok()
}

/// Where a register is assigned.
#[derive(Clone, Copy, PartialEq)]
enum Home {
    Nowhere,
    /// In this thread loop; 0 is outside of all.
    ThreadLoop(u32),
}

struct Scopes<'k> {
    report: Reporter<'k>,
    homes: Vec<Home>,
    /// Whether an assignment precedes in this body or one around it.
    defined: Vec<bool>,
    /// The current thread loop; 0 is outside of all.
    thread_loop: u32,
    thread_loops: u32,
    in_parallel: bool,
}

impl Scopes<'_> {
    fn body(&mut self, body: &[Stmt], depth: usize) -> Result<(), KernelError> {
        let mut new = vec![];
        for stmt in body {
            self.stmt(stmt, depth, &mut new)
                .map_err(|fault| self.report.at(stmt, fault))??;
        }
        new.into_iter()
            .for_each(|reg: Reg| self.defined[reg.0 as usize] = false);
        Ok(())
    }

    /// The outer error is one of this statement, the inner one of a statement inside.
    fn stmt(
        &mut self,
        stmt: &Stmt,
        depth: usize,
        new: &mut Vec<Reg>,
    ) -> Result<Result<(), KernelError>, Fault> {
        match stmt {
            Stmt::Let(reg, inst) => {
                inst_operands(inst, |operand| self.read(operand))?;
                self.report.check_inst(*reg, inst)?;
                if !self.in_parallel && !is_index_arithmetic(self.report.kernel, *reg, inst) {
                    return Err(Fault::BesideParallel);
                }
                self.assign(*reg, new)?;
            }
            Stmt::For {
                kind,
                var,
                start,
                end,
                step,
                body,
            } => {
                self.check_loop(*kind, *start, *end, *step)?;
                self.report.check_scalar(*var, Scalar::Index)?;
                let info = &self.report.kernel.registers[var.0 as usize];
                if info.mutable {
                    let (what, found) = (format!("`{}`", self.report.reg(*var)), "mutable".into());
                    return Err(Fault::Type {
                        what,
                        found,
                        expected: "an immutable loop variable".into(),
                    });
                }
                let outer = (self.in_parallel, self.thread_loop);
                self.in_parallel |= *kind == LoopKind::Parallel;
                if *kind == LoopKind::Thread {
                    self.thread_loops += 1;
                    self.thread_loop = self.thread_loops;
                }
                self.assign(*var, &mut vec![])?;
                let inside = self.body(body, depth + 1);
                self.defined[var.0 as usize] = false;
                (self.in_parallel, self.thread_loop) = outer;
                return Ok(inside);
            }
            _ if !self.in_parallel => return Err(Fault::BesideParallel),
            Stmt::Store { buf, at, value } => {
                at.terms.iter().try_for_each(|&(reg, _)| self.read(reg))?;
                self.read(*value)?;
                self.report.check_affine(at)?;
                self.report.check_store(*buf, *value)?;
            }
            Stmt::If {
                condition,
                then,
                otherwise,
            } => {
                self.read(*condition)?;
                self.report.check_scalar(*condition, Scalar::Bool)?;
                return Ok(self
                    .body(then, depth + 1)
                    .and_then(|()| self.body(otherwise, depth + 1)));
            }
            Stmt::Barrier => {}
            Stmt::Prefetch { buf, at } => {
                at.terms.iter().try_for_each(|&(reg, _)| self.read(reg))?;
                self.report.check_prefetch(*buf, at)?;
            }
        }
        Ok(Ok(()))
    }

    fn check_loop(&mut self, kind: LoopKind, start: Bound, end: Bound, step: i64) -> Result<(), Fault> {
        for bound in [start, end] {
            match bound {
                Bound::Extent(extent) => self.report.extent("the bound", extent)?,
                Bound::Reg(reg) => {
                    self.read(reg)?;
                    self.report.check_scalar(reg, Scalar::Index)?;
                }
            }
        }
        if step < 1 {
            return Err(Fault::Step(step));
        }
        self.report.limit("the step", step, MAX_FIXED)?;
        let is_parallel = kind == LoopKind::Parallel;
        let grid = self.report.kernel.grid;
        if is_parallel && (start, end, step) != (Bound::Extent(Extent::fixed(0)), Bound::Extent(grid), 1) {
            return Err(Fault::ParallelRange(grid));
        }
        if is_parallel && self.in_parallel {
            return Err(Fault::ParallelLoops(2));
        }
        if !is_parallel && !self.in_parallel {
            return Err(Fault::BesideParallel);
        }
        if matches!(kind, LoopKind::Thread | LoopKind::Unrolled) {
            let count = iterations(start, end, step).ok_or(Fault::NotFixed(word(&LOOP, kind)))?;
            if kind == LoopKind::Thread {
                self.report.limit("threads", count, MAX_THREADS as u64)?;
            }
        }
        if kind == LoopKind::Thread && self.thread_loop != 0 {
            Err(Fault::NestedThreads)
        } else {
            Ok(())
        }
    }

    fn read(&self, reg: Reg) -> Result<(), Fault> {
        match self.defined.get(reg.0 as usize) {
            None => Err(Fault::Missing {
                what: "register",
                number: reg.0,
            }),
            Some(true) => Ok(()),
            Some(false) => Err(Fault::Undefined(self.report.reg(reg))),
        }
    }

    /// An assignment of a register that exists; `new` gets it if it is the first one in scope.
    fn assign(&mut self, reg: Reg, new: &mut Vec<Reg>) -> Result<(), Fault> {
        let i = reg.0 as usize;
        let here = Home::ThreadLoop(self.thread_loop);
        let home = std::mem::replace(&mut self.homes[i], here);
        if home != Home::Nowhere && !self.report.kernel.registers[i].mutable {
            return Err(Fault::AssignedTwice(self.report.reg(reg)));
        }
        if home != Home::Nowhere && home != here {
            return Err(Fault::SharedByThreads(self.report.reg(reg)));
        }
        if !std::mem::replace(&mut self.defined[i], true) {
            new.push(reg);
        }
        Ok(())
    }
}

fn inst_operands(inst: &Inst, mut check: impl FnMut(Reg) -> Result<(), Fault>) -> Result<(), Fault> {
    let mut result = Ok(());
    inst.for_each_operand(|reg| {
        if result.is_ok() {
            result = check(reg);
        }
    });
    result
}

/// What may stand beside the parallel loop.
fn is_index_arithmetic(kernel: &Kernel, reg: Reg, inst: &Inst) -> bool {
    let info = &kernel.registers[reg.0 as usize];
    let is_plain = inst.loaded(kernel).is_none() && inst.common().is_none();
    !info.mutable && info.ty == Type::scalar(Scalar::Index) && is_plain
}
