//! Schedules for GPUs: a task is a block of threads, of which 32 form a warp.
//!
//! ```text
//! parallel %block in 0..GRID {
//!   thread %t in 0..THREADS {
//!     … loads, shuffles, barriers …
//!   }
//! }
//! ```
//!
//! **Invariant:** every kernel has exactly one thread loop, around all that is not index arithmetic, of
//! [`GpuFeatures::threads`] threads.

use rwkvc_backend_api::GpuFeatures;
use rwkvc_ir::graph::ops::Op;

use super::{Scheduled, Tensor};

pub(super) fn schedule(
    op: &Op,
    _operands: &[Tensor],
    _results: &[Tensor],
    _features: &GpuFeatures,
) -> Result<Vec<Scheduled>, String> {
    Err(format!("`{}` has no schedule for GPUs", op.mnemonic()))
}
