//! Branches and loops.

use inkwell::IntPredicate;
use inkwell::basic_block::BasicBlock;
use inkwell::values::IntValue;
use rwkvc_ir::kernel::{Bound, Extent, LoopKind, Reg, Stmt};

use crate::emitter::{Emitter, Fault};

impl<'c> Emitter<'_, '_, 'c> {
    pub(crate) fn branch(&mut self, condition: Reg, then: &[Stmt], otherwise: &[Stmt]) -> Result<(), Fault> {
        let condition = self.int(condition)?;
        let then_block = self.context.append_basic_block(self.function, "then");
        let else_block = self.context.append_basic_block(self.function, "else");
        let join = self.context.append_basic_block(self.function, "join");
        self.b
            .build_conditional_branch(condition, then_block, else_block)?;
        for (block, body) in [(then_block, then), (else_block, otherwise)] {
            self.b.position_at_end(block);
            self.block(body)?;
            self.b.build_unconditional_branch(join)?;
        }
        self.b.position_at_end(join);
        Ok(())
    }

    pub(crate) fn repeat(
        &mut self,
        kind: LoopKind,
        var: Reg,
        (start, end): (Bound, Bound),
        step: i64,
        body: &[Stmt],
    ) -> Result<(), Fault> {
        if step <= 0 {
            return Err(Fault(format!(
                "the step of a loop is {step}, expected a positive one"
            )));
        }
        match kind {
            LoopKind::Parallel => {
                if start != Bound::Extent(Extent::fixed(0))
                    || end != Bound::Extent(self.kernel.grid)
                    || step != 1
                {
                    let expected = "the parallel loop must run from 0 to the grid in steps of 1";
                    return Err(Fault(expected.to_owned()));
                }
                self.parallel_loop(var, body)
            }
            LoopKind::Unrolled => self.write_out(var, (start, end), step, body),
            LoopKind::Serial => self.serial_loop(var, (self.bound(start)?, self.bound(end)?), step, body),
            LoopKind::Thread => self.thread_loop(var, (start, end), step, body),
        }
    }

    pub(crate) fn bound(&self, bound: Bound) -> Result<IntValue<'c>, Fault> {
        match bound {
            Bound::Reg(reg) => self.int(reg),
            Bound::Extent(extent) => match extent.as_fixed() {
                Some(n) => Ok(self.index(n)),
                None => {
                    let per_token = self.index(extent.per_token);
                    let n = self.b.build_int_mul(self.tokens, per_token, "")?;
                    Ok(self.b.build_int_add(n, self.index(extent.fixed), "")?)
                }
            },
        }
    }

    /// Repeats the code of the body for each iteration.
    fn write_out(&mut self, var: Reg, bounds: (Bound, Bound), step: i64, body: &[Stmt]) -> Result<(), Fault> {
        let fixed = |bound| match bound {
            Bound::Extent(extent) => extent.as_fixed(),
            Bound::Reg(_) => None,
        };
        let (Some(start), Some(end)) = (fixed(bounds.0), fixed(bounds.1)) else {
            return Err(Fault("an unrolled loop needs a fixed extent".to_owned()));
        };
        let mut at = start;
        while at < end {
            self.assign(var, self.index(at).into())?;
            self.block(body)?;
            at = at.saturating_add(step);
        }
        Ok(())
    }

    /// One iteration after the other.
    pub(crate) fn serial_loop(
        &mut self,
        var: Reg,
        (start, end): (IntValue<'c>, IntValue<'c>),
        step: i64,
        body: &[Stmt],
    ) -> Result<(), Fault> {
        let [header, inside, exit] =
            ["loop", "body", "exit"].map(|name| self.context.append_basic_block(self.function, name));
        let before = self.current_block()?;
        self.b.build_unconditional_branch(header)?;
        self.b.position_at_end(header);
        let counter = self.b.build_phi(self.index_type(), "i")?;
        let value = counter.as_basic_value().into_int_value();
        let goes_on = self.b.build_int_compare(IntPredicate::SLT, value, end, "")?;
        self.b.build_conditional_branch(goes_on, inside, exit)?;

        self.b.position_at_end(inside);
        self.depth += 1;
        self.assign(var, value.into())?;
        self.block(body)?;
        self.depth -= 1;
        // A verified loop ends before its variable overflows.
        let next = self.b.build_int_nsw_add(value, self.index(step), "")?;
        let last = self.current_block()?;
        self.b.build_unconditional_branch(header)?;
        counter.add_incoming(&[(&start, before), (&next, last)]);
        self.b.position_at_end(exit);
        Ok(())
    }

    fn current_block(&self) -> Result<BasicBlock<'c>, Fault> {
        self.b
            .get_insert_block()
            .ok_or_else(|| Fault("LLVM has no current block".to_owned()))
    }
}
