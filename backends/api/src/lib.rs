//! What a code generator must offer, and what it is told about the machine.
//!
//! A [`Backend`] turns a verified list of kernels into an object file. It spells loops; it decides nothing: tiles and
//! vector widths were chosen in `passes` from its [`Features`].

pub mod target;
pub mod tuning;

use std::fmt;

use rwkvc_ir::kernel::Kernel;

pub use rwkvc_abi::Arch;
pub use rwkvc_abi::isa::DeviceKind;
pub use target::{Target, TargetError};
pub use tuning::Tuning;

/// What the schedules need to know of a target as seen through one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Features {
    /// A processor: iterations of the parallel loop run in ranges, one thread each.
    Cpu(CpuFeatures),
    /// A GPU: iterations of the parallel loop are blocks of threads.
    Gpu(GpuFeatures),
}

/// What schedules may use on a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuFeatures {
    /// Lanes of the widest f32 vector register the backend can use (4, 8 or 16).
    pub f32_lanes: u32,
    /// Vector registers.
    pub vector_registers: u32,
    /// Whether a prefetch is worth emitting.
    pub prefetch: bool,
    /// What was measured to be fastest, or else what is good everywhere.
    pub tuning: Tuning,
}

impl CpuFeatures {
    /// A processor of which nothing was measured.
    pub const fn new(f32_lanes: u32, vector_registers: u32, prefetch: bool) -> Self {
        CpuFeatures {
            f32_lanes,
            vector_registers,
            prefetch,
            tuning: Tuning::of(f32_lanes, vector_registers),
        }
    }
}

/// What schedules may use on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuFeatures {
    /// Threads of every block: all kernels of a plan have the same, so that one launch can run them all.
    pub threads: u32,
    /// Threads that run in step and can exchange registers.
    pub warp: u32,
    /// Bytes of shared memory that a block may declare.
    pub shared_bytes: u32,
}

/// A human-readable stage of code generation that a backend can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Assembly text; PTX for GPUs.
    Asm,
    /// LLVM IR (the LLVM backend).
    Llvm,
    /// Cranelift IR (the Cranelift backend).
    Clif,
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Listing::Asm => "assembly",
            Listing::Llvm => "LLVM IR",
            Listing::Clif => "Cranelift IR",
        })
    }
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
    /// The target is unknown to the backend, or an extension of it.
    #[error("backend `{backend}`: {reason}")]
    Target {
        /// The backend.
        backend: &'static str,
        /// What is the matter.
        reason: String,
    },
    /// The backend has no such listing.
    #[error("backend `{backend}` cannot print {listing}")]
    Listing {
        /// The backend.
        backend: &'static str,
        /// What was asked for.
        listing: Listing,
    },
}

/// A code generator.
///
/// For a CPU, a kernel becomes a function named like it, as [`rwkvc_abi::KernelFn`] says. The functions call nothing, and the
/// object needs no library. For a GPU, a kernel becomes an entry of a PTX module, as [`rwkvc_abi::GPU_ALIGN`] says.
pub trait Backend: Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// What the schedules may use on `target`.
    fn features(&self, target: &Target) -> Features;

    /// A relocatable ELF object with one global function per kernel, or PTX text.
    fn lower(&self, kernels: &[Kernel], target: &Target) -> Result<Vec<u8>, LowerError>;

    /// The code of the kernels as text.
    fn listing(&self, kernels: &[Kernel], target: &Target, listing: Listing) -> Result<String, LowerError>;
}

/// What every GPU has that PTX can be produced for.
pub const GPU: GpuFeatures = GpuFeatures {
    threads: 256,
    warp: 32,
    shared_bytes: 48 * 1024,
};
