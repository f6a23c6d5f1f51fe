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
use rwkvc_backend_api::{
    self as api, Arch, Backend, CpuFeatures, DeviceKind, Features, GpuFeatures, LowerError, Stage, Target,
    Unsupported,
};
use rwkvc_ir::Verified;
use rwkvc_ir::kernel::Kernel;

use machine::Machine;
use merge::Merged;

const NAME: &str = "llvm";

/// The LLVM code generator, for x86-64 (with AVX2, FMA and F16C) and 64-bit Arm; either from either.
///
/// # Errors
/// [`LowerError::Kernel`] for what only GPUs have (`shuffle`, `exp2`, barriers among threads), loops that should be
/// unrolled but have no fixed extent, and code that would call a library; [`Unsupported`] for a target that lacks a needed
/// extension or has an unknown one.
#[derive(Clone, Copy, Debug, Default)]
pub struct LlvmBackend;

/// The version of LLVM in use.
pub fn version() -> String {
    let (major, minor, patch) = inkwell::support::get_llvm_version();
    format!("{major}.{minor}.{patch}")
}

/// LLVM IR, and what it becomes.
const STAGES: &[Stage] = &[
    Stage {
        name: "llvm",
        summary: "LLVM IR",
        devices: &[DeviceKind::Cpu, DeviceKind::Gpu],
        is_text: true,
    },
    Stage::ASM,
    Stage::OBJ,
    Stage {
        name: "ptx",
        summary: "PTX, the assembly text of NVIDIA GPUs, with one entry per kernel",
        devices: &[DeviceKind::Gpu],
        is_text: true,
    },
];

impl Backend for LlvmBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn supports(&self, target: &Target) -> Result<Features, Unsupported> {
        Machine::new(target)?;
        let (f32_lanes, vector_registers) = match target.arch {
            Arch::X86_64 if target.has("avx512f") => (16, 32),
            Arch::X86_64 => (8, 16),
            Arch::Aarch64 => (4, 32),
            Arch::Cuda => {
                let gpu = GpuFeatures::of(target).ok_or_else(machine::no_generation)?;
                return Ok(Features::Gpu(gpu));
            }
        };
        Ok(Features::Cpu(CpuFeatures::new(f32_lanes, vector_registers, true)))
    }

    fn stages(&self) -> &'static [Stage] {
        STAGES
    }

    fn lower(&self, kernels: &[Verified<Kernel>], target: &Target) -> Result<api::Module, LowerError> {
        // Found before any thread is started, and for no kernels as well.
        let machine = Machine::new(target)?;
        refuse_names(kernels)?;
        if target.arch.device() == DeviceKind::Gpu {
            let context = Context::create();
            let module = optimized(&context, kernels, target, &machine)?;
            return machine.write(&module, FileType::Assembly).map(api::Module::Ptx);
        }
        let compile = |machine: &Machine, kernel: &Verified<Kernel>| {
            let context = Context::create();
            let module = optimized(&context, slice::from_ref(kernel), target, machine)?;
            machine.write(&module, FileType::Object)
        };
        let parts = parallel::map(kernels, || Machine::new(target), compile)?;
        let mut merged = Merged::new(target.arch);
        for (kernel, part) in kernels.iter().zip(parts) {
            merged.add(&part).map_err(|fault| kernel_error(kernel, fault.0))?;
        }
        let object = merged.write().map_err(|fault| module_error(fault.0))?;
        Ok(api::Module::Elf(object))
    }

    fn emit(
        &self,
        kernels: &[Verified<Kernel>],
        target: &Target,
        stage: &str,
    ) -> Result<Vec<u8>, LowerError> {
        match (stage, target.arch.device()) {
            ("obj", DeviceKind::Cpu) | ("ptx", DeviceKind::Gpu) => {
                Ok(self.lower(kernels, target)?.bytes().to_vec())
            }
            ("llvm", _) => print(kernels, target, |module, _| {
                Ok(module.print_to_string().to_string().into_bytes())
            }),
            ("asm", DeviceKind::Cpu) => print(kernels, target, |module, machine| {
                machine.write(module, FileType::Assembly)
            }),
            _ => Err(self.no_stage(stage)),
        }
    }
}

/// All kernels as one module, printed.
fn print(
    kernels: &[Verified<Kernel>],
    target: &Target,
    print: impl FnOnce(&Module<'_>, &Machine) -> Result<Vec<u8>, LowerError>,
) -> Result<Vec<u8>, LowerError> {
    refuse_names(kernels)?;
    let machine = Machine::new(target)?;
    let context = Context::create();
    let module = optimized(&context, kernels, target, &machine)?;
    print(&module, &machine)
}

fn refuse_names(kernels: &[Verified<Kernel>]) -> Result<(), LowerError> {
    let mut names = HashSet::new();
    match kernels.iter().find(|k| !names.insert(&k.name)) {
        None => Ok(()),
        Some(kernel) => Err(kernel_error(kernel, "another kernel has this name".to_owned())),
    }
}

/// The kernels as one module of optimized LLVM IR.
fn optimized<'c>(
    context: &'c Context,
    kernels: &[Verified<Kernel>],
    target: &Target,
    machine: &Machine,
) -> Result<Module<'c>, LowerError> {
    let module = machine.module(context);
    for kernel in kernels {
        let start = match target.arch.device() {
            DeviceKind::Cpu => cpu::start(kernel, context, &module, machine),
            DeviceKind::Gpu => gpu::start(kernel, context, &module, machine),
        };
        start
            .and_then(|start| emitter::finish(kernel, context, &module, start))
            .map_err(|fault| kernel_error(kernel, fault.0))?;
    }
    if target.arch.device() == DeviceKind::Gpu {
        walk::emit(kernels, context, &module, machine).map_err(|fault| module_error(fault.0))?;
    }
    module
        .verify()
        .map_err(|e| module_error(format!("LLVM refuses the emitted code: {e}")))?;
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

fn module_error(reason: String) -> LowerError {
    LowerError::Module {
        backend: NAME,
        reason,
    }
}

fn unsupported(reason: String) -> Unsupported {
    Unsupported {
        backend: NAME,
        reason,
    }
}
