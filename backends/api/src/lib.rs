//! What a code generator must offer, and what it is told about the machine.
//!
//! A [`Backend`] turns verified kernels into a [`Module`]. It spells loops; it decides nothing: tiles and vector widths
//! were chosen in `passes` from the [`Features`] that it [supports](Backend::supports) for a target.

mod features;
pub mod target;
pub mod tuning;

use rwkvc_ir::Verified;
use rwkvc_ir::kernel::Kernel;

pub use features::{CpuFeatures, Features, GpuFeatures};
pub use rwkvc_abi::Arch;
pub use rwkvc_abi::isa::DeviceKind;
pub use target::{Target, TargetError};
pub use tuning::Tuning;

/// A stage of code generation that a backend can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name on the command line: `llvm`, `asm`, `obj` …
    pub name: &'static str,
    /// What it is, in a few words.
    pub summary: &'static str,
    /// The kinds of devices whose code goes through it.
    pub devices: &'static [DeviceKind],
    /// Whether it is text.
    pub is_text: bool,
}

impl Stage {
    /// What a CPU executes, as text.
    pub const ASM: Stage = Stage {
        name: "asm",
        summary: "Assembly text",
        devices: &[DeviceKind::Cpu],
        is_text: true,
    };

    /// What a CPU executes, as [`Module::Elf`].
    pub const OBJ: Stage = Stage {
        name: "obj",
        summary: "A relocatable object file with one function per kernel",
        devices: &[DeviceKind::Cpu],
        is_text: false,
    };
}

/// Compiled kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Module {
    /// A relocatable ELF object with a global function for each kernel, named like it, as [`rwkvc_abi::KernelFn`] says. The
    /// functions call nothing, and the object needs no library.
    Elf(Vec<u8>),
    /// PTX text with an entry for each kernel, as [`rwkvc_abi::GPU_ALIGN`] says.
    Ptx(Vec<u8>),
}

impl Module {
    /// The bytes, as an artifact stores them.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Module::Elf(bytes) | Module::Ptx(bytes) => bytes,
        }
    }
}

/// A target that a backend cannot produce code for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("backend `{backend}`: {reason}")]
pub struct Unsupported {
    /// The backend.
    pub backend: &'static str,
    /// What is the matter, and what to use instead.
    pub reason: String,
}

/// Why code could not be produced.
#[derive(Debug, thiserror::Error)]
pub enum LowerError {
    /// A kernel asks for something the backend cannot express.
    #[error("backend `{backend}`: kernel `{kernel}`: {reason}")]
    Kernel {
        /// The backend.
        backend: &'static str,
        /// The kernel.
        kernel: String,
        /// What is the matter.
        reason: String,
    },
    /// The backend has no code for the target.
    #[error(transparent)]
    Target(#[from] Unsupported),
    /// The kernels as a whole cannot be written.
    #[error("backend `{backend}`: {reason}")]
    Module {
        /// The backend.
        backend: &'static str,
        /// What is the matter.
        reason: String,
    },
    /// The backend has no such stage.
    #[error("backend `{backend}` has no stage `{found}`, only {}", .known.join(", "))]
    Stage {
        /// The backend.
        backend: &'static str,
        /// What was asked for.
        found: String,
        /// Its stages.
        known: Vec<&'static str>,
    },
}

/// A code generator.
pub trait Backend: Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// What schedules may use on a target.
    ///
    /// # Errors
    /// If it has no code for the target.
    fn supports(&self, target: &Target) -> Result<Features, Unsupported>;

    /// The stages that it can write, from the kernels on.
    fn stages(&self) -> &'static [Stage];

    /// Compiles kernels.
    ///
    /// # Errors
    /// If it does not support the target, or a kernel asks for what it cannot express there.
    fn lower(&self, kernels: &[Verified<Kernel>], target: &Target) -> Result<Module, LowerError>;

    /// Compiles kernels as far as the [stage](Self::stages) of a name.
    ///
    /// # Errors
    /// As [`lower`](Self::lower); and if it has no such stage for the target.
    fn emit(&self, kernels: &[Verified<Kernel>], target: &Target, stage: &str)
    -> Result<Vec<u8>, LowerError>;

    /// That it has no stage of this name.
    fn no_stage(&self, found: &str) -> LowerError {
        LowerError::Stage {
            backend: self.name(),
            found: found.to_owned(),
            known: self.stages().iter().map(|stage| stage.name).collect(),
        }
    }
}
