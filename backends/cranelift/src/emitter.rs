//! Registers, locals and control flow.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, Function, InstBuilder, MemFlagsData, Signature, StackSlotData, StackSlotKind, UserFuncName,
    Value, types,
};
use cranelift_codegen::isa::TargetIsa;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use rwkvc_backend_api::{Arch, LowerError};
use rwkvc_ir::kernel::eval::Machine;
use rwkvc_ir::kernel::verify::MAX_LOCAL_BYTES;
use rwkvc_ir::kernel::{Bound, Extent, Inst, Kernel, LoopKind, Reg, Stmt};

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
        let reason = "a shuffle, or a barrier inside a thread loop, needs the threads of a GPU block";
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
    begin: Value,
    end: Value,
    held: Vec<Held>,
    /// For each register: the depth of the innermost loop whose variable it is or is an address of; 0 if unknown.
    follows: Vec<u32>,
    /// Loops (in the machine code) around the current statement.
    loop_depth: u32,
    /// `loop_depth` outside of the innermost `if`, or loop that may not run, around the current statement.
    guard_depth: Option<u32>,
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

    fn assign(&mut self, reg: Reg, values: Vec<Value>) {
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
    fn block(&mut self, statements: &[Stmt]) -> Result<(), LowerError> {
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

    fn branch(&mut self, condition: Reg, then: &[Stmt], otherwise: &[Stmt]) -> Result<(), LowerError> {
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

    fn repeat(
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
    let mut total = 0i64;
    for local in &kernel.locals {
        let size = local.len.saturating_mul(local.dtype.size() as i64);
        total = total.saturating_add(size);
        let size = u32::try_from(size)
            .ok()
            .filter(|_| total <= MAX_LOCAL_BYTES)
            .ok_or_else(|| {
                kernel_error(
                    kernel,
                    format!(
                        "locals up to %{} take {total} bytes, the stack holds {MAX_LOCAL_BYTES}",
                        local.name
                    ),
                )
            })?;
        let slot = b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, size.max(1), 4));
        bases.push(b.ins().stack_addr(types::I64, slot, 0));
    }
    Ok(bases)
}
