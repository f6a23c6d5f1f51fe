//! Schedules for CPUs: a task is a range of work for one thread, in vectors of the machine's lanes.

mod elementwise;
mod linear;
mod mix;
mod norm;
mod quantize;
mod roof;
mod wkv;

pub use roof::{PEAK_FLOPS_OF_A_LANE, peak_kernel, roof_kernel};

use crate::schedule::ScheduleError;
use rwkvc_backend_api::CpuFeatures;
use rwkvc_ir::graph::ops::{Member, Op};

use super::{Scheduled, Tensor, at, elementwise_function, math};

type Scope<'a> = super::Scope<'a, CpuFeatures>;

impl Scope<'_> {
    /// Vector lanes of the target.
    fn lanes(&self) -> u32 {
        self.features.f32_lanes
    }
}

/// The kernels of one op, in launch order.
pub(super) fn schedule(
    op: &Op,
    operands: &[Tensor],
    results: &[Tensor],
    features: &CpuFeatures,
) -> Result<Vec<Scheduled>, ScheduleError> {
    if let Some((name, f)) = elementwise_function(op) {
        return Ok(elementwise::elementwise(name, f, operands, results, features));
    }
    match op {
        Op::Contract(_) => Ok(elementwise::contract(operands, results, features)),
        Op::Embed(_) => Ok(mix::embed(operands, results, features)),
        Op::Quantize(_) => Ok(quantize::activations(operands, results, features)),
        Op::Last(_) => Ok(mix::last(operands, results, features)),
        Op::TokenShift(_) => Ok(mix::token_shift(operands, results, features)),
        Op::ShiftMix(_) => Ok(mix::shift_mix(operands, results, features)),
        Op::NormShiftMix(op) => Ok(mix::norm_shift_mix(op.eps, operands, results, features)),
        Op::LayerNorm(op) => Ok(norm::layer_norm(op.eps, operands, results, features)),
        Op::L2Normalize(op) => Ok(norm::l2_normalize(op.eps, operands, results, features)),
        Op::Sum(_) => Ok(norm::sum(operands, results, features)),
        Op::Linear(_) => Ok(linear::linear_group(
            &[Member::PLAIN],
            operands,
            results,
            features,
        )),
        Op::LinearGroup(op) => Ok(linear::linear_group(&op.members, operands, results, features)),
        Op::Wkv7(_) => Ok(wkv::wkv7(operands, results, features)),
        Op::Wkv7Block(op) => Ok(wkv::wkv7_block(op, operands, results, features)),
        op => Err(ScheduleError::None(op.mnemonic())),
    }
}
