//! Ops that compute each output element from the same position of their operands, with broadcasting.

use rwkvc_backend_api::CpuFeatures;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Buf, Inst, Reg};

use super::{Scheduled, Scope, Tensor, math};

/// What is computed of the operands.
pub(super) type Function<'f> = &'f dyn Fn(&mut Builder, &[Reg]) -> Reg;

/// One result from operands that broadcast to its shape. A task is one row of the result.
pub(super) fn elementwise(
    name: &str,
    function: Function<'_>,
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

/// Where the row of `x` starts that is broadcast to row `row` of `y`.
fn row_start(b: &mut Builder, row: Reg, x: &Tensor, y: &Tensor) -> Affine {
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
