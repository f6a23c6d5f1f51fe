//! Ops that reduce over the last axis: a warp reduces a short row, a block a long one.

use crate::schedule::ScheduleError;
use rwkvc_backend_api::GpuFeatures;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Buf, Extent, Reg};

use super::super::rows::{self, by_token};
use super::block::{Row, block_sum, clamped, group_sum, leader, parts, where_inside};
use super::{Scheduled, Scope, Tensor, at, math};

/// The mean, then the squared distances from it. `sum` adds up over the threads that hold the row.
pub(super) fn statistics(
    b: &mut Builder,
    row: &Row,
    eps: f64,
    mut sum: impl FnMut(&mut Builder, Reg) -> Reg,
) -> math::Statistics {
    let total = row.partial_sum(b, |_, x| x);
    let total = sum(b, total);
    let inverse_n = b.float(1.0 / row.n as f32, 1);
    let mean = b.mul(total, inverse_n);
    let squares = row.partial_sum(b, |b, x| {
        let d = b.sub(x, mean);
        b.mul(d, d)
    });
    let squares = sum(b, squares);
    math::Statistics {
        mean,
        inverse: math::inverse_deviation(b, squares, row.n, eps),
    }
}

/// What a thread does with its share of a row: `(builder, row number, values, sum over the row, whether to store)`.
type Body<'f> =
    &'f mut dyn FnMut(&mut Builder, Reg, &Row, &mut dyn FnMut(&mut Builder, Reg) -> Reg, (Reg, Option<Reg>));

/// Hands out the rows of `x`, each to a warp if its elements are few, else to a block.
fn each_row(
    s: &mut Scope<'_>,
    x: Buf,
    rows: Extent,
    n: i64,
    count: i64,
    body: Body<'_>,
) -> Result<(), ScheduleError> {
    let (threads, warp) = (i64::from(s.features.threads), i64::from(s.features.warp));
    if n > threads {
        Row::check(n, threads)?;
        let sums = s.sums(count);
        s.blocks(rows, |b, row, threads| {
            let values = Row::new(b, n, (threads.t, threads.count), |b, i| {
                b.load("x", x, at(row, n) + i, 1)
            });
            let mut place = 0..;
            let mut sum = |b: &mut Builder, x| block_sum(b, sums, place.next().expect("endless"), x, threads);
            body(b, row, &values, &mut sum, (threads.t, None));
        });
        return Ok(());
    }
    let (tokens, each) = by_token(rows);
    let warps = threads / warp;
    s.blocks_of_rows(tokens, parts(each, warps), |b, token, part, threads| {
        let (row, inside) = clamped(b, part * warps + threads.warp, each, parts(each, warps) * warps);
        let row = b.address("row", token * each + row);
        let values = Row::new(b, n, (threads.lane, warp), |b, i| {
            b.load("x", x, at(row, n) + i, 1)
        });
        let mut sum = |b: &mut Builder, x| group_sum(b, x, warp);
        body(b, row, &values, &mut sum, (threads.lane, inside));
    });
    Ok(())
}

/// `layer_norm` over the last axis. Weight and bias may have several rows, which the rows of `x` take in turn.
pub(super) fn layer_norm(
    eps: f64,
    operands: &[Tensor],
    results: &[Tensor],
    features: &GpuFeatures,
) -> Result<Vec<Scheduled>, ScheduleError> {
    let n = operands[0].last();
    let mut s = Scope::new(&format!("layer_norm_{n}"), operands, results, features);
    let (x, weight, bias, y) = (
        s.read("x", 0),
        s.read("weight", 1),
        s.read("bias", 2),
        s.write("y", 0),
    );
    let body: Body<'_> = &mut |b, row, values, sum, (_, inside)| {
        let stats = statistics(b, values, eps, sum);
        let weight_start = rows::turn(b, row, &operands[1]);
        let bias_start = rows::turn(b, row, &operands[2]);
        where_inside(b, inside, |b| {
            values.for_each(b, |b, j, i| {
                let weight = b.load("weight", weight, weight_start.clone() + i, 1);
                let bias = b.load("bias", bias, bias_start.clone() + i, 1);
                let value = stats.normalise(b, values.values[j], weight, bias);
                b.store(y, at(row, n) + i, value);
            });
        });
    };
    each_row(&mut s, x, operands[0].rows(), n, 2, body)?;
    Ok(vec![s.finish()])
}

/// `x / max(‖x‖₂, eps)` over the last axis.
pub(super) fn l2_normalize(
    eps: f64,
    operands: &[Tensor],
    results: &[Tensor],
    features: &GpuFeatures,
) -> Result<Vec<Scheduled>, ScheduleError> {
    let n = operands[0].last();
    let mut s = Scope::new(&format!("l2_normalize_{n}"), operands, results, features);
    let (x, y) = (s.read("x", 0), s.write("y", 0));
    let body: Body<'_> = &mut |b, row, values, sum, (_, inside)| {
        let squares = values.partial_sum(b, |b, x| b.mul(x, x));
        let squares = sum(b, squares);
        let inverse = math::inverse_norm(b, squares, eps);
        where_inside(b, inside, |b| {
            values.for_each(b, |b, j, i| {
                let value = b.mul(values.values[j], inverse);
                b.store(y, at(row, n) + i, value);
            });
        });
    };
    each_row(&mut s, x, operands[0].rows(), n, 1, body)?;
    Ok(vec![s.finish()])
}

/// The sum over the last axis.
pub(super) fn sum(
    operands: &[Tensor],
    results: &[Tensor],
    features: &GpuFeatures,
) -> Result<Vec<Scheduled>, ScheduleError> {
    let n = operands[0].last();
    let mut s = Scope::new(&format!("sum_{n}"), operands, results, features);
    let (x, y) = (s.read("x", 0), s.write("y", 0));
    let body: Body<'_> = &mut |b, row, values, sum, (i, inside)| {
        let total = values.partial_sum(b, |_, x| x);
        let total = sum(b, total);
        where_inside(b, inside, |b| leader(b, i, |b| b.store(y, row, total)));
    };
    each_row(&mut s, x, operands[0].rows(), n, 1, body)?;
    Ok(vec![s.finish()])
}
