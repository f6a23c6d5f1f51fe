//! Functions for GPUs: one block of threads each time, `(buffers…, tokens)`, with shared locals.

use inkwell::AddressSpace;
use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::builder::Builder;
use inkwell::context::Context;
use inkwell::module::{Linkage, Module};
use inkwell::types::{ArrayType, BasicMetadataTypeEnum, BasicType};
use inkwell::values::{BasicValueEnum, FunctionValue, InstructionOpcode, IntValue, PointerValue};
use rwkvc_abi::GPU_ALIGN;
use rwkvc_backend_api::GpuFeatures;
use rwkvc_ir::DType;
use rwkvc_ir::kernel::verify::MAX_THREADS;
use rwkvc_ir::kernel::{Access, Bound, Extent, Kernel, Local, LoopKind, Reg, Space, Stmt};

use crate::cpu;
use crate::emitter::{Emitter, Fault, Start};
use crate::form::Form;
use crate::instruction::{intrinsic, value_of};
use crate::machine::Machine;
use crate::memory::{Place, storage_type};

/// [`GPU_ALIGN`], as LLVM takes it.
const ALIGN: u32 = GPU_ALIGN as u32;

/// LLVM's number for the calling convention of PTX entries.
const PTX_KERNEL: u32 = 71;

/// Blocks that must fit a multiprocessor, for one token and for many: as many as have enough loads in flight together. An
/// assembler that is told nothing takes as few registers as it can, and waits for a load before it starts the next.
pub(crate) const BLOCKS: [u32; 2] = [3, 2];

/// All shared memory, in bytes, that a block has without asking for more. One that takes it for many tokens multiplies wide tiles,
/// with all registers that a thread can have: it is meant to be alone on its multiprocessor.
const ALL_SHARED: i64 = 48 << 10;

/// All threads of a warp.
const WARP: u64 = 0xffff_ffff;

/// LLVM's numbers for kinds of memory.
pub(crate) fn global_memory() -> AddressSpace {
    AddressSpace::from(1_u16)
}

fn shared_memory() -> AddressSpace {
    AddressSpace::from(3_u16)
}

/// Which block of the launch runs, and which thread of it.
#[derive(Clone, Copy)]
pub(crate) struct Block<'c> {
    pub(crate) number: IntValue<'c>,
    pub(crate) thread: IntValue<'c>,
}

/// The threads of each block.
///
/// # Errors
/// If the parallel loop is more than index arithmetic and one thread loop from 0 in steps of 1.
pub(crate) fn threads(kernel: &Kernel) -> Result<u32, Fault> {
    let loops = |body: &[Stmt], kind| -> Vec<(Bound, Bound, i64)> {
        let ranges = body.iter().filter_map(|statement| match statement {
            Stmt::For {
                kind: found,
                start,
                end,
                step,
                ..
            } if *found == kind => Some((*start, *end, *step)),
            _ => None,
        });
        ranges.collect()
    };
    let parallel = kernel.body.iter().find_map(|statement| match statement {
        Stmt::For {
            kind: LoopKind::Parallel,
            body,
            ..
        } => Some(body.as_slice()),
        _ => None,
    });
    let body = parallel.unwrap_or_default();
    let found = loops(body, LoopKind::Thread);
    let beside = body.iter().filter(|s| !matches!(s, Stmt::Let(..))).count();
    let (&[(start, end, step)], 1) = (found.as_slice(), beside) else {
        return Err(Fault(format!(
            "the parallel loop has {} thread loops and {} other statements beside index arithmetic, expected one thread \
             loop and nothing else",
            found.len(),
            beside - found.len()
        )));
    };
    let extent = match end {
        Bound::Extent(extent) if start == Bound::Extent(Extent::fixed(0)) && step == 1 => extent.as_fixed(),
        _ => None,
    };
    match extent {
        Some(threads @ 1..=MAX_THREADS) => Ok(threads as u32),
        _ => Err(Fault(format!(
            "the thread loop must run from 0 in steps of 1, for 1 to {MAX_THREADS} threads"
        ))),
    }
}

/// Bytes that the locals of a kernel take of the memory that a block shares.
pub(crate) fn shared_bytes(kernel: &Kernel) -> i64 {
    let shared = kernel.locals.iter().filter(|l| l.space == Space::Shared);
    shared.map(bytes_of).sum()
}

/// Bytes that a local takes.
pub(crate) fn bytes_of(local: &Local) -> i64 {
    let align = GPU_ALIGN as i64;
    (local.len * local.dtype.size() as i64 + align - 1) / align * align
}

/// Starts the entry of a kernel.
pub(crate) fn start<'c>(
    kernel: &Kernel,
    context: &'c Context,
    module: &Module<'c>,
    machine: &Machine,
) -> Result<Start<'c>, Fault> {
    let index = context.i64_type();
    let mut types: Vec<BasicMetadataTypeEnum<'_>> = vec![];
    types.resize(kernel.params.len(), context.ptr_type(global_memory()).into());
    types.push(index.into());
    let threads = threads(kernel)?;
    let function = entry(&kernel.name, &types, threads, context, module, machine);
    if threads == GpuFeatures::PORTABLE.threads {
        must_fit(function, blocks_that_must_fit(kernel), context);
    }
    for (param, i) in kernel.params.iter().zip(0..) {
        let mut attributes = vec![("noalias", 0), ("align", GPU_ALIGN)];
        if param.access == Access::Read {
            attributes.push(("readonly", 0));
        }
        for (name, value) in attributes {
            let kind = Attribute::get_named_enum_kind_id(name);
            function.add_attribute(AttributeLoc::Param(i), context.create_enum_attribute(kind, value));
        }
    }
    let b = context.create_builder();
    b.position_at_end(context.append_basic_block(function, "entry"));
    let (bases, tokens) = arguments(kernel, function)?;
    let block = Block {
        number: special(context, module, &b, "ctaid.x")?,
        thread: special(context, module, &b, "tid.x")?,
    };
    let shared = |local: &Local| shared(&kernel.name, local, context, module);
    Ok(Start {
        places: places(kernel, bases, true, context, &b, shared)?,
        function,
        b,
        tokens,
        form: Form::Gpu(block),
    })
}

/// The parameters, then the locals. `lasting` says whether what is only read stays as it is while the function runs.
pub(crate) fn places<'c>(
    kernel: &Kernel,
    bases: Vec<PointerValue<'c>>,
    lasting: bool,
    context: &'c Context,
    b: &Builder<'c>,
    mut shared: impl FnMut(&Local) -> Result<PointerValue<'c>, Fault>,
) -> Result<Vec<Place<'c>>, Fault> {
    let mut places: Vec<Place<'c>> = bases
        .into_iter()
        .zip(&kernel.params)
        .map(|(base, param)| Place {
            base,
            align: ALIGN,
            constant: lasting && param.access == Access::Read,
        })
        .collect();
    for local in &kernel.locals {
        let base = match local.space {
            Space::Private => cpu::local(local, context, b, ALIGN)?,
            Space::Shared => shared(local)?,
        };
        places.push(Place {
            base,
            align: ALIGN,
            constant: false,
        });
    }
    Ok(places)
}

/// A function that the driver can launch.
pub(crate) fn entry<'c>(
    name: &str,
    parameters: &[BasicMetadataTypeEnum<'c>],
    threads: u32,
    context: &'c Context,
    module: &Module<'c>,
    machine: &Machine,
) -> FunctionValue<'c> {
    let function = module.add_function(name, context.void_type().fn_type(parameters, false), None);
    function.set_call_conventions(PTX_KERNEL);
    machine.mark(context, function);
    let size = context.create_string_attribute("nvvm.reqntid", &format!("{threads},1,1"));
    function.add_attribute(AttributeLoc::Function, size);
    function
}

/// How many blocks of a kernel must fit a multiprocessor.
fn blocks_that_must_fit(kernel: &Kernel) -> u32 {
    let [one, many] = BLOCKS;
    if is_fixed(kernel) {
        one
    } else if shared_bytes(kernel) < ALL_SHARED {
        many
    } else {
        1
    }
}

/// Says how many blocks of a function must fit a multiprocessor.
pub(crate) fn must_fit(function: FunctionValue<'_>, blocks: u32, context: &Context) {
    let blocks = context.create_string_attribute("nvvm.minctasm", &blocks.to_string());
    function.add_attribute(AttributeLoc::Function, blocks);
}

/// Whether neither grid nor buffers depend on the number of tokens: so it is in a step of one token.
pub(crate) fn is_fixed(kernel: &Kernel) -> bool {
    let buffers = kernel.params.iter().map(|p| p.len);
    buffers.chain([kernel.grid]).all(|e| e.as_fixed().is_some())
}

/// The addresses of the parameters and the number of tokens, named.
pub(crate) fn arguments<'c>(
    kernel: &Kernel,
    function: FunctionValue<'c>,
) -> Result<(Vec<PointerValue<'c>>, IntValue<'c>), Fault> {
    let values = function.get_params();
    let names = kernel.params.iter().map(|p| p.name.as_str()).chain(["tokens"]);
    for (value, name) in values.iter().zip(names) {
        value.set_name(name);
    }
    let mut bases = vec![];
    for value in &values {
        match *value {
            BasicValueEnum::PointerValue(base) => bases.push(base),
            BasicValueEnum::IntValue(tokens) => return Ok((bases, tokens)),
            _ => break,
        }
    }
    Err(Fault("LLVM made a function without its parameters".to_owned()))
}

/// Memory that all threads of a block see.
fn shared<'c>(
    kernel: &str,
    local: &Local,
    context: &'c Context,
    module: &Module<'c>,
) -> Result<PointerValue<'c>, Fault> {
    let len = u32::try_from(local.len).map_err(|_| too_long(local))?;
    let ty = storage_type(context, local.dtype).array_type(len);
    // A dot is in no name of a kernel.
    Ok(shared_array(&format!("{kernel}.{}", local.name), ty, module))
}

pub(crate) fn too_long(local: &Local) -> Fault {
    let Local { name, len, .. } = local;
    Fault(format!(
        "local @{name} has {len} elements, more than a block can share"
    ))
}

/// An array that all threads of a block see.
pub(crate) fn shared_array<'c>(name: &str, ty: ArrayType<'c>, module: &Module<'c>) -> PointerValue<'c> {
    let global = module.add_global(ty, Some(shared_memory()), name);
    global.set_linkage(Linkage::Internal);
    global.set_initializer(&ty.get_undef());
    global.set_alignment(ALIGN);
    global.as_pointer_value()
}

/// A register that only GPUs have, as an index.
pub(crate) fn special<'c>(
    context: &'c Context,
    module: &Module<'c>,
    b: &Builder<'c>,
    name: &str,
) -> Result<IntValue<'c>, Fault> {
    let function = intrinsic(module, &format!("llvm.nvvm.read.ptx.sreg.{name}"), &[])?;
    let value = value_of(b.build_call(function, &[], "")?)?.into_int_value();
    Ok(b.build_int_z_extend(value, context.i64_type(), name)?)
}

/// Asks for the line of the cache of all multiprocessors that a place in global memory is in.
pub(crate) fn prefetch<'c>(
    context: &'c Context,
    b: &Builder<'c>,
    place: PointerValue<'c>,
) -> Result<(), Fault> {
    // LLVM has an intrinsic function for this, but only for sm_90 and later.
    let ty = context.void_type().fn_type(&[place.get_type().into()], false);
    let (text, operands) = ("prefetch.global.L2 [$0];".to_owned(), "l".to_owned());
    let asm = context.create_inline_asm(ty, text, operands, true, false, None, false);
    b.build_indirect_call(ty, asm, &[place.into()], "")?;
    Ok(())
}

/// Waits for all threads of the block.
pub(crate) fn barrier<'c>(context: &'c Context, module: &Module<'c>, b: &Builder<'c>) -> Result<(), Fault> {
    let function = intrinsic(module, "llvm.nvvm.barrier.cta.sync.aligned.all", &[])?;
    let first = context.i32_type().const_zero();
    b.build_call(function, &[first.into()], "")?;
    Ok(())
}

/// What the thread of the same warp has whose number differs by `mask`.
pub(crate) fn shuffle<'c>(
    emitter: &Emitter<'_, '_, 'c>,
    from: Reg,
    mask: u32,
) -> Result<BasicValueEnum<'c>, Fault> {
    /// Lanes are counted in the whole warp.
    const ALL_LANES: u64 = 31;
    let int = |n| emitter.context.i32_type().const_int(n, false);
    by_lane(
        emitter,
        emitter.value(from)?,
        emitter.kernel.ty(from).lanes,
        |x| {
            let name = match x {
                BasicValueEnum::FloatValue(_) => "llvm.nvvm.shfl.sync.bfly.f32",
                _ => "llvm.nvvm.shfl.sync.bfly.i32",
            };
            let function = intrinsic(emitter.module, name, &[])?;
            let arguments = [
                int(WARP).into(),
                x.into(),
                int(u64::from(mask)).into(),
                int(ALL_LANES).into(),
            ];
            value_of(emitter.b.build_call(function, &arguments, "")?)
        },
    )
}

/// The product of matrices of a warp, from this thread's fragments of A, B and C.
pub(crate) fn mma<'c>(
    emitter: &Emitter<'_, '_, 'c>,
    format: DType,
    [a, b, c]: [Reg; 3],
) -> Result<BasicValueEnum<'c>, Fault> {
    let (name, is_half) = match format {
        DType::BF16 => ("llvm.nvvm.mma.m16n8k16.row.col.bf16", false),
        DType::F16 => ("llvm.nvvm.mma.m16n8k16.row.col.f32.f32", true),
        DType::F32 | DType::I32 | DType::I8 => {
            return Err(Fault(format!("`mma` of {format} does not exist")));
        }
    };
    let pair = emitter.context.f16_type().vec_type(2);
    let mut arguments = vec![];
    for (fragment, lanes) in [(a, 4), (b, 2), (c, 4)] {
        let fragment = emitter.value(fragment)?;
        for lane in 0..lanes {
            let word = emitter.lane(fragment, lane)?;
            let word = match word {
                BasicValueEnum::IntValue(_) if is_half => {
                    emitter.cast(InstructionOpcode::BitCast, word, pair.into())?
                }
                word => word,
            };
            arguments.push(word.into());
        }
    }
    let function = intrinsic(emitter.module, name, &[])?;
    let BasicValueEnum::StructValue(product) = value_of(emitter.b.build_call(function, &arguments, "")?)?
    else {
        return Err(Fault(format!("LLVM's `{name}` gives no struct")));
    };
    let mut result = emitter.context.f32_type().vec_type(4).get_poison();
    for i in 0..4 {
        let lane = emitter.context.i32_type().const_int(u64::from(i), false);
        let value = emitter.b.build_extract_value(product, i, "")?;
        result = emitter.b.build_insert_element(result, value, lane, "")?;
    }
    Ok(result.into())
}

/// The native `2^x`.
pub(crate) fn exp2<'c>(
    emitter: &Emitter<'_, '_, 'c>,
    x: BasicValueEnum<'c>,
    lanes: u32,
) -> Result<BasicValueEnum<'c>, Fault> {
    let float = emitter.context.f32_type().as_basic_type_enum();
    let function = intrinsic(emitter.module, "llvm.nvvm.ex2.approx", &[float])?;
    by_lane(emitter, x, lanes, |x| {
        value_of(emitter.b.build_call(function, &[x.into()], "")?)
    })
}

/// What a function of scalars makes of each lane.
fn by_lane<'c>(
    emitter: &Emitter<'_, '_, 'c>,
    x: BasicValueEnum<'c>,
    lanes: u32,
    f: impl Fn(BasicValueEnum<'c>) -> Result<BasicValueEnum<'c>, Fault>,
) -> Result<BasicValueEnum<'c>, Fault> {
    let BasicValueEnum::VectorValue(x) = x else {
        return f(x);
    };
    let mut result = x.get_type().get_poison();
    for lane in 0..lanes {
        let lane = emitter.context.i32_type().const_int(u64::from(lane), false);
        let value = f(emitter.b.build_extract_element(x, lane, "")?)?;
        result = emitter.b.build_insert_element(result, value, lane, "")?;
    }
    Ok(result.into())
}
