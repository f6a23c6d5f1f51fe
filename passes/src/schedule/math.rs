//! What schedules of rows share: statistics, and loops over the positions of a row.

use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Binary, Inst, Reg, Unary};

/// `1 / √(x / n + eps)`, for a sum of squares `x` of `n` values.
pub(crate) fn inverse_deviation(b: &mut Builder, x: Reg, n: i64, eps: f64) -> Reg {
    let inverse = b.float(1.0 / n as f32, 1);
    let eps = b.float(eps as f32, 1);
    let variance = b.fma(x, inverse, eps);
    let root = b.unary(Unary::Sqrt, variance);
    let one = b.float(1.0, 1);
    b.div(one, root)
}

/// `1 / max(√squares, eps)`
pub(crate) fn inverse_norm(b: &mut Builder, squares: Reg, eps: f64) -> Reg {
    let root = b.unary(Unary::Sqrt, squares);
    let eps = b.float(eps as f32, 1);
    let root = b.binary(Binary::Max, eps, root);
    let one = b.float(1.0, 1);
    b.div(one, root)
}

/// Mean and inverse deviation of a row, as scalars.
pub(crate) struct Statistics {
    pub(crate) mean: Reg,
    pub(crate) inverse: Reg,
}

impl Statistics {
    /// `(x - mean) / deviation * weight + bias`, for any lane count.
    pub(crate) fn normalise(&self, b: &mut Builder, x: Reg, weight: Reg, bias: Reg) -> Reg {
        let lanes = b.lanes(x);
        let mean = b.splat(self.mean, lanes);
        let inverse = b.splat(self.inverse, lanes);
        let d = b.sub(x, mean);
        let d = b.mul(d, inverse);
        b.fma(d, weight, bias)
    }
}

/// Adds up `term(i)` over `0..n`: `term` gets the position, the lanes and the accumulator, and gives its next value.
pub(crate) fn sum_over(
    b: &mut Builder,
    n: i64,
    lanes: u32,
    mut term: impl FnMut(&mut Builder, Reg, u32, Reg) -> Inst,
) -> Reg {
    let (wide_part, narrow_part) = (n >= i64::from(lanes), n % i64::from(lanes) != 0);
    let mut accumulator = |name, lanes| {
        let zero = b.float(0.0, lanes);
        b.var(name, zero)
    };
    let wide = wide_part.then(|| accumulator("acc", lanes));
    let narrow = narrow_part.then(|| accumulator("rest", 1));
    over(b, n, lanes, |b, i, l| {
        let acc = if l == lanes { wide.or(narrow) } else { narrow };
        let acc = acc.expect("each part has its accumulator");
        let next = term(b, i, l, acc);
        b.set(acc, next);
    });
    let wide = wide.map(|acc| b.reduce_add(acc));
    match (wide, narrow) {
        (Some(sum), Some(rest)) => b.add(sum, rest),
        (sum, rest) => sum.or(rest).expect("n is positive"),
    }
}

/// Runs `body` over `0..n`, `lanes` positions at a time and the rest one by one.
pub(crate) fn over(b: &mut Builder, n: i64, lanes: u32, mut body: impl FnMut(&mut Builder, Reg, u32)) {
    use rwkvc_ir::kernel::LoopKind::{Serial, Unrolled};
    let step = i64::from(lanes);
    let whole = n / step * step;
    if whole > 0 {
        let kind = if whole / step <= 4 { Unrolled } else { Serial };
        b.for_loop(kind, "i", 0, whole, step, |b, i| body(b, i, lanes));
    }
    if whole < n {
        b.serial("i", whole, n, |b, i| body(b, i, 1));
    }
}
