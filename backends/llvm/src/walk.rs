//! The kernel that walks a table of launches: a whole step as one launch of blocks that stay.
//!
//! ```text
//! for each row of the table:
//!   for each of its blocks that is this one's:  run the kernel that the row names
//!   say that this block is through, ask for what comes next, wait for all others
//! ```
//!
//! It has the kernels whose buffers and grids do not depend on the number of tokens: those of a step of one token. They are
//! emitted once more, as parts of this function: what one of them only reads may be what another one wrote, so it must
//! not be kept in caches of constants.

use inkwell::IntPredicate;
use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::builder::Builder;
use inkwell::context::Context;
use inkwell::llvm_sys::core::{LLVMGetSyncScopeID, LLVMSetAtomicSyncScopeID};
use inkwell::module::{Linkage, Module};
use inkwell::types::BasicMetadataTypeEnum;
use inkwell::values::{
    AsValueRef, BasicMetadataValueEnum, BasicValue, FunctionValue, InstructionValue, IntValue, PointerValue,
};
use inkwell::{AtomicOrdering, AtomicRMWBinOp};
use rwkvc_abi::kernel::{GPU_ALIGN, WALK, WalkRow};
use rwkvc_backend_api::GpuFeatures;
use rwkvc_ir::Verified;
use rwkvc_ir::kernel::{Kernel, Local};

use crate::emitter::{self, Fault, Start};
use crate::form::Form;
use crate::gpu::{self, Block};
use crate::instruction::value_of;
use crate::machine::Machine;

/// Bytes of memory that are cached together.
const LINE: u64 = 128;

/// Adds the walker to a module, if any kernel can be part of it. Rows name kernels by their place in `kernels`.
pub(crate) fn emit<'c>(
    kernels: &[Verified<Kernel>],
    context: &'c Context,
    module: &Module<'c>,
    machine: &Machine,
) -> Result<(), Fault> {
    let mut parts = vec![];
    for (kernel, number) in kernels.iter().zip(0_u64..) {
        if gpu::is_fixed(kernel) && gpu::threads(kernel)? == GpuFeatures::PORTABLE.threads {
            parts.push((number, kernel));
        }
    }
    if parts.is_empty() {
        return Ok(());
    }
    // Parts run one after the other, so they share one memory.
    let bytes = parts
        .iter()
        .map(|(_, kernel)| gpu::shared_bytes(kernel).max(1))
        .max();
    let ty = context.i8_type().array_type(bytes.unwrap_or(0) as u32);
    let shared = gpu::shared_array(&format!("{WALK}.shared"), ty, module);
    let mut functions = vec![];
    for (number, kernel) in parts {
        let start = part(kernel, shared, context, module, machine)?;
        functions.push((number, start.function));
        emitter::finish(kernel, context, module, start)?;
    }
    let most = kernels.iter().map(|k| k.params.len()).max().unwrap_or(0) as u64;
    Walker::new(WalkRow::WORDS as u64 + most, context, module, machine).emit(&functions)
}

/// Starts `(buffers…, tokens, block)`: what one block does for a kernel.
fn part<'c>(
    kernel: &Kernel,
    shared: PointerValue<'c>,
    context: &'c Context,
    module: &Module<'c>,
    machine: &Machine,
) -> Result<Start<'c>, Fault> {
    let index = context.i64_type();
    let mut types: Vec<BasicMetadataTypeEnum<'_>> = vec![];
    types.resize(kernel.params.len(), context.ptr_type(gpu::global_memory()).into());
    types.extend([BasicMetadataTypeEnum::from(index); 2]);
    let ty = context.void_type().fn_type(&types, false);
    let function = module.add_function(&format!("{WALK}.{}", kernel.name), ty, Some(Linkage::Internal));
    machine.mark(context, function);
    let attribute =
        |name, value| context.create_enum_attribute(Attribute::get_named_enum_kind_id(name), value);
    function.add_attribute(AttributeLoc::Function, attribute("alwaysinline", 0));
    for i in 0..kernel.params.len() as u32 {
        for (name, value) in [("noalias", 0), ("align", GPU_ALIGN)] {
            function.add_attribute(AttributeLoc::Param(i), attribute(name, value));
        }
    }
    let b = context.create_builder();
    b.position_at_end(context.append_basic_block(function, "entry"));
    let (bases, tokens) = gpu::arguments(kernel, function)?;
    let number = function.get_last_param().map(|number| number.into_int_value());
    let number = number.ok_or_else(|| Fault("LLVM made a function without its parameters".to_owned()))?;
    let thread = gpu::special(context, module, &b, "tid.x")?;
    let block = Block {
        number: anew(number, context, &b)?,
        thread: anew(thread, context, &b)?,
    };
    let mut used = 0;
    let place = |local: &Local| {
        let at = [index.const_int(used as u64, false)];
        used += gpu::bytes_of(local);
        // SAFETY: an address of one type and one index is what LLVM expects.
        Ok(unsafe { b.build_gep(context.i8_type(), shared, &at, &local.name)? })
    };
    Ok(Start {
        places: gpu::places(kernel, bases, false, context, &b, place)?,
        function,
        b,
        tokens,
        form: Form::Gpu(block),
    })
}

/// The same number, but what is computed of it is computed here: LLVM would else do so for all parts before the loop over
/// launches, and registers would run out.
fn anew<'c>(number: IntValue<'c>, context: &'c Context, b: &Builder<'c>) -> Result<IntValue<'c>, Fault> {
    let int = context.i32_type();
    let ty = int.fn_type(&[int.into()], false);
    let asm = context.create_inline_asm(ty, String::new(), "=r,0".to_owned(), true, false, None, false);
    let number = b.build_int_truncate(number, int, "")?;
    let call = b.build_indirect_call(ty, asm, &[number.into()], "")?;
    let number = value_of(call)?.into_int_value();
    Ok(b.build_int_z_extend(number, context.i64_type(), "")?)
}

/// The function under construction.
struct Walker<'m, 'c> {
    /// Words of a row of the table.
    words: u64,
    context: &'c Context,
    module: &'m Module<'c>,
    b: Builder<'c>,
    function: FunctionValue<'c>,
}

impl<'m, 'c> Walker<'m, 'c> {
    fn new(words: u64, context: &'c Context, module: &'m Module<'c>, machine: &Machine) -> Self {
        let (pointer, index) = (context.ptr_type(gpu::global_memory()), context.i64_type());
        let types = [pointer.into(), index.into(), pointer.into(), index.into()];
        let function = gpu::entry(
            WALK,
            &types,
            GpuFeatures::PORTABLE.threads,
            context,
            module,
            machine,
        );
        gpu::must_fit(function, gpu::BLOCKS[0], context);
        let b = context.create_builder();
        b.position_at_end(context.append_basic_block(function, "entry"));
        Walker {
            words,
            context,
            module,
            b,
            function,
        }
    }

    fn index(&self, value: u64) -> IntValue<'c> {
        self.context.i64_type().const_int(value, false)
    }

    fn emit(self, parts: &[(u64, FunctionValue<'c>)]) -> Result<(), Fault> {
        let params = self.function.get_params();
        let [table, launches, counter, tokens] = params.as_slice() else {
            return Err(Fault("LLVM made a function without its parameters".to_owned()));
        };
        let (table, counter) = (table.into_pointer_value(), counter.into_pointer_value());
        let (launches, tokens) = (launches.into_int_value(), tokens.into_int_value());
        let special = |name| gpu::special(self.context, self.module, &self.b, name);
        let [thread, block, blocks] = [special("tid.x")?, special("ctaid.x")?, special("nctaid.x")?];
        self.count("launch", self.index(0), launches, self.index(1), |launch| {
            let row = self.b.build_int_mul(launch, self.index(self.words), "")?;
            let row = self.word(table, row)?;
            self.run_blocks(row, parts, tokens, (block, blocks))?;
            let next = self.b.build_int_add(launch, self.index(1), "next")?;
            let goes_on = self.b.build_int_compare(IntPredicate::ULT, next, launches, "")?;
            self.when(goes_on, || {
                let is_first = self
                    .b
                    .build_int_compare(IntPredicate::EQ, thread, self.index(0), "")?;
                self.when(is_first, || self.arrive(counter))?;
                self.prefetch(row, thread, (block, blocks))?;
                let all = self.b.build_int_mul(next, blocks, "all")?;
                self.when(is_first, || self.wait_for(counter, all))?;
                self.barrier()
            })
        })?;
        self.b.build_return(None)?;
        Ok(())
    }

    /// Runs those blocks of a row's launch that are this block's.
    fn run_blocks(
        &self,
        row: PointerValue<'c>,
        parts: &[(u64, FunctionValue<'c>)],
        tokens: IntValue<'c>,
        (block, blocks): (IntValue<'c>, IntValue<'c>),
    ) -> Result<(), Fault> {
        let kernel = self.load(row, 0, "kernel")?;
        let grid = self.load(row, 1, "grid")?;
        self.count("block", block, grid, blocks, |block| {
            let done = self.context.append_basic_block(self.function, "done");
            let mut cases = vec![];
            for (number, _) in parts {
                let case = self.context.append_basic_block(self.function, "kernel");
                cases.push((self.index(*number), case));
            }
            self.b.build_switch(kernel, done, &cases)?;
            for ((_, part), (_, case)) in parts.iter().zip(&cases) {
                self.b.position_at_end(*case);
                let mut arguments: Vec<BasicMetadataValueEnum<'_>> = vec![];
                for i in 0..u64::from(part.count_params() - 2) {
                    let address = self.load(row, WalkRow::WORDS as u64 + i, "")?;
                    let pointer = self.context.ptr_type(gpu::global_memory());
                    arguments.push(self.b.build_int_to_ptr(address, pointer, "")?.into());
                }
                arguments.push(tokens.into());
                arguments.push(block.into());
                self.b.build_call(*part, &arguments, "")?;
                self.b.build_unconditional_branch(done)?;
            }
            self.b.position_at_end(done);
            // Nothing is ahead: what follows may use the shared memory, or say that the block is through.
            self.barrier()
        })
    }

    /// Says that this block is through, and what it wrote can be seen.
    fn arrive(&self, counter: PointerValue<'c>) -> Result<(), Fault> {
        let fence = self.b.build_fence(AtomicOrdering::AcquireRelease, false, "")?;
        self.for_device(Some(fence))?;
        let one = self.context.i32_type().const_int(1, false);
        // LLVM writes no ordering into this instruction of PTX, so the fence before it has it.
        let add = self
            .b
            .build_atomicrmw(AtomicRMWBinOp::Add, counter, one, AtomicOrdering::Monotonic)?;
        self.for_device(add.as_instruction_value())
    }

    /// Waits until `all` blocks have said so.
    fn wait_for(&self, counter: PointerValue<'c>, all: IntValue<'c>) -> Result<(), Fault> {
        let [again, done] =
            ["again", "done"].map(|name| self.context.append_basic_block(self.function, name));
        self.b.build_unconditional_branch(again)?;
        self.b.position_at_end(again);
        let int = self.context.i32_type();
        let load = self.b.build_load(int, counter, "arrived")?;
        if let Some(load) = load.as_instruction_value() {
            load.set_atomic_ordering(AtomicOrdering::Acquire)
                .map_err(|e| Fault(format!("LLVM cannot order a load: {e}")))?;
            load.set_alignment(4)?;
            self.for_device(Some(load))?;
        }
        let all = self.b.build_int_truncate(all, int, "")?;
        let waits = self
            .b
            .build_int_compare(IntPredicate::ULT, load.into_int_value(), all, "")?;
        self.b.build_conditional_branch(waits, again, done)?;
        self.b.position_at_end(done);
        Ok(())
    }

    /// An ordering among the threads of the device, not of the whole system.
    fn for_device(&self, instruction: Option<InstructionValue<'c>>) -> Result<(), Fault> {
        const SCOPE: &str = "device";
        let instruction =
            instruction.ok_or_else(|| Fault("LLVM has made no instruction of an atomic one".to_owned()))?;
        // SAFETY: the name is as long as is said, and the instruction is an atomic one of this context.
        unsafe {
            let scope = LLVMGetSyncScopeID(self.context.raw(), SCOPE.as_ptr().cast(), SCOPE.len());
            LLVMSetAtomicSyncScopeID(instruction.as_value_ref(), scope);
        }
        Ok(())
    }

    /// Asks for this block's part of what comes next, a line a thread.
    fn prefetch(
        &self,
        row: PointerValue<'c>,
        thread: IntValue<'c>,
        (block, blocks): (IntValue<'c>, IntValue<'c>),
    ) -> Result<(), Fault> {
        let start = self.load(row, 2, "start")?;
        let bytes = self.load(row, 3, "bytes")?;
        let [all, line] = [
            self.index(u64::from(GpuFeatures::PORTABLE.threads)),
            self.index(LINE),
        ];
        let first = self.b.build_int_mul(block, all, "")?;
        let first = self
            .b
            .build_int_mul(self.b.build_int_add(first, thread, "")?, line, "")?;
        let step = self
            .b
            .build_int_mul(self.b.build_int_mul(blocks, all, "")?, line, "")?;
        self.count("line", first, bytes, step, |at| {
            let place = self.b.build_int_add(start, at, "")?;
            let pointer = self.context.ptr_type(gpu::global_memory());
            let place = self.b.build_int_to_ptr(place, pointer, "")?;
            gpu::prefetch(self.context, &self.b, place)
        })
    }

    fn barrier(&self) -> Result<(), Fault> {
        gpu::barrier(self.context, self.module, &self.b)
    }

    /// A word of the table.
    fn word(&self, from: PointerValue<'c>, at: IntValue<'c>) -> Result<PointerValue<'c>, Fault> {
        // SAFETY: an address of one type and one index is what LLVM expects.
        Ok(unsafe { self.b.build_gep(self.context.i64_type(), from, &[at], "")? })
    }

    fn load(&self, row: PointerValue<'c>, word: u64, name: &str) -> Result<IntValue<'c>, Fault> {
        let place = self.word(row, self.index(word))?;
        let value = self.b.build_load(self.context.i64_type(), place, name)?;
        Ok(value.into_int_value())
    }

    /// Runs `body` where a condition holds.
    fn when(&self, condition: IntValue<'c>, body: impl FnOnce() -> Result<(), Fault>) -> Result<(), Fault> {
        let [then, join] = ["then", "join"].map(|name| self.context.append_basic_block(self.function, name));
        self.b.build_conditional_branch(condition, then, join)?;
        self.b.position_at_end(then);
        body()?;
        self.b.build_unconditional_branch(join)?;
        self.b.position_at_end(join);
        Ok(())
    }

    /// Runs `body` for `start`, `start + step`, … before `end`.
    fn count(
        &self,
        name: &str,
        start: IntValue<'c>,
        end: IntValue<'c>,
        step: IntValue<'c>,
        body: impl FnOnce(IntValue<'c>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let [head, inside, exit] =
            ["head", "inside", "exit"].map(|part| self.context.append_basic_block(self.function, part));
        let missing = || Fault("LLVM has no current block".to_owned());
        let before = self.b.get_insert_block().ok_or_else(missing)?;
        self.b.build_unconditional_branch(head)?;
        self.b.position_at_end(head);
        let counter = self.b.build_phi(self.context.i64_type(), name)?;
        let value = counter.as_basic_value().into_int_value();
        let goes_on = self.b.build_int_compare(IntPredicate::ULT, value, end, "")?;
        self.b.build_conditional_branch(goes_on, inside, exit)?;
        self.b.position_at_end(inside);
        body(value)?;
        let next = self.b.build_int_add(value, step, "")?;
        let last = self.b.get_insert_block().ok_or_else(missing)?;
        self.b.build_unconditional_branch(head)?;
        counter.add_incoming(&[(&start, before), (&next, last)]);
        self.b.position_at_end(exit);
        Ok(())
    }
}
