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
use cranelift_module::{Linkage, Module, ModuleError, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use rwkvc_backend_api::{Arch, Backend, CpuFeatures, Features, GPU, Listing, LowerError, Target};
use rwkvc_ir::kernel::Kernel;

const NAME: &str = "cranelift";

/// The Cranelift code generator, for x86-64 (with AVX and FMA) and 64-bit Arm; either from either.
///
/// Prefetches are dropped, as Cranelift has no such instruction. Locals live on the stack.
///
/// # Errors
/// [`LowerError::Kernel`] for what only GPUs have (`shuffle`, `exp2`, `words`, `pack`, `mma`, barriers in thread
/// loops), loops that should be unrolled but have no fixed extent, and locals larger than the stack allows;
/// [`LowerError::Target`] for an x86-64 without AVX or FMA; [`LowerError::Listing`] for LLVM IR.
///
/// # Panics
/// Kernels that the verifier would refuse, such as those with operands of wrong types, may panic.
#[derive(Clone, Copy, Debug, Default)]
pub struct CraneliftBackend;

impl Backend for CraneliftBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn features(&self, target: &Target) -> Features {
        let vector_registers = match target.arch {
            Arch::X86_64 => 16,
            Arch::Aarch64 => 32,
            Arch::Cuda => return Features::Gpu(GPU),
        };
        Features::Cpu(CpuFeatures::new(4, vector_registers, false))
    }

    fn lower(&self, kernels: &[Kernel], target: &Target) -> Result<Vec<u8>, LowerError> {
        let compiler = Compiler::new(target)?;
        let builder = ObjectBuilder::new(compiler.isa.clone(), "rwkvc", default_libcall_names())
            .map_err(|e| target_error(e.to_string()))?;
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
        module
            .finish()
            .emit()
            .map_err(|e| target_error(format!("the object cannot be written: {e}")))
    }

    fn listing(&self, kernels: &[Kernel], target: &Target, listing: Listing) -> Result<String, LowerError> {
        if listing == Listing::Llvm {
            return Err(LowerError::Listing {
                backend: NAME,
                listing,
            });
        }
        let compiler = Compiler::new(target)?;
        let mut scratch = FunctionBuilderContext::new();
        let mut text = String::new();
        for kernel in kernels {
            let mut context = compiler.emit(kernel, &mut scratch)?;
            text += &format!("; kernel {}\n", kernel.name);
            if listing == Listing::Clif {
                text += &context.func.display().to_string();
            } else {
                context.set_disasm(true);
                let code = context
                    .compile(&*compiler.isa, &mut Default::default())
                    .map_err(|e| kernel_error(kernel, e.inner.to_string()))?;
                text += code.vcode.as_deref().unwrap_or_default();
            }
            text.push('\n');
        }
        Ok(text)
    }
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

fn target_error(reason: String) -> LowerError {
    LowerError::Target {
        backend: NAME,
        reason,
    }
}
