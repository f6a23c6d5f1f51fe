//! Kernels to machine code through Cranelift, in pure Rust: the backend that is always there.
//!
//! ```text
//! Kernel ── emitter, control ─┬─ instruction, lanes (arithmetic) ──────┬─► Cranelift IR ──► ELF object
//!   (registers, loops)        └─ memory, formats (loads and stores) ───┘
//! ```
//!
//! Cranelift knows 128-bit vectors only, so a register of `n` lanes becomes `n / 4` of them. It does not schedule:
//! the machine code keeps the order of the emitted IR, apart from loads of read-only parameters, which sink to their
//! uses and leave the loops that do not change them.
//!
//! **Invariant:** results are bit-identical to the Kernel evaluator (payloads of NaNs aside): no reassociation, no
//! contraction, [`Inst::Fma`](rwkvc_ir::kernel::Inst::Fma) is always one instruction.
//! **Invariant:** the object has no undefined symbols and no relocations.

mod control;
mod emitter;
mod formats;
mod instruction;
mod lanes;
mod machine;
mod memory;
mod shape;

use cranelift_codegen::Context;
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_frontend::FunctionBuilderContext;
use cranelift_module::{Linkage, Module as _, ModuleError, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use rwkvc_backend_api::{
    Arch, Backend, CpuFeatures, DeviceKind, Features, LowerError, Module, Stage, Target, Unsupported,
};
use rwkvc_ir::Verified;
use rwkvc_ir::kernel::Kernel;

const NAME: &str = "cranelift";

/// The Cranelift code generator, for x86-64 (with AVX and FMA) and 64-bit Arm; either from either.
///
/// Prefetches are dropped, as Cranelift has no such instruction. Locals live on the stack.
///
/// # Errors
/// [`LowerError::Kernel`] for what only GPUs have (`shuffle`, `exp2`, `words`, `pack`, `mma`, barriers in thread
/// loops), loops that should be unrolled but have no fixed extent, and locals larger than the stack allows;
/// [`Unsupported`] for an x86-64 without AVX or FMA, and for GPUs.
#[derive(Clone, Copy, Debug, Default)]
pub struct CraneliftBackend;

/// Cranelift IR, assembly and object.
const STAGES: &[Stage] = &[
    Stage {
        name: "clif",
        summary: "Cranelift IR",
        devices: &[DeviceKind::Cpu],
        is_text: true,
    },
    Stage::ASM,
    Stage::OBJ,
];

impl Backend for CraneliftBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn supports(&self, target: &Target) -> Result<Features, Unsupported> {
        machine::isa(target)?;
        let vector_registers = match target.arch {
            Arch::X86_64 => 16,
            Arch::Aarch64 => 32,
            Arch::Cuda => return Err(machine::no_gpus()),
        };
        Ok(Features::Cpu(CpuFeatures::new(4, vector_registers, false)))
    }

    fn stages(&self) -> &'static [Stage] {
        STAGES
    }

    fn lower(&self, kernels: &[Verified<Kernel>], target: &Target) -> Result<Module, LowerError> {
        let compiler = Compiler::new(target)?;
        let builder = ObjectBuilder::new(compiler.isa.clone(), "rwkvc", default_libcall_names())
            .map_err(|e| module_error(e.to_string()))?;
        let mut module = ObjectModule::new(builder);
        let mut scratch = FunctionBuilderContext::new();
        for kernel in kernels {
            let refuse = |e: ModuleError| kernel_error(kernel, describe(e));
            let mut context = compiler.emit(kernel, &mut scratch)?;
            let id = module
                .declare_function(&kernel.name, Linkage::Export, &context.func.signature)
                .map_err(refuse)?;
            module.define_function(id, &mut context).map_err(refuse)?;
            refuse_relocations(kernel, &context)?;
        }
        let object = module.finish().emit();
        object
            .map(Module::Elf)
            .map_err(|e| module_error(format!("the object cannot be written: {e}")))
    }

    fn emit(
        &self,
        kernels: &[Verified<Kernel>],
        target: &Target,
        stage: &str,
    ) -> Result<Vec<u8>, LowerError> {
        match stage {
            "obj" => Ok(self.lower(kernels, target)?.bytes().to_vec()),
            "clif" => text(kernels, target, |_, _, context| {
                Ok(context.func.display().to_string())
            }),
            "asm" => text(kernels, target, |kernel, compiler, context| {
                context.set_disasm(true);
                let code = context
                    .compile(&*compiler.isa, &mut Default::default())
                    .map_err(|e| kernel_error(kernel, e.inner.to_string()))?;
                Ok(code.vcode.clone().unwrap_or_default())
            }),
            _ => Err(self.no_stage(stage)),
        }
    }
}

/// The text of each kernel, under its name.
fn text(
    kernels: &[Verified<Kernel>],
    target: &Target,
    print: impl Fn(&Kernel, &Compiler, &mut Context) -> Result<String, LowerError>,
) -> Result<Vec<u8>, LowerError> {
    let compiler = Compiler::new(target)?;
    let mut scratch = FunctionBuilderContext::new();
    let mut text = String::new();
    for kernel in kernels {
        let mut context = compiler.emit(kernel, &mut scratch)?;
        text += &format!("; kernel {}\n", kernel.name);
        text += &print(kernel, &compiler, &mut context)?;
        text.push('\n');
    }
    Ok(text.into_bytes())
}

/// Cranelift, set up for one target.
struct Compiler {
    arch: Arch,
    isa: OwnedTargetIsa,
}

impl Compiler {
    fn new(target: &Target) -> Result<Self, LowerError> {
        Ok(Self {
            arch: target.arch,
            isa: machine::isa(target)?,
        })
    }

    /// The Cranelift IR of a kernel.
    fn emit(&self, kernel: &Kernel, scratch: &mut FunctionBuilderContext) -> Result<Context, LowerError> {
        emitter::function(kernel, self.arch, &*self.isa, scratch).map(Context::for_function)
    }
}

/// The loader maps one self-contained block of code; whatever the code refers to outside of it is a mistake of ours.
fn refuse_relocations(kernel: &Kernel, context: &Context) -> Result<(), LowerError> {
    let relocations = context
        .compiled_code()
        .map_or(&[][..], |code| code.buffer.relocs());
    match relocations.first() {
        None => Ok(()),
        Some(r) => Err(kernel_error(
            kernel,
            format!("the code refers to {:?}, but must not call anything", r.target),
        )),
    }
}

fn describe(error: ModuleError) -> String {
    match error {
        ModuleError::Compilation(e) => format!("Cranelift failed: {e:?}"),
        other => other.to_string(),
    }
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
