//! Transcendental functions, expanded into arithmetic once for all backends.

use super::Builder;
use crate::kernel::{Binary, Reg, Unary};

/// `exp(x)` to about 1e-7 relative, for any lane count.
///
/// `x = n ln 2 + r` with integral `n` and `|r| ≤ ln 2 / 2`; `exp(r)` is a polynomial of degree 7 with the
/// coefficients of the Cephes library's `expf`, and `2^n` is made from its bits. Arguments are clamped to the range
/// whose results are normal f32 numbers; a NaN stays one.
pub fn exp(b: &mut Builder, x: Reg) -> Reg {
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
pub fn sigmoid(b: &mut Builder, x: Reg) -> Reg {
    let lanes = b.lanes(x);
    let minus = b.unary(Unary::Neg, x);
    let e = exp(b, minus);
    let one = b.float(1.0, lanes);
    let d = b.add(one, e);
    b.div(one, d)
}

/// `tanh(x) = 1 - 2 / (exp(2x) + 1)`, to about 1e-7 absolute.
pub fn tanh(b: &mut Builder, x: Reg) -> Reg {
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
pub fn relu(b: &mut Builder, x: Reg) -> Reg {
    let lanes = b.lanes(x);
    let zero = b.float(0.0, lanes);
    b.binary(Binary::Max, zero, x)
}
