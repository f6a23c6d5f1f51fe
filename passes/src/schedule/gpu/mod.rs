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
//! **Invariant:** no block reads what another block of the same launch writes.

mod block;
mod elementwise;
mod linear;
mod matrix;
mod mix;
mod norm;
mod prologue;
mod sample;
mod skip;
mod wkv;

pub(crate) use prologue::Prologue;
pub use sample::{Sampler, SamplerBuffer, sampler};

use crate::schedule::ScheduleError;
use rwkvc_backend_api::GpuFeatures;
use rwkvc_ir::graph::ops::{Member, Op};

use super::{Scheduled, Tensor, at, elementwise_function, math};

type Scope<'a> = super::Scope<'a, GpuFeatures>;

fn refuse_quantized(operands: &[Tensor], results: &[Tensor]) -> Result<(), ScheduleError> {
    match operands.iter().chain(results).any(|t| t.quantized.is_some()) {
        true => Err(ScheduleError::Quantised),
        false => Ok(()),
    }
}

/// The products of a group with the `norm_shift_mix` before it.
pub(super) fn joined(
    prologue: &Prologue<'_>,
    members: &[Member],
    operands: &[Tensor],
    results: &[Tensor],
    features: &GpuFeatures,
) -> Result<Vec<Scheduled>, ScheduleError> {
    refuse_quantized(operands, results)?;
    prologue::linear_group(prologue, members, operands, results, features)
}

/// The kernels of an op, for up to `most` tokens of a call; a product may carry another value to its place besides.
pub(super) fn schedule(
    op: &Op,
    operands: &[Tensor],
    results: &[Tensor],
    carries: bool,
    features: &GpuFeatures,
    most: i64,
) -> Result<Vec<Scheduled>, ScheduleError> {
    refuse_quantized(operands, results)?;
    if let Some((name, f)) = elementwise_function(op) {
        return Ok(elementwise::elementwise(name, f, operands, results, features));
    }
    match op {
        Op::Contract(_) => Ok(elementwise::contract(operands, results, features)),
        Op::Embed(_) => Ok(elementwise::embed(operands, results, features)),
        Op::Last(_) => Ok(elementwise::last(operands, results, features)),
        Op::TokenShift(_) => Ok(mix::token_shift(operands, results, features)),
        Op::ShiftMix(_) => Ok(mix::shift_mix(operands, results, features)),
        Op::NormShiftMix(op) => mix::norm_shift_mix(op.eps, operands, results, features),
        Op::LayerNorm(op) => norm::layer_norm(op.eps, operands, results, features),
        Op::L2Normalize(op) => norm::l2_normalize(op.eps, operands, results, features),
        Op::Sum(_) => norm::sum(operands, results, features),
        Op::Linear(_) => Ok(linear::linear_group(
            &[Member::PLAIN],
            operands,
            results,
            carries,
            features,
            most,
        )),
        Op::LinearGroup(op) => Ok(linear::linear_group(
            &op.members,
            operands,
            results,
            carries,
            features,
            most,
        )),
        Op::Wkv7(_) => wkv::wkv7(operands, results, features),
        Op::Wkv7Block(op) => wkv::wkv7_block(op, operands, results, features),
        op => Err(ScheduleError::None(op.mnemonic())),
    }
}
