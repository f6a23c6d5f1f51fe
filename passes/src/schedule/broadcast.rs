//! Ops whose result has each element from the same position of its operands: what they compute, and where operands are
//! that are smaller than the result.

use rwkvc_ir::graph::ops::Op;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Reg, Unary};

use super::{Tensor, math};

/// What is computed of the operands.
pub(super) type Function<'f> = &'f dyn Fn(&mut Builder, &[Reg]) -> Reg;

/// The name of an op that works element by element, and what it computes.
pub(super) fn function(op: &Op) -> Option<(&'static str, Function<'static>)> {
    Some(match op {
        Op::Add(_) => ("add", &|b, x| b.add(x[0], x[1])),
        Op::Sub(_) => ("sub", &|b, x| b.sub(x[0], x[1])),
        Op::Mul(_) => ("mul", &|b, x| b.mul(x[0], x[1])),
        Op::Neg(_) => ("neg", &|b, x| b.unary(Unary::Neg, x[0])),
        Op::Exp(_) => ("exp", &|b, x| math::exp(b, x[0])),
        Op::Tanh(_) => ("tanh", &|b, x| math::tanh(b, x[0])),
        Op::Sigmoid(_) => ("sigmoid", &|b, x| math::sigmoid(b, x[0])),
        Op::Relu(_) => ("relu", &|b, x| math::relu(b, x[0])),
        // Stores round to the format of the result.
        Op::ToBf16(_) => ("to_bf16", &|_, x| x[0]),
        _ => return None,
    })
}

/// Where the row of `x` starts that is broadcast to row `row` of `y`.
pub(super) fn row_start(b: &mut Builder, row: Reg, x: &Tensor, y: &Tensor) -> Affine {
    let leading = |t: &Tensor| t.shape[..t.shape.len().saturating_sub(1)].to_vec();
    let (x_dims, y_dims) = (leading(x), leading(y));
    let mut start = Affine::default();
    let mut stride = x.last();
    let mut rest = row;
    // From the innermost of the leading axes outwards: peel its coordinate off the row number.
    for (i, y_dim) in y_dims.iter().rev().enumerate() {
        let Some(x_dim) = (x_dims.len() > i).then(|| x_dims[x_dims.len() - 1 - i]) else {
            break;
        };
        let outermost = i + 1 == y_dims.len()
            || y_dims[..y_dims.len() - 1 - i]
                .iter()
                .all(|d| d.as_fixed() == Some(1));
        let coordinate = if outermost || y_dim.as_fixed().is_none() {
            rest
        } else {
            let (q, r) = b.div_rem(rest, y_dim.fixed);
            rest = q;
            r
        };
        if x_dim == *y_dim {
            start = start + Affine::from(coordinate) * stride;
            match x_dim.as_fixed() {
                Some(d) => stride *= d,
                None => break,
            }
        }
        if outermost {
            break;
        }
    }
    start
}
