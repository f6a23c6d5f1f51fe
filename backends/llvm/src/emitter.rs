//! Registers and statements.

use inkwell::builder::{Builder, BuilderError};
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::types::{BasicType, BasicTypeEnum, IntType};
use inkwell::values::{
    BasicValue, BasicValueEnum, FunctionValue, InstructionValueError, IntValue, PointerValue,
};
use rwkvc_ir::kernel::{Kernel, Reg, Scalar, Stmt, Type};

use crate::divisibility::low_zeros;
use crate::form::Form;
use crate::memory::{Buffer, Place, buffers};

/// Why a kernel cannot be emitted.
#[derive(Debug)]
pub(crate) struct Fault(pub(crate) String);

impl From<BuilderError> for Fault {
    fn from(error: BuilderError) -> Self {
        Fault(format!("LLVM cannot build an instruction: {error}"))
    }
}

impl From<InstructionValueError> for Fault {
    fn from(error: InstructionValueError) -> Self {
        Fault(format!("LLVM cannot annotate an instruction: {error}"))
    }
}

/// The beginning of a function, which depends on the machine.
pub(crate) struct Start<'c> {
    pub(crate) function: FunctionValue<'c>,
    /// Positioned behind what was needed to find the buffers.
    pub(crate) b: Builder<'c>,
    /// Where the parameters are, then the locals.
    pub(crate) places: Vec<Place<'c>>,
    pub(crate) tokens: IntValue<'c>,
    pub(crate) form: Form<'c>,
}

/// Emits the body of a kernel into a function that was started.
pub(crate) fn finish<'c>(
    kernel: &Kernel,
    context: &'c Context,
    module: &Module<'c>,
    start: Start<'c>,
) -> Result<(), Fault> {
    let mut emitter = Emitter::new(kernel, context, module, start)?;
    emitter.block(&kernel.body)?;
    emitter.b.build_return(None)?;
    Ok(())
}

/// Where a register is.
#[derive(Clone, Copy)]
enum Held<'c> {
    /// Not computed yet.
    Nothing,
    /// Immutable: an SSA value.
    Value(BasicValueEnum<'c>),
    /// Mutable: a place on the stack, which LLVM turns into SSA values.
    Variable(PointerValue<'c>),
}

/// A function under construction.
pub(crate) struct Emitter<'k, 'm, 'c> {
    pub(crate) kernel: &'k Kernel,
    pub(crate) context: &'c Context,
    pub(crate) module: &'m Module<'c>,
    pub(crate) b: Builder<'c>,
    pub(crate) function: FunctionValue<'c>,
    /// Parameters, then locals.
    pub(crate) buffers: Vec<Buffer<'c>>,
    pub(crate) tokens: IntValue<'c>,
    /// What differs between machines.
    pub(crate) form: Form<'c>,
    held: Vec<Held<'c>>,
    /// For each register: the loops around its last assignment.
    depths: Vec<u32>,
    /// For each register: how many of its low bits are surely zero.
    pub(crate) zeros: Vec<u32>,
    /// The loops around the current statement.
    pub(crate) depth: u32,
}

impl<'k, 'm, 'c> Emitter<'k, 'm, 'c> {
    fn new(
        kernel: &'k Kernel,
        context: &'c Context,
        module: &'m Module<'c>,
        start: Start<'c>,
    ) -> Result<Self, Fault> {
        let mut emitter = Self {
            kernel,
            context,
            module,
            b: start.b,
            function: start.function,
            buffers: buffers(kernel, context, start.places),
            tokens: start.tokens,
            form: start.form,
            held: vec![Held::Nothing; kernel.registers.len()],
            depths: vec![0; kernel.registers.len()],
            zeros: low_zeros(kernel),
            depth: 0,
        };
        for (held, register) in emitter.held.iter_mut().zip(&kernel.registers) {
            if register.mutable {
                let ty = vector_type(context, register.ty);
                *held = Held::Variable(emitter.b.build_alloca(ty, &register.name)?);
            }
        }
        Ok(emitter)
    }

    /// The LLVM type of a register.
    pub(crate) fn ty(&self, ty: Type) -> BasicTypeEnum<'c> {
        vector_type(self.context, ty)
    }

    pub(crate) fn index_type(&self) -> IntType<'c> {
        self.context.i64_type()
    }

    pub(crate) fn index(&self, value: i64) -> IntValue<'c> {
        self.index_type().const_int(value as u64, true)
    }

    /// The value of a register.
    pub(crate) fn value(&self, reg: Reg) -> Result<BasicValueEnum<'c>, Fault> {
        let info = &self.kernel.registers[reg.0 as usize];
        match self.held[reg.0 as usize] {
            Held::Value(value) => Ok(value),
            Held::Variable(place) => Ok(self.b.build_load(self.ty(info.ty), place, &info.name)?),
            Held::Nothing => Err(Fault(format!(
                "register %{} is used before it is computed",
                info.name
            ))),
        }
    }

    /// The value of a register that holds an integer or a truth value, in one lane.
    pub(crate) fn int(&self, reg: Reg) -> Result<IntValue<'c>, Fault> {
        match self.value(reg)? {
            BasicValueEnum::IntValue(value) => Ok(value),
            _ => {
                let info = &self.kernel.registers[reg.0 as usize];
                Err(Fault(format!(
                    "register %{} is {}, expected a scalar that is no float",
                    info.name, info.ty
                )))
            }
        }
    }

    pub(crate) fn assign(&mut self, reg: Reg, value: BasicValueEnum<'c>) -> Result<(), Fault> {
        self.depths[reg.0 as usize] = self.depth;
        match &mut self.held[reg.0 as usize] {
            Held::Variable(place) => {
                self.b.build_store(*place, value)?;
            }
            held => {
                // Constants have no names.
                if value.as_instruction_value().is_some() {
                    value.set_name(&self.kernel.registers[reg.0 as usize].name);
                }
                *held = Held::Value(value);
            }
        }
        Ok(())
    }

    /// The loops around the last assignment of a register: it surely does not change in loops inside of them, unless
    /// it is mutable.
    pub(crate) fn depth_of(&self, reg: Reg) -> u32 {
        self.depths[reg.0 as usize]
    }

    /// Emits statements in order.
    pub(crate) fn block(&mut self, statements: &[Stmt]) -> Result<(), Fault> {
        statements
            .iter()
            .try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt) -> Result<(), Fault> {
        match statement {
            Stmt::Let(reg, inst) => {
                let value = self.compute(*reg, inst)?;
                self.assign(*reg, value)
            }
            Stmt::Store { buf, at, value } => self.store(*buf, at, *value),
            Stmt::For {
                kind,
                var,
                start,
                end,
                step,
                body,
            } => self.repeat(*kind, *var, (*start, *end), *step, body),
            Stmt::If {
                condition,
                then,
                otherwise,
            } => self.branch(*condition, then, otherwise),
            Stmt::Barrier => self.barrier(),
            Stmt::Prefetch { buf, at } => self.prefetch(*buf, at),
        }
    }
}

fn vector_type(context: &Context, ty: Type) -> BasicTypeEnum<'_> {
    let scalar: BasicTypeEnum<'_> = match ty.scalar {
        Scalar::F32 => context.f32_type().into(),
        Scalar::I32 => context.i32_type().into(),
        Scalar::Index => context.i64_type().into(),
        Scalar::Bool => context.bool_type().into(),
    };
    lanes_of(scalar, ty.lanes)
}

/// A scalar for one lane, a vector for more.
pub(crate) fn lanes_of(scalar: BasicTypeEnum<'_>, lanes: u32) -> BasicTypeEnum<'_> {
    match scalar {
        _ if lanes == 1 => scalar,
        BasicTypeEnum::FloatType(ty) => ty.vec_type(lanes).as_basic_type_enum(),
        BasicTypeEnum::IntType(ty) => ty.vec_type(lanes).as_basic_type_enum(),
        _ => unreachable!("registers hold floats and integers"),
    }
}
