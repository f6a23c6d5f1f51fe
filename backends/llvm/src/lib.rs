//! Kernels to machine code through LLVM: the backend for the fastest code.
//!
//! ```text
//! Kernel ── emitter (control flow) ─┬─ instruction (arithmetic) ──► LLVM IR ── passes ──► ELF object
//!                                   ├─ memory, formats (loads, stores, number formats)
//!                                   └─ cpu (what a GPU would do otherwise)
//! ```
//!
//! A register of `n` lanes is an LLVM vector of `n` elements, however wide the registers of the machine are. Vectors and
//! tiles are explicit, so few of LLVM's passes run; it schedules, allocates registers and moves code out of loops.
//!
//! **Invariant:** results are bit-identical to the Kernel evaluator (payloads of NaNs aside): no fast-math flags, and
//! [`Inst::Fma`](rwkvc_ir::kernel::Inst::Fma) is always one instruction.
//! **Invariant:** the object has no undefined symbols, and no sections but code and constants.

mod cpu;
mod emitter;
mod formats;
mod instruction;
mod machine;
mod memory;
mod object;

use inkwell::context::Context;
use inkwell::memory_buffer::MemoryBuffer;
use inkwell::module::Module;
use inkwell::targets::FileType;
use rwkvc_backend_api::{Arch, Backend, Features, Listing, LowerError, Target};
use rwkvc_ir::kernel::Kernel;

use machine::Machine;

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
        };
        Features {
            f32_lanes,
            vector_registers,
            prefetch: true,
        }
    }

    fn lower(&self, kernels: &[Kernel], target: &Target) -> Result<Vec<u8>, LowerError> {
        let machine = Machine::new(target)?;
        let context = Context::create();
        let module = optimized(&context, kernels, &machine)?;
        let bytes = machine.write(&module, FileType::Object)?.as_slice().to_vec();
        object::check(&bytes)?;
        Ok(bytes)
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
        let machine = Machine::new(target)?;
        let context = Context::create();
        let module = optimized(&context, kernels, &machine)?;
        match file_type {
            None => Ok(module.print_to_string().to_string()),
            Some(file_type) => Ok(text(&machine.write(&module, file_type)?)),
        }
    }
}

/// LLVM ends its text with a zero byte that is not part of it.
fn text(buffer: &MemoryBuffer<'_>) -> String {
    String::from_utf8_lossy(buffer.as_slice())
        .trim_end_matches('\0')
        .to_owned()
}

/// The kernels as one module of optimized LLVM IR.
fn optimized<'c>(
    context: &'c Context,
    kernels: &[Kernel],
    machine: &Machine,
) -> Result<Module<'c>, LowerError> {
    let module = machine.module(context);
    for kernel in kernels {
        emitter::function(kernel, context, &module, machine)
            .map_err(|fault| kernel_error(kernel, fault.0))?;
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
