//! What a CPU does where a GPU would do otherwise: where loops run, where locals are, and what it does not have.

use inkwell::builder::Builder;
use inkwell::context::Context;
use inkwell::types::BasicType;
use inkwell::values::{BasicValue, BasicValueEnum, IntValue, PointerValue};
use rwkvc_ir::kernel::{Local, Reg, Stmt};

use crate::emitter::{Emitter, Fault};
use crate::memory::storage_type;

/// Bytes that locals are aligned to: the longest vector.
const LOCAL_ALIGNMENT: u32 = 64;

/// A local buffer, on the stack whatever its space.
pub(crate) fn local<'c>(
    local: &Local,
    context: &'c Context,
    b: &Builder<'c>,
) -> Result<PointerValue<'c>, Fault> {
    let len = u32::try_from(local.len).map_err(|_| {
        Fault(format!(
            "local @{} has {} elements, more than a stack holds",
            local.name, local.len
        ))
    })?;
    let ty = storage_type(context, local.dtype).array_type(len);
    let place = b.build_alloca(ty, &local.name)?;
    if let Some(instruction) = place.as_instruction_value() {
        instruction.set_alignment(LOCAL_ALIGNMENT)?;
    }
    Ok(place)
}

impl<'c> Emitter<'_, '_, 'c> {
    /// The caller chose the iterations.
    pub(crate) fn parallel_loop(&mut self, var: Reg, body: &[Stmt]) -> Result<(), Fault> {
        self.serial_loop(var, self.range, 1, body)
    }

    /// Threads run one after the other.
    pub(crate) fn thread_loop(
        &mut self,
        var: Reg,
        range: (IntValue<'c>, IntValue<'c>),
        step: i64,
        body: &[Stmt],
    ) -> Result<(), Fault> {
        self.in_threads = true;
        self.serial_loop(var, range, step, body)?;
        self.in_threads = false;
        Ok(())
    }

    /// Between thread loops there is nothing to wait for.
    pub(crate) fn barrier(&self) -> Result<(), Fault> {
        if self.in_threads {
            return Err(Fault(
                "`barrier` inside a thread loop exists on GPUs only".to_owned(),
            ));
        }
        Ok(())
    }

    pub(crate) fn shuffle(&self) -> Result<BasicValueEnum<'c>, Fault> {
        Err(Fault("`shuffle` exists on GPUs only".to_owned()))
    }

    pub(crate) fn exp2(&self) -> Result<BasicValueEnum<'c>, Fault> {
        Err(Fault(
            "`exp2` exists on GPUs only; it must be expanded".to_owned(),
        ))
    }
}
