//! Token shift, with and without its norm and mixes.
//!
//! The state holds the token before the first one. With one token a thread reads its channel of the state before it
//! writes it. With many, the blocks of the first kernel only read the state, and a second kernel leaves the last token
//! in it. In a batch, each row has a state of its own and is the only token of it.

use crate::schedule::ScheduleError;
use rwkvc_backend_api::GpuFeatures;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Buf, Extent, Inst, Reg};

use super::super::rows::{self, Time};
use super::block::{Row, Threads, block_sum, parts, within};
use super::math::Statistics;
use super::norm::statistics;
use super::{Scheduled, Scope, Tensor};

/// What a token shift makes of each element: `emit(builder, now, before, channel, position)`.
type Emit<'f> = &'f mut dyn FnMut(&mut Builder, Reg, Reg, Reg, Affine);

/// Gives each element and the one before it to `emit`, and leaves the last token in the state. `kernel` opens a kernel
/// and gives its `x`, `prev` and body.
fn shift<'a>(
    name: &str,
    operands: &'a [Tensor],
    results: &'a [Tensor],
    features: &'a GpuFeatures,
    open: impl FnOnce(&mut Scope<'a>) -> Box<dyn FnMut(&mut Builder, Reg, Reg, Reg, Affine) + 'a>,
) -> Vec<Scheduled> {
    let (n, rows) = (operands[0].last(), operands[0].rows());
    let time = Time::of(&operands[0], &operands[1]);
    let mut s = Scope::new(name, operands, results, features);
    let x = s.read("x", 0);
    let prev = if time == Time::Step {
        s.update("prev", 1)
    } else {
        s.read("prev", 1)
    };
    let mut emit = open(&mut s);
    let emit: Emit<'_> = &mut *emit;
    let threads = i64::from(features.threads);
    s.blocks_of_rows(rows, parts(n, threads), |b, row, part, threads| {
        let channel = b.address("channel", part * threads.count + threads.t);
        within(b, channel, n, threads.count, |b| {
            let position = row.clone() * n + channel;
            let now = b.load("now", x, position.clone(), 1);
            match time {
                Time::Step => {
                    let before = b.load("before", prev, position.clone(), 1);
                    emit(b, now, before, channel, position.clone());
                    b.store(prev, position, now);
                }
                Time::Sequence => {
                    let before = before(b, &row, n, |b, earlier| match earlier {
                        Some(start) => b.load("before", x, start + channel, 1),
                        None => b.load("before", prev, channel, 1),
                    });
                    emit(b, now, before, channel, position);
                }
            }
        });
    });
    let mut kernels = vec![s.finish()];
    if time == Time::Sequence {
        let mut s = Scope::new(&format!("shift_last_{n}"), operands, results, features);
        let (x, prev) = (s.read("x", 0), s.update("prev", 1));
        s.elements(Extent::fixed(n), |b, _, i| {
            let at = rows::last_row(b, rows, n) + i;
            let last = b.load("last", x, at, 1);
            b.store(prev, i, last);
        });
        kernels.push(s.finish());
    }
    kernels
}

/// A value of the token before: `load` gets where that starts, or nothing if it is in the state.
fn before(b: &mut Builder, row: &Affine, n: i64, load: impl Fn(&mut Builder, Option<Affine>) -> Reg) -> Reg {
    let zero = b.float(0.0, 1);
    let before = b.var("before", zero);
    let row_number = b.address("row", row.clone());
    let one = b.index(1);
    let first = b.less(row_number, one);
    b.if_else(
        first,
        |b| {
            let x = load(b, None);
            b.set(before, Inst::Copy(x));
        },
        |b| {
            let x = load(b, Some((row.clone() - 1) * n));
            b.set(before, Inst::Copy(x));
        },
    );
    before
}

/// `token_shift`: the token before, for each token.
pub(super) fn token_shift(operands: &[Tensor], results: &[Tensor], features: &GpuFeatures) -> Vec<Scheduled> {
    let name = format!("token_shift_{}", operands[0].last());
    shift(&name, operands, results, features, |s| {
        let y = s.write("y", 0);
        Box::new(move |b, _, before, _, position| b.store(y, position, before))
    })
}

/// `shift_mix`: token shift and all its interpolations.
pub(super) fn shift_mix(operands: &[Tensor], results: &[Tensor], features: &GpuFeatures) -> Vec<Scheduled> {
    let mixes = operands.len() - 2;
    let name = format!("shift_mix{mixes}_{}", operands[0].last());
    shift(&name, operands, results, features, |s| {
        let mix: Vec<Buf> = (0..mixes).map(|i| s.read("mix", 2 + i)).collect();
        let y: Vec<Buf> = (0..mixes).map(|i| s.write("y", i)).collect();
        Box::new(move |b, now, before, channel, position| {
            rows::interpolate(b, now, before, &mix, &y, &channel.into(), &position);
        })
    })
}

/// The statistics of the row of `x` that starts at `start`, by all threads of a block.
fn row_statistics(
    b: &mut Builder,
    x: Buf,
    start: &Affine,
    n: i64,
    eps: f64,
    (sums, first): (Buf, i64),
    threads: Threads,
) -> Statistics {
    let row = Row::new(b, n, (threads.t, threads.count), |b, i| {
        b.load("x", x, start.clone() + i, 1)
    });
    let mut place = first..;
    statistics(b, &row, eps, |b, x| {
        block_sum(b, sums, place.next().expect("endless"), x, threads)
    })
}

/// `norm_shift_mix`: layer norm, token shift and mixes. All blocks of a row compute its statistics, and each writes
/// the mixes of some channels: one block could not write them as fast.
pub(super) fn norm_shift_mix(
    eps: f64,
    operands: &[Tensor],
    results: &[Tensor],
    features: &GpuFeatures,
) -> Result<Vec<Scheduled>, ScheduleError> {
    let (n, rows) = (operands[0].last(), operands[0].rows());
    let threads = i64::from(features.threads);
    Row::check(n, threads)?;
    let mixes = operands.len() - 4;
    let time = Time::of(&operands[0], &operands[3]);
    let mut s = Scope::new(&format!("norm_shift_mix{mixes}_{n}"), operands, results, features);
    let (x, weight, bias) = (s.read("x", 0), s.read("weight", 1), s.read("bias", 2));
    let prev = if time == Time::Step {
        s.update("prev", 3)
    } else {
        s.read("prev", 3)
    };
    let mix: Vec<Buf> = (0..mixes).map(|i| s.read("mix", 4 + i)).collect();
    let y: Vec<Buf> = (0..mixes).map(|i| s.write("y", i)).collect();
    let sums = s.sums(4);
    s.blocks_of_rows(rows, parts(n, threads), |b, row, part, threads| {
        let start = row.clone() * n;
        let now_stats = row_statistics(b, x, &start, n, eps, (sums, 0), threads);
        let channel = b.address("channel", part * threads.count + threads.t);
        let normalised = |b: &mut Builder, stats: &Statistics, start: &Affine| {
            let x = b.load("x", x, start.clone() + channel, 1);
            let weight = b.load("weight", weight, channel, 1);
            let bias = b.load("bias", bias, channel, 1);
            stats.normalise(b, x, weight, bias)
        };
        let emit = |b: &mut Builder, now: Reg, before: Reg| {
            rows::interpolate(
                b,
                now,
                before,
                &mix,
                &y,
                &channel.into(),
                &(start.clone() + channel),
            );
        };
        if time == Time::Step {
            return within(b, channel, n, threads.count, |b| {
                let now = normalised(b, &now_stats, &start);
                let before = b.load("before", prev, start.clone() + channel, 1);
                emit(b, now, before);
                b.store(prev, start.clone() + channel, now);
            });
        }
        let row_number = b.address("row", row.clone());
        let one = b.index(1);
        let first = b.less(row_number, one);
        b.if_else(
            first,
            |b| {
                within(b, channel, n, threads.count, |b| {
                    let now = normalised(b, &now_stats, &start);
                    let before = b.load("before", prev, channel, 1);
                    emit(b, now, before);
                });
            },
            |b| {
                let earlier = start.clone() - n;
                let before_stats = row_statistics(b, x, &earlier, n, eps, (sums, 2), threads);
                within(b, channel, n, threads.count, |b| {
                    let now = normalised(b, &now_stats, &start);
                    let before = normalised(b, &before_stats, &earlier);
                    emit(b, now, before);
                });
            },
        );
    });
    let mut kernels = vec![s.finish()];
    if time == Time::Sequence {
        kernels.push(last_norm(eps, operands, results, features));
    }
    Ok(kernels)
}

/// Leaves the normalised last token in the state.
fn last_norm(eps: f64, operands: &[Tensor], results: &[Tensor], features: &GpuFeatures) -> Scheduled {
    let (n, rows) = (operands[0].last(), operands[0].rows());
    let mut s = Scope::new(&format!("norm_last_{n}"), operands, results, features);
    let (x, weight, bias) = (s.read("x", 0), s.read("weight", 1), s.read("bias", 2));
    let prev = s.update("prev", 3);
    let sums = s.sums(2);
    s.blocks(Extent::fixed(1), |b, _, threads| {
        let start = rows::last_row(b, rows, n);
        let row = Row::new(b, n, (threads.t, threads.count), |b, i| {
            b.load("x", x, start.clone() + i, 1)
        });
        let mut place = 0..;
        let stats = statistics(b, &row, eps, |b, x| {
            block_sum(b, sums, place.next().expect("endless"), x, threads)
        });
        row.for_each(b, |b, j, i| {
            let weight = b.load("weight", weight, i, 1);
            let bias = b.load("bias", bias, i, 1);
            let value = stats.normalise(b, row.values[j], weight, bias);
            b.store(prev, i, value);
        });
    });
    s.finish()
}
