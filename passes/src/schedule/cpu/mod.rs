//! Schedules for processors: a task is a range of work for one thread, in vectors of the machine's lanes.

mod elementwise;
mod linear;
mod mix;
mod norm;
mod roof;
mod wkv;

pub use roof::roof_kernel;

use rwkvc_backend_api::CpuFeatures;
use rwkvc_ir::graph::ops::{Activation, Member, Op};
use rwkvc_ir::kernel::Unary;

use super::{Scheduled, Tensor, at, math};

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
) -> Result<Vec<Scheduled>, String> {
    let map = |name: &str, f: elementwise::Function<'_>| {
        Ok(elementwise::elementwise(name, f, operands, results, features))
    };
    match op {
        Op::Add(_) => map("add", &|b, x| b.add(x[0], x[1])),
        Op::Sub(_) => map("sub", &|b, x| b.sub(x[0], x[1])),
        Op::Mul(_) => map("mul", &|b, x| b.mul(x[0], x[1])),
        Op::Neg(_) => map("neg", &|b, x| b.unary(Unary::Neg, x[0])),
        Op::Exp(_) => map("exp", &|b, x| math::exp(b, x[0])),
        Op::Tanh(_) => map("tanh", &|b, x| math::tanh(b, x[0])),
        Op::Sigmoid(_) => map("sigmoid", &|b, x| math::sigmoid(b, x[0])),
        Op::Relu(_) => map("relu", &|b, x| math::relu(b, x[0])),
        Op::Contract(_) => Ok(elementwise::contract(operands, results, features)),
        Op::Embed(_) => Ok(mix::embed(operands, results, features)),
        Op::Last(_) => Ok(mix::last(operands, results, features)),
        Op::TokenShift(_) => Ok(mix::token_shift(operands, results, features)),
        Op::ShiftMix(_) => Ok(mix::shift_mix(operands, results, features)),
        Op::NormShiftMix(op) => Ok(mix::norm_shift_mix(op.eps, operands, results, features)),
        Op::LayerNorm(op) => Ok(norm::layer_norm(op.eps, operands, results, features)),
        Op::L2Normalize(op) => Ok(norm::l2_normalize(op.eps, operands, results, features)),
        Op::Sum(_) => Ok(norm::sum(operands, results, features)),
        Op::Linear(_) => {
            let plain = Member {
                activation: Activation::None,
                bias: false,
                scale: false,
                residual: false,
            };
            Ok(linear::linear_group(&[plain], operands, results, features))
        }
        Op::LinearGroup(op) => Ok(linear::linear_group(&op.members, operands, results, features)),
        Op::Wkv7(_) => Ok(wkv::wkv7(operands, results, features)),
        Op::Wkv7Block(op) => Ok(wkv::wkv7_block(op, operands, results, features)),
        Op::Input(_) | Op::Param(_) | Op::Const(_) | Op::Reshape(_) => Ok(vec![]),
        Op::Transpose(_) => Err("only weights can be transposed, and this value is computed".into()),
    }
}
