//! The proof that every access lies within its buffer.
//!
//! The value of a scalar Index or I32 register is a linear form of unknowns; where an instruction gives no such form
//! (a load, a minimum, a quotient) it makes an unknown with bounds, which are forms of earlier unknowns. Conditions
//! and loops give facts that hold in their bodies. A form is not negative if replacing its unknowns by bounds, the
//! newest first, can make it a number that is not.

use super::*;

mod arithmetic;
mod knowledge;
mod linear;

use knowledge::{Knowledge, Side};
use linear::Linear;

/// The range of Index.
const INDEX: (i64, i64) = (i64::MIN, i64::MAX);

/// The range of I32.
const INT: (i64, i64) = (i32::MIN as i64, i32::MAX as i64);

/// Conditions inside conditions that are looked into, at most.
const MAX_LOGIC: usize = 8;

pub(super) fn check(kernel: &Kernel) -> Result<(), KernelError> {
    let mut proof = Proof {
        report: Reporter::new(kernel),
        knowledge: Knowledge::new(),
        values: vec![None; kernel.registers.len()],
        conditions: vec![None; kernel.registers.len()],
    };
    proof.body(&kernel.body)
}

/// What a Bool register says.
#[derive(Clone)]
enum Condition {
    NotNegative(Linear),
    Zero(Linear),
    NotZero(Linear),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
}

impl Condition {
    fn depth(&self) -> usize {
        match self {
            Condition::And(a, b) | Condition::Or(a, b) => 1 + a.depth().max(b.depth()),
            _ => 0,
        }
    }
}

struct Proof<'k> {
    report: Reporter<'k>,
    knowledge: Knowledge,
    /// The current value of each scalar Index or I32 register that has one.
    values: Vec<Option<Linear>>,
    /// What each scalar Bool register says, if it is known.
    conditions: Vec<Option<Condition>>,
}

impl Proof<'_> {
    fn body(&mut self, body: &[Stmt]) -> Result<(), KernelError> {
        body.iter().try_for_each(|stmt| self.stmt(stmt))
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<(), KernelError> {
        match stmt {
            Stmt::Let(reg, inst) => {
                if let Some((buf, at, count)) = inst.loaded(self.report.kernel) {
                    self.access(buf, at, count)
                        .map_err(|fault| self.report.at(stmt, fault))?;
                }
                let value = self
                    .value(*reg, inst)
                    .map_err(|fault| self.report.at(stmt, fault))?;
                let condition = self.condition(inst);
                self.values[reg.0 as usize] = value;
                self.conditions[reg.0 as usize] = condition;
                Ok(())
            }
            Stmt::Store { buf, at, value } => {
                let lanes = self.report.kernel.ty(*value).lanes;
                self.access(*buf, at, lanes)
                    .map_err(|fault| self.report.at(stmt, fault))
            }
            Stmt::For {
                var,
                start,
                end,
                step,
                body,
                ..
            } => {
                self.forget_assigned(body);
                let mark = self.knowledge.mark();
                self.enter(*var, *start, *end, *step)
                    .map_err(|fault| self.report.at(stmt, fault))?;
                self.body(body)?;
                self.knowledge.forget(mark);
                self.forget_assigned(body);
                Ok(())
            }
            Stmt::If {
                condition,
                then,
                otherwise,
            } => {
                let condition = self.conditions[condition.0 as usize].clone();
                let before = (self.values.clone(), self.conditions.clone());
                for (body, holds) in [(then, true), (otherwise, false)] {
                    let mark = self.knowledge.mark();
                    if let Some(condition) = &condition {
                        self.suppose(condition, holds);
                    }
                    self.body(body)?;
                    self.knowledge.forget(mark);
                    (self.values, self.conditions) = before.clone();
                }
                self.forget_assigned(then);
                self.forget_assigned(otherwise);
                Ok(())
            }
            Stmt::Barrier | Stmt::Prefetch { .. } => Ok(()),
        }
    }

    /// Forgets the values of all mutable registers that a body may assign.
    fn forget_assigned(&mut self, body: &[Stmt]) {
        for stmt in body {
            if let Stmt::Let(reg, _) = stmt
                && self.report.kernel.registers[reg.0 as usize].mutable
            {
                self.values[reg.0 as usize] = self.anything(*reg);
                self.conditions[reg.0 as usize] = None;
            }
            stmt.bodies()
                .into_iter()
                .for_each(|body| self.forget_assigned(body));
        }
    }

    /// A new unknown for a register, if it is a scalar that may be one.
    fn anything(&mut self, reg: Reg) -> Option<Linear> {
        Some(self.knowledge.unknown(self.range(reg)?, vec![], vec![]))
    }

    /// The range of a register that has a value here.
    fn range(&self, reg: Reg) -> Option<(i64, i64)> {
        let ty = self.report.kernel.ty(reg);
        match ty.scalar {
            Scalar::Index if ty.lanes == 1 => Some(INDEX),
            Scalar::I32 if ty.lanes == 1 => Some(INT),
            _ => None,
        }
    }

    fn get(&mut self, reg: Reg) -> Option<Linear> {
        self.values[reg.0 as usize].clone()
    }

    /// The value of an affine index, as if it could not wrap.
    fn affine(&self, at: &Affine) -> Option<Linear> {
        let mut sum = Linear::constant(i128::from(at.offset));
        for (reg, factor) in &at.terms {
            sum = sum.combine(1, self.values[reg.0 as usize].as_ref()?, i128::from(*factor))?;
        }
        Some(sum)
    }

    fn extent(extent: Extent) -> Linear {
        Linear::of_tokens(i128::from(extent.fixed), i128::from(extent.per_token))
    }

    fn bound(&mut self, bound: Bound) -> Option<Linear> {
        match bound {
            Bound::Extent(extent) => Some(Self::extent(extent)),
            Bound::Reg(reg) => self.get(reg),
        }
    }

    /// Proves that lanes from a position on lie in a buffer. The position may wrap in between: the sum that is proven
    /// to lie in the buffer is the one that the wrapping sum is equal to.
    fn access(&mut self, buf: Buf, at: &Affine, lanes: u32) -> Result<(), Fault> {
        let index = buf.0 as usize;
        let kernel = self.report.kernel;
        let length = match kernel.params.get(index) {
            Some(param) => param.len,
            None => Extent::fixed(kernel.locals[index - kernel.params.len()].len),
        };
        let first = self.affine(at);
        let after = first.as_ref().and_then(|first| first.offset(i128::from(lanes)));
        if let (Some(first), Some(after)) = (&first, &after)
            && self.knowledge.is_not_negative(first)
            && self.knowledge.is_at_most(after, &Self::extent(length))
        {
            return Ok(());
        }
        let last = after.and_then(|after| after.offset(-1));
        Err(Fault::OutOfBounds {
            buffer: self.report.buf(buf),
            first: self.knowledge.describe(first.as_ref(), Side::Lower),
            last: self.knowledge.describe(last.as_ref(), Side::Upper),
            length: length.to_string(),
        })
    }

    /// Gives a loop variable its bounds and learns that the loop runs.
    fn enter(&mut self, var: Reg, start: Bound, end: Bound, step: i64) -> Result<(), Fault> {
        let (start, end) = (self.bound(start), self.bound(end));
        let step = i128::from(step);
        if step > 1 {
            // The last step must not wrap; with 1, it ends at the end.
            let fits = end
                .as_ref()
                .and_then(|end| end.offset(step))
                .is_some_and(|next| self.fits(&next, INDEX));
            if !fits {
                return Err(Fault::Overflow(
                    self.knowledge.describe(end.as_ref(), Side::Upper),
                ));
            }
        }
        let mut upper: Vec<Linear> = vec![];
        if let (Some(start), Some(end)) = (&start, &end)
            && let Some(distance) = end.minus(start)
        {
            if let Some(runs) = distance.offset(-1) {
                self.knowledge.learn(&runs);
            }
            if distance.moves_by(step)
                && let Some(before) = distance.constant_part().checked_sub(1)
            {
                // The last value is `start + step * ⌊(distance - 1) / step⌋`.
                upper.extend(end.offset(-1 - before.rem_euclid(step)));
            }
        }
        upper.extend(end.as_ref().and_then(|end| end.offset(-1)));
        let lower = start.into_iter().collect();
        self.values[var.0 as usize] = Some(self.knowledge.unknown(INDEX, lower, upper));
        Ok(())
    }

    /// Learns what follows from a condition.
    fn suppose(&mut self, condition: &Condition, holds: bool) {
        match (condition, holds) {
            (Condition::NotNegative(form), true) => self.knowledge.learn(form),
            (Condition::NotNegative(form), false) => {
                if let Some(negative) = Linear::constant(-1).minus(form) {
                    self.knowledge.learn(&negative);
                }
            }
            (Condition::Zero(form), true) | (Condition::NotZero(form), false) => {
                self.knowledge.learn(form);
                if let Some(negated) = form.times(-1) {
                    self.knowledge.learn(&negated);
                }
            }
            (Condition::Zero(_), false) | (Condition::NotZero(_), true) => {}
            (Condition::And(a, b), true) | (Condition::Or(a, b), false) => {
                self.suppose(a, holds);
                self.suppose(b, holds);
            }
            (Condition::And(..), false) | (Condition::Or(..), true) => {}
        }
    }

    /// What the Bool that an instruction computes says.
    fn condition(&mut self, inst: &Inst) -> Option<Condition> {
        match *inst {
            Inst::Compare(op, a, b) => {
                let (a, b) = (self.get(a)?, self.get(b)?);
                let difference = b.minus(&a)?;
                Some(match op {
                    Compare::Eq => Condition::Zero(difference),
                    Compare::Ne => Condition::NotZero(difference),
                    Compare::Lt => Condition::NotNegative(difference.offset(-1)?),
                    Compare::Le => Condition::NotNegative(difference),
                })
            }
            Inst::Copy(a) => self.conditions[a.0 as usize].clone(),
            Inst::Binary(op @ (Binary::And | Binary::Or), a, b) => {
                let (a, b) = (
                    self.conditions[a.0 as usize].clone(),
                    self.conditions[b.0 as usize].clone(),
                );
                match (op, a, b) {
                    (Binary::And, Some(a), Some(b)) if a.depth().max(b.depth()) < MAX_LOGIC => {
                        Some(Condition::And(Box::new(a), Box::new(b)))
                    }
                    // One part of a conjunction still holds with the whole, and says nothing if it does not.
                    (Binary::And, Some(a), None) | (Binary::And, None, Some(a)) if a.depth() < MAX_LOGIC => {
                        Some(Condition::And(Box::new(a.clone()), Box::new(a)))
                    }
                    (Binary::Or, Some(a), Some(b)) if a.depth().max(b.depth()) < MAX_LOGIC => {
                        Some(Condition::Or(Box::new(a), Box::new(b)))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }
}
