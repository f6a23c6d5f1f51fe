//! Runs models on GPUs.
//!
//! ```text
//! PTX, weights ──> GpuModel ──> GpuSession ──> logits     (one conversation)
//!                  (shared)  └─> GpuBatch  ──> logits     (many, one token of each at a time)
//! ```
//!
//! Nothing here knows CUDA but [`CudaDriver`], one implementation of [`Driver`]: tests bring others.

pub mod driver;

mod batch;
mod cuda;
mod error;
mod model;
mod runner;
mod sampling;
mod session;
mod timer;

pub use batch::GpuBatch;
pub use cuda::CudaDriver;
pub use driver::{
    Address, DeviceBuffer, DeviceInfo, Driver, Event, Function, Graph, HostMemory, KernelLaunch, Module,
    Resource,
};
pub use error::GpuError;
pub use model::{GpuModel, Mode};
pub use session::GpuSession;
pub use timer::Timer;
