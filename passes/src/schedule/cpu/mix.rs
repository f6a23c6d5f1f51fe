//! Moving along time: the embedding lookup, the token shift with and without its mixes, the last token.

use rwkvc_backend_api::CpuFeatures;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Binary, Buf, Extent, Inst, Reg, Unary};
use rwkvc_ir::quantized::{Format, GROUP, INT8_ZERO};

use crate::storage::Part;

use super::super::rows::{self, Time, by_token};
use super::norm::statistics;
use super::{Scheduled, Scope, Tensor, at, math};

/// Channels of one task where channels are independent.
const CHANNELS: i64 = 256;

/// Rows of the table. A task is one token.
pub(super) fn embed(operands: &[Tensor], results: &[Tensor], features: &CpuFeatures) -> Vec<Scheduled> {
    if let Some(quantize) = &operands[0].quantized {
        return embed_quantized(quantize.format, operands, results, features);
    }
    let (n, vocab) = (results[0].last(), operands[0].rows().fixed);
    let mut s = Scope::new(
        &format!("embed_{}_{n}", operands[0].dtype),
        operands,
        results,
        features,
    );
    let (table, tokens, y) = (s.read("table", 0), s.read("tokens", 1), s.write("y", 0));
    let lanes = s.lanes();
    s.b.parallel("row", results[0].rows(), |b, row| {
        let id = rows::named_by(b, tokens, row, vocab);
        math::over(b, n, lanes, |b, i, l| {
            let x = b.load("x", table, at(id, n) + i, l);
            b.store(y, at(row, n) + i, x);
        });
    });
    vec![s.finish()]
}

/// Rows of a quantised table. A task is one token.
fn embed_quantized(
    format: Format,
    operands: &[Tensor],
    results: &[Tensor],
    features: &CpuFeatures,
) -> Vec<Scheduled> {
    let group = GROUP as i64;
    let (n, vocab) = (results[0].last(), operands[0].rows().fixed);
    let mut s = Scope::new(&format!("embed_{format}_{n}"), operands, results, features);
    let codes = s.packed("codes", 0, Part::Codes, 1);
    let scales = s.packed("scales", 0, Part::Scales, 1);
    let offsets = format
        .has_offsets()
        .then(|| s.packed("offsets", 0, Part::Offsets, 1));
    let (tokens, y) = (s.read("tokens", 1), s.write("y", 0));
    let lanes = s.lanes();
    let step = i64::from(lanes);
    let bits = format.bits() as i64;
    s.b.parallel("row", results[0].rows(), |b, row| {
        let id = rows::named_by(b, tokens, row, vocab);
        b.serial("g", 0, n / group, |b, g| {
            let number = at(id, n / group) + g;
            let scale = b.load("scale", scales, number.clone(), 1);
            let offset = match offsets {
                Some(offsets) => b.load("offset", offsets, number.clone(), 1),
                None => {
                    let zero = b.float(-f32::from(INT8_ZERO), 1);
                    b.mul(scale, zero)
                }
            };
            let (scale, offset) = (b.splat(scale, lanes), b.splat(offset, lanes));
            for v in 0..group / step {
                // Bytes of half as many codes as there are in a group have two of them.
                let bytes = group * bits / 8;
                let i = v * step;
                let code = b.load("code", codes, number.clone() * bytes + i % bytes, lanes);
                let shift = b.int((i / bytes * bits) as i32, lanes);
                let mask = b.int((1 << bits) - 1, lanes);
                let code = b.binary(Binary::Shr, code, shift);
                let code = b.binary(Binary::And, code, mask);
                let code = b.unary(Unary::ToF32, code);
                let x = b.fma(code, scale, offset);
                b.store(y, at(row, n) + at(g, group) + i, x);
            }
        });
    });
    vec![s.finish()]
}

/// The rows of the last token: in a batch, the only one of each state. A task is the token of one state.
pub(super) fn last(operands: &[Tensor], results: &[Tensor], features: &CpuFeatures) -> Vec<Scheduled> {
    let (all, kept) = (operands[0].len(), results[0].len());
    let (states, n) = by_token(kept);
    let mut s = Scope::new(&format!("last_{n}"), operands, results, features);
    let (x, y) = (s.read("x", 0), s.write("y", 0));
    let lanes = s.lanes();
    let rows = Extent {
        fixed: all.fixed / n,
        per_token: all.per_token / n,
    };
    s.b.parallel("state", states, |b, state| {
        let start = match all == kept {
            true => at(state, n),
            false => rows::last_row(b, rows, n),
        };
        math::over(b, n, lanes, |b, i, l| {
            let x = b.load("x", x, start.clone() + i, l);
            b.store(y, at(state, n) + i, x);
        });
    });
    vec![s.finish()]
}

/// What a token shift makes of each element: `emit(builder, now, before, channel, position)`.
type Emit<'f> = &'f mut dyn FnMut(&mut Builder, Reg, Reg, &Affine, Affine);

/// Gives each element and the one before it to `emit`, and leaves the last token in `prev`.
fn shift(s: &mut Scope<'_>, operands: &[Tensor], (x, prev): (Buf, Buf), emit: Emit<'_>) {
    let (n, rows) = (operands[0].last(), operands[0].rows());
    match Time::of(&operands[0], &operands[1]) {
        Time::Step => shift_rows(s, x, prev, rows, n, emit),
        Time::Sequence => shift_channels(s, x, prev, rows, n, emit),
    }
}

/// A task is a row, the only token of its state.
fn shift_rows(s: &mut Scope<'_>, x: Buf, prev: Buf, rows: Extent, n: i64, emit: Emit<'_>) {
    let lanes = s.lanes();
    s.b.parallel("row", rows, |b, row| {
        math::over(b, n, lanes, |b, i, l| {
            let position = at(row, n) + i;
            let now = b.load("now", x, position.clone(), l);
            let before = b.load("before", prev, position.clone(), l);
            emit(b, now, before, &Affine::from(i), position.clone());
            b.store(prev, position, now);
        });
    });
}

/// A task is some channels of all tokens, so the old value of `prev` is read before the new one is written.
fn shift_channels(s: &mut Scope<'_>, x: Buf, prev: Buf, rows: Extent, n: i64, emit: Emit<'_>) {
    let lanes = s.lanes();
    let tasks = (n / CHANNELS).max(1);
    let mut channels = |b: &mut Builder, first: Affine, count: i64| {
        math::over(b, count, lanes, |b, i, l| {
            let channel = first.clone() + i;
            let before = b.load("before", prev, channel.clone(), l);
            let before = b.var("before", before);
            b.serial("t", 0, rows, |b, t| {
                let position = at(t, n) + channel.clone();
                let now = b.load("now", x, position.clone(), l);
                emit(b, now, before, &channel, position);
                b.set(before, Inst::Copy(now));
            });
            b.store(prev, channel, before);
        });
    };
    s.b.parallel("task", Extent::fixed(tasks), |b, task| {
        if tasks == 1 {
            return channels(b, Affine::default(), n);
        }
        channels(b, at(task, CHANNELS), CHANNELS);
        let rest = n - tasks * CHANNELS;
        if rest > 0 {
            let first = b.index(1);
            let first = b.less(task, first);
            b.if_else(
                first,
                |b| channels(b, Affine::from(tasks * CHANNELS), rest),
                |_| {},
            );
        }
    });
}

/// `token_shift`: the token before, for each token.
pub(super) fn token_shift(operands: &[Tensor], results: &[Tensor], features: &CpuFeatures) -> Vec<Scheduled> {
    let n = operands[0].last();
    let mut s = Scope::new(&format!("token_shift_{n}"), operands, results, features);
    let (x, prev, y) = (s.read("x", 0), s.update("prev", 1), s.write("y", 0));
    shift(&mut s, operands, (x, prev), &mut |b, _, before, _, position| {
        b.store(y, position, before)
    });
    vec![s.finish()]
}

/// `shift_mix`: token shift and all its interpolations.
pub(super) fn shift_mix(operands: &[Tensor], results: &[Tensor], features: &CpuFeatures) -> Vec<Scheduled> {
    let n = operands[0].last();
    let mixes = operands.len() - 2;
    let mut s = Scope::new(&format!("shift_mix{mixes}_{n}"), operands, results, features);
    let (x, prev) = (s.read("x", 0), s.update("prev", 1));
    let mix: Vec<Buf> = (0..mixes).map(|i| s.read("mix", 2 + i)).collect();
    let y: Vec<Buf> = (0..mixes).map(|i| s.write("y", i)).collect();
    shift(
        &mut s,
        operands,
        (x, prev),
        &mut |b, now, before, channel, position| {
            rows::interpolate(b, now, before, &mix, &y, channel, &position);
        },
    );
    vec![s.finish()]
}

/// `norm_shift_mix`: layer norm, token shift and mixes in one pass over the activations.
///
/// A task is one row. If all are of one state, it normalises the token before once more rather than wait for it, and a
/// second kernel leaves the last token in the state when all tasks have read it.
pub(super) fn norm_shift_mix(
    eps: f64,
    operands: &[Tensor],
    results: &[Tensor],
    features: &CpuFeatures,
) -> Vec<Scheduled> {
    let n = operands[0].last();
    let rows = operands[0].rows();
    let mixes = operands.len() - 4;
    let mut s = Scope::new(&format!("norm_shift_mix{mixes}_{n}"), operands, results, features);
    let (x, weight, bias) = (s.read("x", 0), s.read("weight", 1), s.read("bias", 2));
    let time = Time::of(&operands[0], &operands[3]);
    let prev = if time == Time::Step {
        s.update("prev", 3)
    } else {
        s.read("prev", 3)
    };
    let mix: Vec<Buf> = (0..mixes).map(|i| s.read("mix", 4 + i)).collect();
    let y: Vec<Buf> = (0..mixes).map(|i| s.write("y", i)).collect();
    let lanes = s.lanes();
    let norm_at = |b: &mut Builder, stats: &math::Statistics, position: Affine, i: Reg, l: u32| {
        let x = b.load("x", x, position, l);
        let weight = b.load("weight", weight, i, l);
        let bias = b.load("bias", bias, i, l);
        stats.normalise(b, x, weight, bias)
    };
    s.b.parallel("row", rows, |b, row| {
        let start = at(row, n);
        let now_stats = statistics(b, x, &start, n, eps, lanes);
        let from_state = |b: &mut Builder, state: Affine| {
            math::over(b, n, lanes, |b, i, l| {
                let now = norm_at(b, &now_stats, start.clone() + i, i, l);
                let before = b.load("before", prev, state.clone() + i, l);
                rows::interpolate(b, now, before, &mix, &y, &Affine::from(i), &(start.clone() + i));
                if time == Time::Step {
                    b.store(prev, state.clone() + i, now);
                }
            });
        };
        if time == Time::Step {
            return from_state(b, start.clone());
        }
        let one = b.index(1);
        let first = b.less(row, one);
        let first_token = |b: &mut Builder| from_state(b, Affine::default());
        b.if_else(first, first_token, |b| {
            let earlier = start.clone() - n;
            let before_stats = statistics(b, x, &earlier, n, eps, lanes);
            math::over(b, n, lanes, |b, i, l| {
                let now = norm_at(b, &now_stats, start.clone() + i, i, l);
                let before = norm_at(b, &before_stats, earlier.clone() + i, i, l);
                rows::interpolate(b, now, before, &mix, &y, &Affine::from(i), &(start.clone() + i));
            });
        });
    });
    let mut kernels = vec![s.finish()];
    if time == Time::Sequence {
        kernels.push(last_norm(eps, operands, results, features));
    }
    kernels
}

/// Leaves the normalised last token in the state.
fn last_norm(eps: f64, operands: &[Tensor], results: &[Tensor], features: &CpuFeatures) -> Scheduled {
    let n = operands[0].last();
    let mut s = Scope::new(&format!("norm_last_{n}"), operands, results, features);
    let (x, weight, bias) = (s.read("x", 0), s.read("weight", 1), s.read("bias", 2));
    let prev = s.update("prev", 3);
    let lanes = s.lanes();
    s.b.parallel("task", Extent::fixed(1), |b, _| {
        let start = rows::last_row(b, operands[0].rows(), n);
        let stats = statistics(b, x, &start, n, eps, lanes);
        math::over(b, n, lanes, |b, i, l| {
            let x = b.load("x", x, start.clone() + i, l);
            let weight = b.load("weight", weight, i, l);
            let bias = b.load("bias", bias, i, l);
            let value = stats.normalise(b, x, weight, bias);
            b.store(prev, i, value);
        });
    });
    s.finish()
}
