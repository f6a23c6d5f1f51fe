//! Functions for a CPU: `(buffers, begin, end, tokens)`, with locals on the stack.

use inkwell::builder::Builder;
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::types::BasicType;
use inkwell::values::{BasicValue, BasicValueEnum, IntValue, PointerValue};
use rwkvc_ir::kernel::{Kernel, Local, Reg, Stmt};

use crate::dot::Dots;
use crate::emitter::{Emitter, Fault, Start};
use crate::form::Form;
use crate::machine::Machine;
use crate::memory::{Place, storage_type};

/// Bytes that locals are aligned to: the longest vector.
const LOCAL_ALIGNMENT: u32 = 64;

/// A range of iterations of the parallel loop.
#[derive(Clone, Copy)]
pub(crate) struct Task<'c> {
    /// The first iteration, and one past the last.
    pub(crate) range: (IntValue<'c>, IntValue<'c>),
    /// How products of bytes are added up.
    pub(crate) dots: Dots,
    /// Whether a thread loop is around the current statement.
    in_threads: bool,
}

impl Task<'_> {
    /// Between thread loops there is nothing to wait for.
    pub(crate) fn barrier(&self) -> Result<(), Fault> {
        if self.in_threads {
            return Err(Fault(
                "`barrier` inside a thread loop exists on GPUs only".to_owned(),
            ));
        }
        Ok(())
    }
}

/// Starts the function of a kernel.
pub(crate) fn start<'c>(
    kernel: &Kernel,
    context: &'c Context,
    module: &Module<'c>,
    machine: &Machine,
) -> Result<Start<'c>, Fault> {
    let (pointer, index) = (context.ptr_type(Default::default()), context.i64_type());
    let parameters = [pointer.into(), index.into(), index.into(), index.into()];
    let ty = context.void_type().fn_type(&parameters, false);
    let function = module.add_function(&kernel.name, ty, None);
    machine.mark(context, function);
    let parameters = function.get_params();
    let &[
        BasicValueEnum::PointerValue(array),
        BasicValueEnum::IntValue(begin),
        BasicValueEnum::IntValue(end),
        BasicValueEnum::IntValue(tokens),
    ] = parameters.as_slice()
    else {
        return Err(Fault("LLVM made a function without its parameters".to_owned()));
    };
    for (value, name) in parameters.iter().zip(["buffers", "begin", "end", "tokens"]) {
        value.set_name(name);
    }
    let b = context.create_builder();
    b.position_at_end(context.append_basic_block(function, "entry"));
    Ok(Start {
        places: places(kernel, context, &b, array)?,
        function,
        b,
        tokens,
        form: Form::Cpu(Task {
            range: (begin, end),
            dots: machine.dots,
            in_threads: false,
        }),
    })
}

/// The parameters, whose addresses the caller passes in an array, and the locals.
fn places<'c>(
    kernel: &Kernel,
    context: &'c Context,
    b: &Builder<'c>,
    array: PointerValue<'c>,
) -> Result<Vec<Place<'c>>, Fault> {
    let pointer = context.ptr_type(Default::default());
    let mut places = Vec::with_capacity(kernel.params.len() + kernel.locals.len());
    for (param, i) in kernel.params.iter().zip(0..) {
        let index = context.i64_type().const_int(i, false);
        // SAFETY: an address of one type and one index is what LLVM expects.
        let place = unsafe { b.build_gep(pointer, array, &[index], "")? };
        places.push(Place {
            base: b.build_load(pointer, place, &param.name)?.into_pointer_value(),
            align: param.dtype.size() as u32,
            constant: false,
        });
    }
    for local in &kernel.locals {
        places.push(Place {
            base: self::local(local, context, b, LOCAL_ALIGNMENT)?,
            align: local.dtype.size() as u32,
            constant: false,
        });
    }
    Ok(places)
}

/// A local buffer on the stack.
pub(crate) fn local<'c>(
    local: &Local,
    context: &'c Context,
    b: &Builder<'c>,
    alignment: u32,
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
        instruction.set_alignment(alignment)?;
    }
    Ok(place)
}

/// Threads run one after the other.
pub(crate) fn thread_loop<'c>(
    emitter: &mut Emitter<'_, '_, 'c>,
    var: Reg,
    range: (IntValue<'c>, IntValue<'c>),
    step: i64,
    body: &[Stmt],
) -> Result<(), Fault> {
    let set = |form: &mut Form<'c>, inside| {
        if let Form::Cpu(task) = form {
            task.in_threads = inside;
        }
    };
    set(&mut emitter.form, true);
    emitter.serial_loop(var, range, step, body)?;
    set(&mut emitter.form, false);
    Ok(())
}
