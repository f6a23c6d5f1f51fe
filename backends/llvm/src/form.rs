//! What a CPU and a GPU do differently.

use inkwell::values::BasicValueEnum;
use rwkvc_ir::DType;
use rwkvc_ir::kernel::{Bound, Reg, Stmt};

use crate::dot::Dots;
use crate::emitter::{Emitter, Fault};
use crate::{cpu, gpu};

/// The machine of a function, with what only its functions have.
#[derive(Clone, Copy)]
pub(crate) enum Form<'c> {
    Cpu(cpu::Task<'c>),
    Gpu(gpu::Block<'c>),
}

impl Form<'_> {
    /// How products of bytes are added up.
    pub(crate) fn dots(&self) -> Dots {
        match self {
            Form::Cpu(task) => task.dots,
            Form::Gpu(_) => Dots::Bytes,
        }
    }
}

impl<'c> Emitter<'_, '_, 'c> {
    /// All that this function does of the parallel loop.
    pub(crate) fn parallel_loop(&mut self, var: Reg, body: &[Stmt]) -> Result<(), Fault> {
        match self.form {
            Form::Cpu(task) => self.serial_loop(var, task.range, 1, body),
            Form::Gpu(block) => {
                self.assign(var, block.number.into())?;
                self.block(body)
            }
        }
    }

    /// All that this function does of a thread loop.
    pub(crate) fn thread_loop(
        &mut self,
        var: Reg,
        (start, end): (Bound, Bound),
        step: i64,
        body: &[Stmt],
    ) -> Result<(), Fault> {
        match self.form {
            Form::Cpu(_) => cpu::thread_loop(self, var, (self.bound(start)?, self.bound(end)?), step, body),
            Form::Gpu(block) => {
                self.assign(var, block.thread.into())?;
                self.block(body)
            }
        }
    }

    /// Waits for all threads of the block.
    pub(crate) fn barrier(&self) -> Result<(), Fault> {
        match self.form {
            Form::Cpu(task) => task.barrier(),
            Form::Gpu(_) => gpu::barrier(self.context, self.module, &self.b),
        }
    }

    /// What the thread has whose number differs by `mask`.
    pub(crate) fn shuffle(&self, from: Reg, mask: u32) -> Result<BasicValueEnum<'c>, Fault> {
        match self.form {
            Form::Cpu(_) => Err(Fault("`shuffle` exists on GPUs only".to_owned())),
            Form::Gpu(_) => gpu::shuffle(self, from, mask),
        }
    }

    /// The product of matrices of a warp, from this thread's fragments.
    pub(crate) fn mma(&self, format: DType, fragments: [Reg; 3]) -> Result<BasicValueEnum<'c>, Fault> {
        match self.form {
            Form::Cpu(_) => Err(Fault("`mma` exists on GPUs only".to_owned())),
            Form::Gpu(_) => gpu::mma(self, format, fragments),
        }
    }

    /// The native `2^x`.
    pub(crate) fn exp2(&self, x: BasicValueEnum<'c>, lanes: u32) -> Result<BasicValueEnum<'c>, Fault> {
        match self.form {
            Form::Cpu(_) => Err(Fault(
                "`exp2` exists on GPUs only; it must be expanded".to_owned(),
            )),
            Form::Gpu(_) => gpu::exp2(self, x, lanes),
        }
    }
}
