//! Where the elements of an operand are that is smaller than the result: shapes broadcast as in NumPy.

use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Reg};

use super::Tensor;

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
