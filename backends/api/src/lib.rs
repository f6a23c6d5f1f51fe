//! What a code generator must offer, and what it is told about the machine.
//!
//! A [`Backend`] turns a verified list of kernels into an object file. It spells loops; it decides nothing: tiles and
//! vector widths were chosen in `passes` from its [`Features`].

pub mod target;
pub mod tuning;

use std::fmt;

use rwkvc_ir::kernel::Kernel;

pub use target::{Target, TargetError};
pub use tuning::Tuning;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("code is produced for, and on, x86-64 and 64-bit Arm only");

/// Instruction set of the produced code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
    /// NVIDIA GPUs, through PTX.
    Cuda,
}

impl Arch {
    /// This machine's.
    pub const fn host() -> Self {
        if cfg!(target_arch = "aarch64") {
            Arch::Aarch64
        } else {
            Arch::X86_64
        }
    }

    /// The name that Rust and Linux use, `x86_64` or `aarch64`; or `cuda`.
    pub const fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
            Arch::Cuda => "cuda",
        }
    }

    /// The extensions that a [`Target`] may name, by LLVM's names: those that can change code.
    pub fn extensions(self) -> Vec<&'static str> {
        target::extensions(self).iter().map(|e| e.name).collect()
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

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
/// For a processor, every kernel becomes one function with the C calling convention, named like the kernel:
///
/// ```c
/// void NAME(void *const *buffers, int64_t begin, int64_t end, int64_t tokens);
/// ```
///
/// `buffers` holds one pointer per [`rwkvc_ir::kernel::Param`], in order; iterations `begin..end` of the parallel loop
/// are run; `tokens` is `T`. The functions call nothing, and the object needs no library.
///
/// For a GPU, every kernel becomes one entry of a PTX module, to be launched with a block for each iteration of the
/// parallel loop and as many threads as its thread loop has iterations:
///
/// ```c
/// .entry NAME(void *buffer_0, …, void *buffer_n, int64_t tokens);
/// ```
///
/// Buffers are in global memory and start at multiples of [`GPU_ALIGN`] bytes.
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

/// What every buffer of a GPU kernel is aligned to, in bytes: the widest load of a thread.
pub const GPU_ALIGN: u32 = 16;

/// What every GPU has that PTX can be produced for.
pub const GPU: GpuFeatures = GpuFeatures {
    threads: 256,
    warp: 32,
    shared_bytes: 48 * 1024,
};
