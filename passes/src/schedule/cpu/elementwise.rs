//! Ops that compute each output element from the same position of their operands, with broadcasting.

use rwkvc_backend_api::CpuFeatures;
use rwkvc_ir::kernel::{Affine, Buf, Inst, Reg};

use super::super::broadcast::row_start;
use super::{Scheduled, Scope, Tensor, math};
use rwkvc_ir::graph::ops::Emit;

/// One result from operands that broadcast to its shape. A task is one row of the result.
pub(super) fn elementwise(
    name: &str,
    function: Emit,
    operands: &[Tensor],
    results: &[Tensor],
    features: &CpuFeatures,
) -> Vec<Scheduled> {
    let y = &results[0];
    let mut s = Scope::new(name, operands, results, features);
    let xs: Vec<Buf> = (0..operands.len())
        .map(|i| s.read(["x", "y", "z"][i], i))
        .collect();
    let out = s.write("out", 0);
    let (lanes, n) = (s.lanes(), y.last());
    s.b.parallel("row", y.rows(), |b, row| {
        let starts: Vec<Affine> = operands.iter().map(|x| row_start(b, row, x, y)).collect();
        math::over(b, n, lanes, |b, i, l| {
            let values: Vec<Reg> = operands
                .iter()
                .zip(&xs)
                .zip(&starts)
                .map(|((t, &x), start)| {
                    if t.last() == 1 && n > 1 {
                        let one = b.load("x", x, start.clone(), 1);
                        b.splat(one, l)
                    } else {
                        b.load("x", x, start.clone() + i, l)
                    }
                })
                .collect();
            let value = function(b, &values);
            b.store(out, Affine::from(row) * n + i, value);
        });
    });
    vec![s.finish()]
}

/// `y_j = Σ_i x_i m_ij`, a matrix for each row. A task is one row.
pub(super) fn contract(operands: &[Tensor], results: &[Tensor], features: &CpuFeatures) -> Vec<Scheduled> {
    let (inputs, outputs) = (operands[0].last(), results[0].last());
    let mut s = Scope::new(
        &format!("contract_{inputs}x{outputs}"),
        operands,
        results,
        features,
    );
    let (x, m, y) = (s.read("x", 0), s.read("m", 1), s.write("y", 0));
    let lanes = s.lanes();
    s.b.parallel("row", results[0].rows(), |b, row| {
        math::over(b, outputs, lanes, |b, j, l| {
            let zero = b.float(0.0, l);
            let acc = b.var("acc", zero);
            b.serial("i", 0, inputs, |b, i| {
                let x = b.load("x", x, Affine::from(row) * inputs + i, 1);
                let x = b.splat(x, l);
                let at = Affine::from(row) * (inputs * outputs) + Affine::from(i) * outputs + j;
                let m = b.load("m", m, at, l);
                b.set(acc, Inst::Fma(x, m, acc));
            });
            b.store(y, Affine::from(row) * outputs + j, acc);
        });
    });
    vec![s.finish()]
}
