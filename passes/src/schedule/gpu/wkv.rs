//! The WKV-7 recurrence, alone and with everything of a head around it.
//!
//! A block has one head and walks its tokens. A group of threads holds a row `S[value][·]` of the state in registers;
//! rows do not depend on each other, so between the tokens of a chunk no thread waits for another warp. What surrounds
//! the recurrence is computed for all tokens of a chunk at once, a warp for each token.

use crate::schedule::ScheduleError;
use rwkvc_backend_api::GpuFeatures;
use rwkvc_ir::DType;
use rwkvc_ir::graph::ops::Wkv7Block;
use rwkvc_ir::kernel::builder::{Builder, transcendental};
use rwkvc_ir::kernel::{Affine, Binary, Buf, Inst, Reg, Unary};

use super::super::head::{HeadBuffers, Heads};
use super::super::rows;
use super::block::{Row, Threads, clamped, group_sum, lanes_of, leader, parts, where_inside};
use super::norm::statistics;
use super::{Scheduled, Scope, Tensor, at, math};

/// How the rows of a head's state are shared out: `rows` at once, `group` threads a row, `lanes` values at a time.
struct Rows {
    n: i64,
    group: i64,
    rows: i64,
    passes: i64,
    lanes: i64,
    /// Loads of `lanes` values that make up a thread's share of a row, if all are whole.
    loads: i64,
}

impl Rows {
    fn new(n: i64, threads: i64, warp: i64) -> Rows {
        let lanes = i64::from(lanes_of(n, 4));
        let mut group = 1;
        while group < warp && 2 * group * n <= threads && n % (2 * group * lanes) == 0 {
            group *= 2;
        }
        let rows = threads / group;
        Rows {
            n,
            group,
            rows,
            passes: parts(n, rows),
            lanes,
            loads: n / (group * lanes),
        }
    }
}

/// The vectors of the tokens of a chunk, where the recurrence finds them: `[token][channel]` from a position on.
struct Vectors {
    decay: Buf,
    k: Buf,
    v: Buf,
    /// What is removed: `sa = S a`.
    a: Buf,
    /// What is put in its place.
    b: Buf,
    r: Buf,
}

/// The rows of the state that one thread has a share of, in mutable registers.
struct Share {
    /// The group's row in each pass, and whether it is one of its own.
    values: Vec<(Reg, Option<Reg>)>,
    /// For each pass, the registers of `lanes` values.
    state: Vec<Vec<Reg>>,
    /// The number in the group.
    i: Reg,
}

impl Share {
    /// Loads the rows of the state that starts at `start`.
    fn load(b: &mut Builder, state: Buf, start: &Affine, rows: &Rows, threads: Threads) -> Share {
        let (group, i) = b.div_rem(threads.t, rows.group);
        let mut share = Share {
            values: vec![],
            state: vec![],
            i,
        };
        for pass in 0..rows.passes {
            let row = Affine::from(group) + pass * rows.rows;
            let (value, inside) = clamped(b, row, rows.n, rows.passes * rows.rows);
            let registers = (0..rows.loads)
                .map(|j| {
                    let place = start.clone() + at(value, rows.n) + share.key(rows, j);
                    let x = b.load("s", state, place, rows.lanes as u32);
                    b.var("s", x)
                })
                .collect();
            share.values.push((value, inside));
            share.state.push(registers);
        }
        share
    }

    /// The first of the keys of load `j`.
    fn key(&self, rows: &Rows, j: i64) -> Affine {
        at(self.i, rows.lanes) + j * rows.group * rows.lanes
    }

    fn store(&self, b: &mut Builder, state: Buf, start: &Affine, rows: &Rows) {
        for (&(value, inside), registers) in self.values.iter().zip(&self.state) {
            where_inside(b, inside, |b| {
                for (j, &s) in (0..).zip(registers) {
                    b.store(state, start.clone() + at(value, rows.n) + self.key(rows, j), s);
                }
            });
        }
    }

    /// One token: `S = S diag(decay) + (S a) bᵀ + v kᵀ`, then `y = S r`, whose value `store` gets with its row. The
    /// token's vectors start at `start`.
    fn step(
        &self,
        b: &mut Builder,
        x: &Vectors,
        start: &Affine,
        rows: &Rows,
        mut store: impl FnMut(&mut Builder, Reg, Reg),
    ) {
        let lanes = rows.lanes as u32;
        let vector = |b: &mut Builder, buf: Buf| -> Vec<Reg> {
            (0..rows.loads)
                .map(|j| b.load("x", buf, start.clone() + self.key(rows, j), lanes))
                .collect()
        };
        let [decay, k, a, replace, r] = [x.decay, x.k, x.a, x.b, x.r].map(|buf| vector(b, buf));
        let dot = |b: &mut Builder, s: &[Reg], x: &[Reg]| {
            let zero = b.float(0.0, lanes);
            let sum = s.iter().zip(x).fold(zero, |sum, (&s, &x)| b.fma(s, x, sum));
            let sum = b.reduce_add(sum);
            group_sum(b, sum, rows.group)
        };
        for (&(value, inside), state) in self.values.iter().zip(&self.state) {
            let sa = dot(b, state, &a);
            let sa = b.splat(sa, lanes);
            let v = b.load("v", x.v, start.clone() + value, 1);
            let v = b.splat(v, lanes);
            for (j, &s) in state.iter().enumerate() {
                let new = b.mul(v, k[j]);
                let new = b.fma(sa, replace[j], new);
                b.set(s, Inst::Fma(s, decay[j], new));
            }
            let y = dot(b, state, &r);
            where_inside(b, inside, |b| leader(b, self.i, |b| store(b, value, y)));
        }
    }
}

/// `wkv7`: the recurrence alone.
pub(super) fn wkv7(
    operands: &[Tensor],
    results: &[Tensor],
    features: &GpuFeatures,
) -> Result<Vec<Scheduled>, ScheduleError> {
    let heads = Heads::of(&operands[0], &operands[1]);
    let n = heads.n;
    let mut s = Scope::new(&format!("wkv7_{n}"), operands, results, features);
    let state = s.update("state", 0);
    let [r, decay, k, v, a, b_] =
        [("r", 1), ("w", 2), ("k", 3), ("v", 4), ("a", 5), ("b", 6)].map(|(x, i)| s.read(x, i));
    let y = s.write("y", 1);
    let x = Vectors {
        decay,
        k,
        v,
        a,
        b: b_,
        r,
    };
    let rows = Rows::new(n, i64::from(features.threads), i64::from(features.warp));
    let width = heads.count * n;
    s.blocks_of_rows(heads.states, heads.count, |b, index, head, threads| {
        let channels = head.clone() * n;
        let start = index.clone() * (width * n) + head * (n * n);
        let share = Share::load(b, state, &start, &rows, threads);
        b.serial("token", 0, heads.tokens, |b, t| {
            let at = index.clone() * width + at(t, width) + channels.clone();
            share.step(b, &x, &at, &rows, |b, value, sum| {
                b.store(y, at.clone() + value, sum)
            });
        });
        if rows.passes * rows.rows > n {
            // Threads without a row of their own have loaded the last one, which is stored now.
            b.barrier();
        }
        share.store(b, state, &start, &rows);
    });
    Ok(vec![s.finish()])
}

/// `wkv7_block`: decay, key normalisation, value residual, recurrence, group norm, bonus and gate of a head.
pub(super) fn wkv7_block(
    op: &Wkv7Block,
    operands: &[Tensor],
    results: &[Tensor],
    features: &GpuFeatures,
) -> Result<Vec<Scheduled>, ScheduleError> {
    let heads = Heads::of(&operands[0], &operands[1]);
    let (n, width) = (heads.n, heads.count * heads.n);
    Row::check(n, i64::from(features.warp))?;
    let mut s = Scope::new(&format!("wkv7_block_{n}"), operands, results, features);
    let HeadBuffers {
        state,
        r,
        w,
        k,
        v,
        a,
        g,
        k_k,
        k_a,
        r_k,
        ln_weight,
        ln_bias,
        residual,
        out,
    } = HeadBuffers::open(&mut s, op);
    // Tokens whose surroundings are computed at once: one for each warp of a block. One token needs no room for more.
    let warps = i64::from(features.threads / features.warp);
    let chunk = heads.tokens.as_fixed().map_or(warps, |tokens| tokens.min(warps));
    let room = |s: &mut Scope<'_>, name| s.b.shared(name, DType::F32, chunk * n);
    let x = Vectors {
        decay: room(&mut s, "decay"),
        k: room(&mut s, "key"),
        v: room(&mut s, "value"),
        a: room(&mut s, "remove"),
        b: room(&mut s, "replace"),
        r: room(&mut s, "receptance"),
    };
    let y = room(&mut s, "y_head");
    let bonus_of = s.b.shared("bonus", DType::F32, chunk);
    if 4 * (7 * chunk * n + chunk) > i64::from(features.shared_bytes) {
        return Err(ScheduleError::Head(n));
    }
    let rows = Rows::new(n, i64::from(features.threads), i64::from(features.warp));
    let before = |b: &mut Builder, token: &Affine, first: &Affine, place: Reg, inside, threads: Threads| {
        let here = |b: &mut Builder, buf, i| b.load("x", buf, token.clone() + i, 1);
        let weight = |b: &mut Builder, buf, i| b.load("p", buf, first.clone() + i, 1);
        let lane = (threads.lane, threads.warp_size);
        let kk = Row::new(b, n, lane, |b, i| {
            let (k, k_k) = (here(b, k, i), weight(b, k_k, i));
            b.mul(k, k_k)
        });
        let squares = kk.partial_sum(b, |b, x| b.mul(x, x));
        let squares = group_sum(b, squares, threads.warp_size);
        let inverse = math::inverse_norm(b, squares, op.norm_eps);
        let zero = b.float(0.0, 1);
        let bonus = b.var("bonus", zero);
        where_inside(b, inside, |b| {
            kk.for_each(b, |b, j, i| {
                let store = |b: &mut Builder, buf, x| b.store(buf, at(place, n) + i, x);
                let w = here(b, w, i);
                let w = transcendental::sigmoid(b, w);
                let scale = b.float(op.decay_scale as f32, 1);
                let w = b.mul(w, scale);
                let decay = transcendental::exp(b, w);
                store(b, x.decay, decay);

                let a = here(b, a, i);
                let kk = b.mul(kk.values[j], inverse);
                let replace = b.mul(kk, a);
                store(b, x.b, replace);
                let remove = b.unary(Unary::Neg, kk);
                store(b, x.a, remove);

                let one = b.float(1.0, 1);
                let (k, k_a) = (here(b, k, i), weight(b, k_a, i));
                let less = b.sub(a, one);
                let factor = b.fma(less, k_a, one);
                let k = b.mul(k, factor);
                store(b, x.k, k);

                let mut value = here(b, v, i);
                if let Some((first, gate)) = residual {
                    let (first, gate) = (here(b, first, i), here(b, gate, i));
                    let d = b.sub(first, value);
                    value = b.fma(d, gate, value);
                }
                store(b, x.v, value);

                let (r, r_k) = (here(b, r, i), weight(b, r_k, i));
                store(b, x.r, r);
                let rk = b.mul(r, k);
                b.set(bonus, Inst::Fma(rk, r_k, bonus));
            })
        });
        let bonus = group_sum(b, bonus, threads.warp_size);
        where_inside(b, inside, |b| {
            leader(b, threads.lane, |b| b.store(bonus_of, place, bonus))
        });
    };
    let after = |b: &mut Builder, token: &Affine, first: &Affine, place: Reg, inside, threads: Threads| {
        let lane = (threads.lane, threads.warp_size);
        let head = Row::new(b, n, lane, |b, i| b.load("y", y, at(place, n) + i, 1));
        let stats = statistics(b, &head, op.eps, |b, x| group_sum(b, x, threads.warp_size));
        where_inside(b, inside, |b| {
            head.for_each(b, |b, j, i| {
                let ln_weight = b.load("p", ln_weight, first.clone() + i, 1);
                let ln_bias = b.load("p", ln_bias, first.clone() + i, 1);
                let value = stats.normalise(b, head.values[j], ln_weight, ln_bias);
                let bonus = b.load("bonus", bonus_of, place, 1);
                let v = b.load("v", x.v, at(place, n) + i, 1);
                let g = b.load("g", g, token.clone() + i, 1);
                let value = b.fma(bonus, v, value);
                let value = b.mul(value, g);
                b.store(out, token.clone() + i, value);
            });
        });
    };
    s.blocks_of_rows(heads.states, heads.count, |b, index, head, threads| {
        let first = head.clone() * n;
        let start = index.clone() * (width * n) + head * (n * n);
        let share = Share::load(b, state, &start, &rows, threads);
        // The tokens of the chunk from `t` on; `count` of them, one for each of the first warps.
        let walk = |b: &mut Builder, t: Affine, count: i64| {
            let (place, inside) = clamped(b, threads.warp.into(), count, threads.warps());
            let token = index.clone() * width + (t.clone() + place) * width + first.clone();
            before(b, &token, &first, place, inside, threads);
            b.barrier();
            b.serial("token", 0, count, |b, j| {
                share.step(b, &x, &at(j, n), &rows, |b, value, sum| {
                    b.store(y, at(j, n) + value, sum)
                });
            });
            b.barrier();
            after(b, &token, &first, place, inside, threads);
        };
        match heads.tokens.as_fixed() {
            Some(1) => walk(b, Affine::default(), 1),
            _ => {
                let tokens = rows::count(b, heads.tokens);
                let size = b.index(chunk);
                let chunks = b.binary(Binary::Div, tokens, size);
                b.serial("chunk", 0, chunks, |b, c| {
                    walk(b, at(c, chunk), chunk);
                    b.barrier();
                });
                let done = b.address("done", at(chunks, chunk));
                b.serial("last", done, tokens, |b, t| {
                    walk(b, t.into(), 1);
                    b.barrier();
                });
            }
        }
        share.store(b, state, &start, &rows);
    });
    Ok(vec![s.finish()])
}
