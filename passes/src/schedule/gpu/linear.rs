//! Products of activations with weight matrices.
//!
//! A group of threads, a warp for all but the shortest rows, reads a row of the matrix: 16 bytes a thread, neighbours
//! next to each other, and as many of these in flight as registers allow, since reading is what a step waits for.

use rwkvc_backend_api::GpuFeatures;
use rwkvc_ir::graph::ops::Member;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Binary, Extent, Inst, Reg};

use super::super::group::{self, Buffers, dispatch};
use super::super::rows;
use super::block::{clamped, group_sum, lanes_of, leader, parts, where_inside};
use super::prologue::Carried;
use super::{Scheduled, Tensor, at, matrix, skip};

/// Loads of a matrix that a thread has in flight.
const IN_FLIGHT: i64 = 8;

/// Tokens that share one reading of a row.
const TOKENS: i64 = 4;

/// `y = activation(W x + bias) * scale + residual` for each member, in one launch, for up to `most` tokens. One that `carries` takes
/// its last but one operand to the place of its last one besides; it has one row.
pub(super) fn linear_group(
    members: &[Member],
    operands: &[Tensor],
    results: &[Tensor],
    carries: bool,
    features: &GpuFeatures,
    most: i64,
) -> Vec<Scheduled> {
    if skip::is_skipping(members) {
        return skip::linear_group(members, operands, results, carries, features, most);
    }
    let rows = operands[0].rows();
    let (mut s, all) = group::open(members, operands, results, features, None, 1);
    if rows != Extent::fixed(1) && matrix::fits(&all, &s.b, features) {
        return matrix::linear_group(members, operands, results, features, most);
    }
    let carried = carries.then(|| Carried::open(&mut s, operands));
    let (threads, warp) = (i64::from(features.threads), i64::from(features.warp));
    let dots: Vec<Dot> = all
        .iter()
        .map(|m| Dot::new(m.inputs, s.b.dtype(m.w).size() as i64, warp))
        .collect();
    let per_block: Vec<i64> = dots.iter().map(|d| threads / d.group).collect();
    let tasks = all
        .iter()
        .zip(&per_block)
        .map(|(m, &rows)| parts(m.outputs, rows));
    let tasks: Vec<i64> = tasks.chain(carried.iter().map(|c| c.tasks(features))).collect();
    s.blocks(Extent::fixed(tasks.iter().sum()), |b, block, threads| {
        dispatch(b, block, &tasks, 0, 0, &|b, m, own| {
            if let (Some(carried), true) = (&carried, m == all.len()) {
                return carried.carry(b, own, threads);
            }
            let (member, dot) = (&all[m], &dots[m]);
            let (group, i) = if dot.group == threads.warp_size {
                (threads.warp, threads.lane)
            } else {
                b.div_rem(threads.t, dot.group)
            };
            let output = own * per_block[m] + group;
            let (output, inside) = clamped(b, output, member.outputs, tasks[m] * per_block[m]);
            let compute = |b: &mut Builder, first: Affine, tokens: i64| {
                let xs: Vec<Affine> = (0..tokens).map(|j| (first.clone() + j) * member.inputs).collect();
                let sums = dot.emit(b, member, &xs, at(output, member.inputs), i);
                where_inside(b, inside, |b| {
                    leader(b, i, |b| {
                        for (j, sum) in (0..).zip(sums) {
                            let position = (first.clone() + j) * member.outputs + output;
                            member.epilogue(b, Affine::from(output), position, sum);
                        }
                    });
                });
            };
            if rows == Extent::fixed(1) {
                return compute(b, Affine::default(), 1);
            }
            let n_rows = rows::count(b, rows);
            let height = b.index(TOKENS);
            let tiles = b.binary(Binary::Div, n_rows, height);
            b.serial("tile", 0, tiles, |b, tile| compute(b, at(tile, TOKENS), TOKENS));
            let done = b.address("done", at(tiles, TOKENS));
            b.serial("row", done, n_rows, |b, row| compute(b, Affine::from(row), 1));
        });
    });
    vec![s.finish()]
}

/// How a row of a matrix is read.
pub(super) struct Dot {
    inputs: i64,
    /// Elements that a thread reads at once.
    lanes: u32,
    /// Threads that read a row together.
    pub(super) group: i64,
}

impl Dot {
    pub(super) fn new(inputs: i64, element_size: i64, warp: i64) -> Dot {
        let lanes = lanes_of(inputs, element_size);
        let mut group = warp;
        while group > 1 && group * i64::from(lanes) > inputs {
            group /= 2;
        }
        Dot { inputs, lanes, group }
    }

    /// The products of the row of `w` that starts at `row` with the rows of `x` that start at `xs`, in all threads of
    /// the group, of which this is number `i`.
    pub(super) fn emit(
        &self,
        b: &mut Builder,
        m: &Buffers<'_>,
        xs: &[Affine],
        row: Affine,
        i: Reg,
    ) -> Vec<Reg> {
        let lanes = i64::from(self.lanes);
        let step = self.group * lanes;
        let zero = b.float(0.0, self.lanes);
        let sums: Vec<Reg> = xs.iter().map(|_| b.var("acc", zero)).collect();
        let add = |b: &mut Builder, k: Affine, count: i64| {
            let k = k + at(i, lanes);
            let ws: Vec<Reg> = (0..count)
                .map(|u| b.load("w", m.w, row.clone() + k.clone() + u * step, self.lanes))
                .collect();
            for (u, w) in (0..).zip(ws) {
                for (x, &sum) in xs.iter().zip(&sums) {
                    let x = b.load("x", m.x, x.clone() + k.clone() + u * step, self.lanes);
                    b.set(sum, Inst::Fma(w, x, sum));
                }
            }
        };
        let steps = self.inputs / step;
        let unroll = IN_FLIGHT.min(steps).max(1);
        let whole = steps / unroll * unroll;
        if whole > unroll {
            let kind = rwkvc_ir::kernel::LoopKind::Serial;
            b.for_loop(kind, "k", 0, whole * step, unroll * step, |b, k| {
                add(b, k.into(), unroll)
            });
        } else if whole > 0 {
            add(b, Affine::default(), whole);
        }
        if steps > whole {
            add(b, Affine::from(whole * step), steps - whole);
        }
        let rest = self.inputs - steps * step;
        if rest > 0 {
            let threads = b.index(rest / lanes);
            let has_more = b.less(i, threads);
            b.if_else(has_more, |b| add(b, Affine::from(steps * step), 1), |_| {});
        }
        sums.into_iter()
            .map(|sum| {
                let sum = b.reduce_add(sum);
                group_sum(b, sum, self.group)
            })
            .collect()
    }
}
