//! Control flow: branches and loops.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};
use rwkvc_backend_api::LowerError;
use rwkvc_ir::kernel::{Bound, Extent, LoopKind, Reg, Stmt};

use crate::emitter::Emitter;

impl Emitter<'_, '_> {
    /// Runs one of two bodies.
    pub(crate) fn branch(
        &mut self,
        condition: Reg,
        then: &[Stmt],
        otherwise: &[Stmt],
    ) -> Result<(), LowerError> {
        let condition = self.scalar(condition)?;
        let then_block = self.b.create_block();
        let join = self.b.create_block();
        let else_block = if otherwise.is_empty() {
            join
        } else {
            self.b.create_block()
        };
        self.b.ins().brif(condition, then_block, &[], else_block, &[]);
        let outer = self.guard_depth.replace(self.loop_depth);
        for (block, body) in [(then_block, then), (else_block, otherwise)] {
            if block != join {
                self.b.switch_to_block(block);
                self.b.seal_block(block);
                self.block(body)?;
                self.b.ins().jump(join, &[]);
            }
        }
        self.guard_depth = outer;
        self.b.switch_to_block(join);
        self.b.seal_block(join);
        Ok(())
    }

    /// Runs a loop of any kind.
    pub(crate) fn repeat(
        &mut self,
        kind: LoopKind,
        var: Reg,
        (start, end): (Bound, Bound),
        step: i64,
        body: &[Stmt],
    ) -> Result<(), LowerError> {
        if kind == LoopKind::Parallel {
            if start != Bound::Extent(Extent::fixed(0)) || end != Bound::Extent(self.kernel.grid) || step != 1
            {
                return Err(
                    self.refuse("the parallel loop must run from 0 to the grid in steps of 1".to_owned())
                );
            }
            return self.run_loop(var, (self.begin, self.end), step, false, body);
        }
        let fixed = |bound| {
            if let Bound::Extent(extent) = bound {
                Extent::as_fixed(extent)
            } else {
                None
            }
        };
        match (kind, fixed(start), fixed(end)) {
            (LoopKind::Unrolled, Some(start), Some(end)) => self.write_out(var, start, end, step, body),
            (LoopKind::Unrolled, _, _) => {
                Err(self.refuse("an unrolled loop needs a fixed extent".to_owned()))
            }
            (_, Some(start), Some(end)) if end <= start.saturating_add(step) => {
                self.write_out(var, start, end, step, body)
            }
            _ => {
                let entered = surely_entered(start, end);
                let range = (self.bound(start)?, self.bound(end)?);
                self.run_loop(var, range, step, entered, body)
            }
        }
    }

    fn bound(&mut self, bound: Bound) -> Result<Value, LowerError> {
        match bound {
            Bound::Reg(reg) => self.scalar(reg),
            Bound::Extent(extent) => match extent.as_fixed() {
                Some(n) => Ok(self.b.ins().iconst(types::I64, n)),
                None => {
                    let n = self.b.ins().imul_imm_s(self.tokens, extent.per_token);
                    Ok(self.b.ins().iadd_imm_s(n, extent.fixed))
                }
            },
        }
    }

    /// Repeats the code of the body for each iteration.
    fn write_out(
        &mut self,
        var: Reg,
        start: i64,
        end: i64,
        step: i64,
        body: &[Stmt],
    ) -> Result<(), LowerError> {
        self.follows[var.0 as usize] = 0;
        let mut at = start;
        while at < end {
            let value = self.b.ins().iconst(types::I64, at);
            self.assign(var, vec![value]);
            self.block(body)?;
            at = at.saturating_add(step);
        }
        Ok(())
    }

    /// A loop with its test at the end, behind a test whether it runs at all.
    ///
    /// The block between that test and the loop takes what Cranelift moves out of the loop.
    fn run_loop(
        &mut self,
        var: Reg,
        (start, end): (Value, Value),
        step: i64,
        entered: bool,
        body: &[Stmt],
    ) -> Result<(), LowerError> {
        let header = self.b.create_block();
        let exit = self.b.create_block();
        let value = self.b.append_block_param(header, types::I64);
        if !entered {
            let preheader = self.b.create_block();
            let runs = self.b.ins().icmp(IntCC::SignedLessThan, start, end);
            self.b.ins().brif(runs, preheader, &[], exit, &[]);
            self.b.switch_to_block(preheader);
            self.b.seal_block(preheader);
        }
        self.b.ins().jump(header, &[start.into()]);
        self.b.switch_to_block(header);
        let outer = self.guard_depth;
        // Nothing moves further than in front of the outermost loop, so its own test guards nothing.
        if !entered && self.loop_depth > 0 {
            self.guard_depth = Some(self.loop_depth);
        }
        self.loop_depth += 1;
        self.follows[var.0 as usize] = self.loop_depth;
        self.assign(var, vec![value]);
        self.block(body)?;
        self.loop_depth -= 1;
        self.guard_depth = outer;
        let next = self.b.ins().iadd_imm_s(value, step);
        let again = self.b.ins().icmp(IntCC::SignedLessThan, next, end);
        self.b.ins().brif(again, header, &[next.into()], exit, &[]);
        self.b.seal_block(header);
        self.b.switch_to_block(exit);
        self.b.seal_block(exit);
        Ok(())
    }
}

/// Whether a loop runs at least once for any number of tokens (`T ≥ 1`).
fn surely_entered(start: Bound, end: Bound) -> bool {
    let (Bound::Extent(start), Bound::Extent(end)) = (start, end) else {
        return false;
    };
    end.per_token >= start.per_token && end.at(1) > start.at(1)
}
