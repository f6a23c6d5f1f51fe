//! Ops that reduce over the last axis. A task is one row.

use rwkvc_backend_api::CpuFeatures;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Binary, Buf, Inst};

use super::super::rows;
use super::{Scheduled, Scope, Tensor, math};

/// Two passes over `n` elements from `start` on: the mean, then the squared distances from it.
pub(super) fn statistics(
    b: &mut Builder,
    x: Buf,
    start: &Affine,
    n: i64,
    eps: f64,
    lanes: u32,
) -> math::Statistics {
    let sum = math::sum_over(b, n, lanes, |b, i, l, acc| {
        let x = b.load("x", x, start.clone() + i, l);
        Inst::Binary(Binary::Add, x, acc)
    });
    let inverse_n = b.float(1.0 / n as f32, 1);
    let mean = b.mul(sum, inverse_n);
    let squares = math::sum_over(b, n, lanes, |b, i, l, acc| {
        let x = b.load("x", x, start.clone() + i, l);
        let mean = b.splat(mean, l);
        let d = b.sub(x, mean);
        Inst::Fma(d, d, acc)
    });
    math::Statistics {
        mean,
        inverse: math::inverse_deviation(b, squares, n, eps),
    }
}

/// `layer_norm` over the last axis. Weight and bias may have several rows, which the rows of `x` take in turn.
pub(super) fn layer_norm(
    eps: f64,
    operands: &[Tensor],
    results: &[Tensor],
    features: &CpuFeatures,
) -> Vec<Scheduled> {
    let n = operands[0].last();
    let mut s = Scope::new(&format!("layer_norm_{n}"), operands, results, features);
    let (x, weight, bias, y) = (
        s.read("x", 0),
        s.read("weight", 1),
        s.read("bias", 2),
        s.write("y", 0),
    );
    let lanes = s.lanes();
    s.b.parallel("row", operands[0].rows(), |b, row| {
        let start = Affine::from(row) * n;
        let stats = statistics(b, x, &start, n, eps, lanes);
        let weight_start = rows::turn(b, row, &operands[1]);
        let bias_start = rows::turn(b, row, &operands[2]);
        math::over(b, n, lanes, |b, i, l| {
            let x = b.load("x", x, start.clone() + i, l);
            let weight = b.load("weight", weight, weight_start.clone() + i, l);
            let bias = b.load("bias", bias, bias_start.clone() + i, l);
            let value = stats.normalise(b, x, weight, bias);
            b.store(y, start.clone() + i, value);
        });
    });
    vec![s.finish()]
}

/// `x / max(‖x‖₂, eps)` over the last axis.
pub(super) fn l2_normalize(
    eps: f64,
    operands: &[Tensor],
    results: &[Tensor],
    features: &CpuFeatures,
) -> Vec<Scheduled> {
    let n = operands[0].last();
    let mut s = Scope::new(&format!("l2_normalize_{n}"), operands, results, features);
    let (x, y) = (s.read("x", 0), s.write("y", 0));
    let lanes = s.lanes();
    s.b.parallel("row", operands[0].rows(), |b, row| {
        let start = Affine::from(row) * n;
        let squares = math::sum_over(b, n, lanes, |b, i, l, acc| {
            let x = b.load("x", x, start.clone() + i, l);
            Inst::Fma(x, x, acc)
        });
        let inverse = math::inverse_norm(b, squares, eps);
        math::over(b, n, lanes, |b, i, l| {
            let x = b.load("x", x, start.clone() + i, l);
            let inverse = b.splat(inverse, l);
            let value = b.mul(x, inverse);
            b.store(y, start.clone() + i, value);
        });
    });
    vec![s.finish()]
}

/// The sum over the last axis.
pub(super) fn sum(operands: &[Tensor], results: &[Tensor], features: &CpuFeatures) -> Vec<Scheduled> {
    let n = operands[0].last();
    let mut s = Scope::new(&format!("sum_{n}"), operands, results, features);
    let (x, y) = (s.read("x", 0), s.write("y", 0));
    let lanes = s.lanes();
    s.b.parallel("row", operands[0].rows(), |b, row| {
        let total = math::sum_over(b, n, lanes, |b, i, l, acc| {
            let x = b.load("x", x, Affine::from(row) * n + i, l);
            Inst::Binary(Binary::Add, x, acc)
        });
        b.store(y, row, total);
    });
    vec![s.finish()]
}
