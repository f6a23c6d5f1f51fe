//! Registers, locals and control flow.

use cranelift_codegen::ir::{
    AbiParam, Function, InstBuilder, MemFlagsData, Signature, StackSlotData, StackSlotKind, UserFuncName,
    Value, types,
};
use cranelift_codegen::isa::TargetIsa;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use rwkvc_backend_api::{Arch, LowerError};
use rwkvc_ir::kernel::eval::Machine;
use rwkvc_ir::kernel::{Inst, Kernel, Reg, Stmt};

use crate::kernel_error;
use crate::shape::{part_type, parts};

/// Emits a kernel as a function `(buffers, begin, end, tokens)`.
pub(crate) fn function(
    kernel: &Kernel,
    arch: Arch,
    isa: &dyn TargetIsa,
    scratch: &mut FunctionBuilderContext,
) -> Result<Function, LowerError> {
    if Machine::of(kernel) == Machine::Gpu {
        let reason = "`shuffle`, `mma`, or a barrier inside a thread loop needs the threads of a GPU block";
        return Err(kernel_error(kernel, reason.to_owned()));
    }
    let mut signature = Signature::new(isa.default_call_conv());
    signature.params = vec![AbiParam::new(types::I64); 4];
    let mut function = Function::with_name_signature(UserFuncName::testcase(&kernel.name), signature);
    let mut emitter = Emitter::new(kernel, arch, FunctionBuilder::new(&mut function, scratch))?;
    emitter.block(&kernel.body)?;
    emitter.b.ins().return_(&[]);
    emitter.b.finalize(isa.frontend_config());
    Ok(function)
}

/// Where the lanes of a register are.
#[derive(Clone)]
enum Held {
    /// Not computed yet.
    Nothing,
    /// Immutable: SSA values, one for each part.
    Values(Vec<Value>),
    /// Mutable: variables that Cranelift turns into SSA form.
    Variables(Vec<Variable>),
}

/// A function under construction.
pub(crate) struct Emitter<'a, 'f> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) arch: Arch,
    pub(crate) b: FunctionBuilder<'f>,
    /// The address of each buffer: parameters, then locals.
    pub(crate) bases: Vec<Value>,
    pub(crate) tokens: Value,
    pub(crate) begin: Value,
    pub(crate) end: Value,
    held: Vec<Held>,
    /// For each register: the depth of the innermost loop whose variable it is or is an address of; 0 if unknown.
    pub(crate) follows: Vec<u32>,
    /// Loops (in the machine code) around the current statement.
    pub(crate) loop_depth: u32,
    /// `loop_depth` outside of the innermost `if`, or loop that may not run, around the current statement.
    pub(crate) guard_depth: Option<u32>,
}

impl<'a, 'f> Emitter<'a, 'f> {
    fn new(kernel: &'a Kernel, arch: Arch, mut b: FunctionBuilder<'f>) -> Result<Self, LowerError> {
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        b.seal_block(entry);
        let [buffers, begin, end, tokens] = <[Value; 4]>::try_from(b.block_params(entry)).map_err(|_| {
            kernel_error(
                kernel,
                "Cranelift made an entry block without the four parameters".to_owned(),
            )
        })?;
        let bases = buffer_addresses(kernel, &mut b, buffers)?;
        let held = kernel
            .registers
            .iter()
            .map(|register| {
                if register.mutable {
                    let ty = part_type(register.ty);
                    Held::Variables((0..parts(register.ty)).map(|_| b.declare_var(ty)).collect())
                } else {
                    Held::Nothing
                }
            })
            .collect();
        let follows = vec![0; kernel.registers.len()];
        Ok(Self {
            kernel,
            arch,
            b,
            bases,
            tokens,
            begin,
            end,
            held,
            follows,
            loop_depth: 0,
            guard_depth: None,
        })
    }

    /// An error about this kernel.
    pub(crate) fn refuse(&self, reason: String) -> LowerError {
        kernel_error(self.kernel, reason)
    }

    /// The values of a register, one for each part.
    pub(crate) fn values(&mut self, reg: Reg) -> Result<Vec<Value>, LowerError> {
        match &self.held[reg.0 as usize] {
            Held::Values(values) => Ok(values.clone()),
            Held::Variables(variables) => Ok(variables.iter().map(|&v| self.b.use_var(v)).collect()),
            Held::Nothing => {
                let name = &self.kernel.registers[reg.0 as usize].name;
                Err(self.refuse(format!("register %{name} is used before it is computed")))
            }
        }
    }

    /// The value of a register of one lane.
    pub(crate) fn scalar(&mut self, reg: Reg) -> Result<Value, LowerError> {
        let values = self.values(reg)?;
        match values[..] {
            [value] => Ok(value),
            _ => {
                let register = &self.kernel.registers[reg.0 as usize];
                Err(self.refuse(format!(
                    "register %{} has {} lanes, expected 1",
                    register.name, register.ty.lanes
                )))
            }
        }
    }

    /// Gives a register its value.
    pub(crate) fn assign(&mut self, reg: Reg, values: Vec<Value>) {
        if let Held::Variables(variables) = &self.held[reg.0 as usize] {
            for (&variable, value) in variables.iter().zip(values) {
                self.b.def_var(variable, value);
            }
        } else {
            self.held[reg.0 as usize] = Held::Values(values);
        }
    }

    /// The depth of the innermost loop that a position surely moves with; 0 if unknown.
    pub(crate) fn follows(&self, terms: &[(Reg, i64)]) -> u32 {
        terms
            .iter()
            .filter(|(_, factor)| *factor != 0)
            .map(|(reg, _)| self.follows[reg.0 as usize])
            .max()
            .unwrap_or(0)
    }

    /// Whether Cranelift may move a load out of loops that it does not vary in.
    ///
    /// Cranelift moves it to where the outermost of these loops is entered, past any `if` and past the tests of loops
    /// between. There, the position may lie outside of the buffer. It cannot be moved so far when a loop inside of the
    /// innermost of these guards changes the position.
    pub(crate) fn may_leave_loops(&self, terms: &[(Reg, i64)]) -> bool {
        self.guard_depth.is_none_or(|depth| self.follows(terms) > depth)
    }

    /// Emits statements in order.
    pub(crate) fn block(&mut self, statements: &[Stmt]) -> Result<(), LowerError> {
        statements
            .iter()
            .try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt) -> Result<(), LowerError> {
        match statement {
            Stmt::Let(reg, inst) => {
                let values = self.compute(*reg, inst)?;
                self.follows[reg.0 as usize] = self.follows_of(*reg, inst);
                self.assign(*reg, values);
                Ok(())
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
            // Thread loops are plain loops, which end before a barrier. Cranelift has no prefetch instruction.
            Stmt::Barrier | Stmt::Prefetch { .. } => Ok(()),
        }
    }

    fn follows_of(&self, reg: Reg, inst: &Inst) -> u32 {
        match inst {
            _ if self.kernel.registers[reg.0 as usize].mutable => 0,
            Inst::Address(at) => self.follows(&at.terms),
            Inst::Copy(from) => self.follows[from.0 as usize],
            _ => 0,
        }
    }
}

/// The addresses of the parameters, which the caller passes in an array, and of the locals.
fn buffer_addresses(
    kernel: &Kernel,
    b: &mut FunctionBuilder<'_>,
    buffers: Value,
) -> Result<Vec<Value>, LowerError> {
    let flags = MemFlagsData::trusted().with_readonly().with_can_move();
    let mut bases = Vec::with_capacity(kernel.params.len() + kernel.locals.len());
    for index in 0..kernel.params.len() {
        let offset =
            i32::try_from(8 * index).map_err(|_| kernel_error(kernel, "too many parameters".to_owned()))?;
        bases.push(b.ins().load(types::I64, flags, buffers, offset));
    }
    for local in &kernel.locals {
        // The verifier bounds the bytes of all locals far below what this takes.
        let size = u32::try_from(local.len * local.dtype.size() as i64)
            .map_err(|_| kernel_error(kernel, format!("local %{} is too large", local.name)))?;
        let slot = b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, size.max(1), 4));
        bases.push(b.ins().stack_addr(types::I64, slot, 0));
    }
    Ok(bases)
}
