//! What the suites share.
//!
//! For whole models: those that come with the project and their goldens, random ones of any shape, and one way to compile
//! and run each on every backend, fused and unfused. A suite that runs over [`cases::cases`] covers a new backend at once.
//!
//! For plans and kernels: running them without the runtime, random values, and the headers of filetests. A filetest is IR
//! text whose header says what to do with it; `tests/filetests` has them, one folder for each kind.
//!
//! For GPUs, with the feature `llvm`: running on this machine the code that becomes PTX, launch by launch or as a device of
//! the runtime. See `fibers`.

pub mod cases;
#[cfg(feature = "llvm")]
pub mod fibers;
pub mod fixtures;
pub mod header;
pub mod interpret;
pub mod native;
pub mod numbers;
pub mod random;
pub mod reference;
pub mod replay;
pub mod session;
pub mod tolerance;
pub mod values;
pub mod verified;
