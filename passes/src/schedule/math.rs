//! Functions that no machine has as one instruction, expanded once for all backends.

use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Binary, Inst, Reg, Unary};

/// `exp(x)` to about 1e-7 relative, for any lane count.
///
/// `x = n ln 2 + r` with integral `n` and `|r| ≤ ln 2 / 2`; `exp(r)` is a polynomial of degree 7 with the
/// coefficients of the Cephes library's `expf`, and `2^n` is made from its bits. Arguments are clamped to the range
/// whose results are normal f32 numbers; a NaN stays one.
pub(crate) fn exp(b: &mut Builder, x: Reg) -> Reg {
    let lanes = b.lanes(x);
    let constant = |b: &mut Builder, v: f32| b.float(v, lanes);
    let low = constant(b, -87.336_54);
    let high = constant(b, 88.02);
    // The constant comes first: a comparison with NaN is false and picks the second operand.
    let x = b.binary(Binary::Max, low, x);
    let x = b.binary(Binary::Min, high, x);
    let log2_e = constant(b, std::f32::consts::LOG2_E);
    let n = b.mul(x, log2_e);
    let n = b.unary(Unary::Round, n);
    // ln 2 in two parts, so that n * ln2_high is exact.
    let minus_ln2_high = constant(b, -0.693_359_4);
    let minus_ln2_low = constant(b, 2.121_944_4e-4);
    let r = b.fma(n, minus_ln2_high, x);
    let r = b.fma(n, minus_ln2_low, r);
    let mut p = constant(b, 1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
        let c = constant(b, c);
        p = b.fma(p, r, c);
    }
    let one = constant(b, 1.0);
    let r2 = b.mul(r, r);
    let p = b.fma(p, r2, r);
    let p = b.add(p, one);
    let bias = b.int(127, lanes);
    let shift = b.int(23, lanes);
    let n = b.unary(Unary::ToI32, n);
    let n = b.add(n, bias);
    let n = b.binary(Binary::Shl, n, shift);
    let scale = b.unary(Unary::FromBits, n);
    b.mul(p, scale)
}

/// `1 / (1 + exp(-x))`
pub(crate) fn sigmoid(b: &mut Builder, x: Reg) -> Reg {
    let lanes = b.lanes(x);
    let minus = b.unary(Unary::Neg, x);
    let e = exp(b, minus);
    let one = b.float(1.0, lanes);
    let d = b.add(one, e);
    b.div(one, d)
}

/// `tanh(x) = 1 - 2 / (exp(2x) + 1)`, to about 1e-7 absolute.
pub(crate) fn tanh(b: &mut Builder, x: Reg) -> Reg {
    let lanes = b.lanes(x);
    let twice = b.add(x, x);
    let e = exp(b, twice);
    let one = b.float(1.0, lanes);
    let d = b.add(e, one);
    let minus_two = b.float(-2.0, lanes);
    let q = b.div(minus_two, d);
    b.add(one, q)
}

/// `max(x, 0)`; a NaN stays one.
pub(crate) fn relu(b: &mut Builder, x: Reg) -> Reg {
    let lanes = b.lanes(x);
    let zero = b.float(0.0, lanes);
    b.binary(Binary::Max, zero, x)
}

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
