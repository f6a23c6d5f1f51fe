//! The contract between the compiler and the runtime: what compiled code takes, and what is said about it.
//!
//! ```text
//! Plan ──► Manifest, functions ──► Artifact ──► Model
//!  compiler     this crate          runtime
//! ```
//!
//! The compiler's plan produces these types, an artifact stores them, the runtime executes them. Nothing of the contract is
//! described anywhere else.
//!
//! - [`manifest`]: kernels, weights, state, and the programs that launch them.
//! - [`check`]: what must hold before any of it runs.
//! - [`kernel`]: how a compiled function is called, on CPUs and GPUs.
//! - [`isa`]: instruction sets, their extensions and levels, and whether this machine has them.

pub mod check;
pub mod isa;
pub mod kernel;
pub mod manifest;

pub use check::ManifestError;
pub use isa::Arch;
pub use kernel::{GPU_ALIGN, KernelFn, SampleOptions, WEIGHT_ALIGN};
pub use manifest::*;
