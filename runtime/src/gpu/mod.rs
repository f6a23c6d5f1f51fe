//! Runs models on GPUs.
//!
//! ```text
//! PTX, weights ──> GpuModel ──> GpuSession ──> logits     (one conversation)
//!                  (shared)  └─> GpuBatch  ──> logits     (many, one token of each at a time)
//! ```
//!
//! Nothing here knows CUDA but one implementation of [`Driver`]: tests bring another.

pub mod driver;

mod batch;
mod error;
mod model;
mod runner;
mod session;

pub use batch::GpuBatch;
pub use driver::{
    Address, DeviceBuffer, DeviceInfo, Driver, Event, Function, Graph, HostMemory, KernelLaunch, Module,
    Resource,
};
pub use error::GpuError;
pub use model::{GpuModel, Mode, WALK};
pub use session::{GpuSession, SessionError};
