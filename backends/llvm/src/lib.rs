//! Kernels to machine code through LLVM: the backend for the fastest code.
//!
//! ```text
//! Kernel ── emitter, control (loops) ─┬─ instruction (arithmetic) ──► LLVM IR ── passes ──► ELF object
//!                                     ├─ memory, formats (loads, stores, number formats)
//!                                     └─ cpu (what a GPU would do otherwise)
//! ```
//!
//! Kernels are compiled one by one, in parallel, and their objects merged.
//!
//! A register of `n` lanes is an LLVM vector of `n` elements, however wide the registers of the machine are. Vectors and
//! tiles are explicit, so few of LLVM's passes run; it schedules, allocates registers and moves code out of loops.
//!
//! **Invariant:** results are bit-identical to the Kernel evaluator (payloads of NaNs aside): no fast-math flags, and
//! [`Inst::Fma`](rwkvc_ir::kernel::Inst::Fma) is always one instruction.
//! **Invariant:** the object has no undefined symbols, and no sections but code and constants.

mod control;
mod cpu;
mod divisibility;
mod dot;
mod emitter;
mod form;
mod formats;
mod gpu;
mod instruction;
mod machine;
mod memory;
mod merge;
mod parallel;
mod sums;
mod walk;

use std::collections::HashSet;
use std::slice;

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::targets::FileType;
use rwkvc_backend_api::{Arch, Backend, CpuFeatures, Features, GPU, Listing, LowerError, Target};
use rwkvc_ir::kernel::Kernel;

use machine::Machine;
use merge::Merged;

const NAME: &str = "llvm";

/// The LLVM code generator, for x86-64 (with AVX2, FMA and F16C) and 64-bit Arm; either from either.
///
/// # Errors
/// [`LowerError::Kernel`] for what only GPUs have (`shuffle`, `exp2`, barriers among threads), loops that should be
/// unrolled but have no fixed extent, and code that would call a library; [`LowerError::Target`] for a target that
/// lacks a needed extension or has an unknown one; [`LowerError::Listing`] for Cranelift IR.
#[derive(Clone, Copy, Debug, Default)]
pub struct LlvmBackend;

/// The version of LLVM in use.
pub fn version() -> String {
    let (major, minor, patch) = inkwell::support::get_llvm_version();
    format!("{major}.{minor}.{patch}")
}

impl Backend for LlvmBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn features(&self, target: &Target) -> Features {
        let (f32_lanes, vector_registers) = match target.arch {
            Arch::X86_64 if target.has("avx512f") => (16, 32),
            Arch::X86_64 if target.has("avx2") => (8, 16),
            Arch::X86_64 => (4, 16),
            Arch::Aarch64 => (4, 32),
            Arch::Cuda => return Features::Gpu(GPU),
        };
        Features::Cpu(CpuFeatures::new(f32_lanes, vector_registers, true))
    }

    fn lower(&self, kernels: &[Kernel], target: &Target) -> Result<Vec<u8>, LowerError> {
        // Found before any thread is started, and for no kernels as well.
        let machine = Machine::new(target)?;
        refuse_names(kernels)?;
        if target.arch == Arch::Cuda {
            let context = Context::create();
            let module = optimized(&context, kernels, target.arch, &machine)?;
            return machine.write(&module, FileType::Assembly);
        }
        let compile = |machine: &Machine, kernel: &Kernel| {
            let context = Context::create();
            let module = optimized(&context, slice::from_ref(kernel), target.arch, machine)?;
            machine.write(&module, FileType::Object)
        };
        let parts = parallel::map(kernels, || Machine::new(target), compile)?;
        let mut merged = Merged::new(target.arch);
        for (kernel, part) in kernels.iter().zip(parts) {
            merged.add(&part).map_err(|fault| kernel_error(kernel, fault.0))?;
        }
        merged.write().map_err(|fault| target_error(fault.0))
    }

    fn listing(&self, kernels: &[Kernel], target: &Target, listing: Listing) -> Result<String, LowerError> {
        let file_type = match listing {
            Listing::Asm => Some(FileType::Assembly),
            Listing::Llvm => None,
            Listing::Clif => {
                return Err(LowerError::Listing {
                    backend: NAME,
                    listing,
                });
            }
        };
        refuse_names(kernels)?;
        let machine = Machine::new(target)?;
        let context = Context::create();
        let module = optimized(&context, kernels, target.arch, &machine)?;
        match file_type {
            None => Ok(module.print_to_string().to_string()),
            Some(file_type) => Ok(String::from_utf8_lossy(&machine.write(&module, file_type)?).into_owned()),
        }
    }
}

fn refuse_names(kernels: &[Kernel]) -> Result<(), LowerError> {
    let mut names = HashSet::new();
    match kernels.iter().find(|k| !names.insert(&k.name)) {
        None => Ok(()),
        Some(kernel) => Err(kernel_error(kernel, "another kernel has this name".to_owned())),
    }
}

/// The kernels as one module of optimized LLVM IR.
fn optimized<'c>(
    context: &'c Context,
    kernels: &[Kernel],
    arch: Arch,
    machine: &Machine,
) -> Result<Module<'c>, LowerError> {
    let module = machine.module(context);
    for kernel in kernels {
        let start = match arch {
            Arch::X86_64 | Arch::Aarch64 => cpu::start(kernel, context, &module, machine),
            Arch::Cuda => gpu::start(kernel, context, &module, machine),
        };
        start
            .and_then(|start| emitter::finish(kernel, context, &module, start))
            .map_err(|fault| kernel_error(kernel, fault.0))?;
    }
    if arch == Arch::Cuda {
        walk::emit(kernels, context, &module, machine).map_err(|fault| target_error(fault.0))?;
    }
    module
        .verify()
        .map_err(|e| target_error(format!("LLVM refuses the emitted code: {e}")))?;
    machine.optimize(&module)?;
    Ok(module)
}

fn kernel_error(kernel: &Kernel, reason: String) -> LowerError {
    LowerError::Kernel {
        backend: NAME,
        kernel: kernel.name.clone(),
        reason,
    }
}

fn target_error(reason: String) -> LowerError {
    LowerError::Target {
        backend: NAME,
        reason,
    }
}
