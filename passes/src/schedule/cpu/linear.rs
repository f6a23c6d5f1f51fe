//! Products of activations with weight matrices, and everything that rides along in their epilogue.
//!
//! Decode reads every weight once, so it is bound by memory: a task reads four rows a quarter of the matrix apart,
//! four concurrent streams, each prefetched a few lines ahead. Prefill computes tiles of tokens × outputs whose
//! accumulators stay in registers.
//!
//! Dot products end as scalars. Where an expensive function follows, a task computes enough of them to apply it to whole
//! vectors.

mod dot;
mod packed;
mod panels;
mod skip;

use rwkvc_ir::graph::ops::Member;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Binary, Buf, Extent};

use dot::Dot;
use packed::Packed;

use super::super::group::{self, Buffers, dispatch};
use super::super::rows;
use super::{Scheduled, Scope, Tensor, at, math};
use rwkvc_backend_api::CpuFeatures;

/// `y = activation(W x + bias) * scale + residual` for each member, in one launch.
pub(super) fn linear_group(
    members: &[Member],
    operands: &[Tensor],
    results: &[Tensor],
    features: &CpuFeatures,
) -> Vec<Scheduled> {
    let rows = operands[0].rows();
    if let [Member { skip_zeros: true, .. }] = members {
        return match rows == Extent::fixed(1) {
            true => skip::one_token(members, operands, results, features),
            false => panels::many_tokens(members, operands, results, features),
        };
    }
    let (mut s, all) = group::open(
        members,
        operands,
        results,
        features,
        None,
        i64::from(features.f32_lanes),
    );
    if rows == Extent::fixed(1) {
        decode(&mut s, &all)
    } else {
        prefill(&mut s, &all, rows)
    }
    vec![s.finish()]
}

/// Blocks of `block` outputs, the last perhaps not full.
fn n_blocks(outputs: i64, block: i64) -> i64 {
    (outputs + block - 1) / block
}

/// Gives a task its part of `0..outputs` in blocks: `body(builder, first, count)`. The last task of a member may have a
/// block that is not full.
fn in_blocks(
    b: &mut Builder,
    own: Affine,
    outputs: i64,
    block: i64,
    body: &dyn Fn(&mut Builder, Affine, i64),
) {
    let (full, rest) = (outputs / block, outputs % block);
    match (full, rest) {
        (0, _) => body(b, Affine::from(0), rest),
        (_, 0) => body(b, own * block, block),
        _ => {
            let own = b.address("block", own);
            let end = b.index(full);
            let whole = b.less(own, end);
            b.if_else(
                whole,
                |b| body(b, at(own, block), block),
                |b| body(b, Affine::from(full * block), rest),
            );
        }
    }
}

/// Rows that a decode task reads at once.
const STREAMS: i64 = 4;

/// One token. A task is four far rows of one member's matrix, or as many near rows as there are lanes if a vector
/// function follows: such matrices are the small, low-rank ones.
fn decode(s: &mut Scope<'_>, members: &[Buffers<'_>]) {
    let lanes = s.lanes();
    let unroll = if lanes >= 8 || s.features.vector_registers >= 32 {
        2
    } else {
        1
    };
    let prefetch = s.features.prefetch;
    let near = Tile {
        rows: 1,
        outputs: STREAMS,
        lanes,
        unroll,
        prefetch,
    };
    let near_block = i64::from(lanes).max(STREAMS);
    let block = |m: &Buffers<'_>| if m.is_curved() { near_block } else { STREAMS };
    let packed: Vec<Option<Packed<'_>>> = members.iter().map(|m| Packed::of(m, s.features)).collect();
    let tasks: Vec<i64> = members
        .iter()
        .zip(&packed)
        .map(|(m, p)| {
            p.as_ref()
                .map_or_else(|| n_blocks(m.outputs, block(m)), Packed::tasks)
        })
        .collect();
    let sums = s.b.private("sums", near_block.max(packed::sums(&packed)));
    s.b.parallel("task", Extent::fixed(tasks.iter().sum()), |b, task| {
        dispatch(b, task, &tasks, 0, 0, &|b, m, own| {
            if let Some(p) = &packed[m] {
                return p.tile(b, &own, &Affine::from(0), 1, sums);
            }
            let m = &members[m];
            if m.is_curved() {
                return in_blocks(b, own, m.outputs, near_block, &|b, first, outputs| {
                    m.tiles(b, sums, Affine::from(0), first, outputs, near);
                });
            }
            let quarter = m.outputs / STREAMS;
            in_blocks(b, own.clone(), m.outputs, STREAMS, &|b, first, outputs| {
                let far = (0..outputs).map(|i| {
                    if outputs == STREAMS {
                        own.clone() + i * quarter
                    } else {
                        first.clone() + i
                    }
                });
                let rows: Vec<Affine> = far.collect();
                let starts: Vec<Affine> = rows.iter().map(|r| r.clone() * m.inputs).collect();
                let dot = Dot {
                    x: m.x,
                    w: m.w,
                    n: m.inputs,
                    lanes,
                    unroll,
                    prefetch,
                };
                let sums = dot.emit(b, &[Affine::from(0)], &starts);
                for (row, sum) in rows.into_iter().zip(&sums[0]) {
                    m.epilogue(b, row.clone(), row, *sum);
                }
            });
        });
    });
}

/// How much a thread computes in registers at once.
#[derive(Clone, Copy)]
struct Tile {
    /// Tokens.
    rows: i64,
    /// Outputs for each token.
    outputs: i64,
    /// Products that are added lane by lane.
    lanes: u32,
    /// Independent accumulators for each output of each token.
    unroll: i64,
    /// Whether the weights come from memory rather than from a cache.
    prefetch: bool,
}

/// Tiles of outputs that a prefill task computes for all tokens: as many as make whole vectors of outputs.
const TILES_A_TASK: i64 = 8;

/// Many tokens: a task is a few tiles of one member's outputs, for all tokens.
fn prefill(s: &mut Scope<'_>, members: &[Buffers<'_>], n_rows: Extent) {
    // Accumulators, one x vector a token and a converted weight vector share the registers.
    let (rows, outputs) = if s.features.vector_registers >= 32 {
        (4, 6)
    } else {
        (4, 2)
    };
    let tile = Tile {
        rows,
        outputs,
        lanes: s.lanes(),
        unroll: 1,
        prefetch: false,
    };
    let block = tile.outputs * TILES_A_TASK;
    let packed: Vec<Option<Packed<'_>>> = members.iter().map(|m| Packed::of(m, s.features)).collect();
    let tasks: Vec<i64> = members
        .iter()
        .zip(&packed)
        .map(|(m, p)| {
            p.as_ref()
                .map_or_else(|| n_blocks(m.outputs, block), Packed::tasks)
        })
        .collect();
    let sums =
        s.b.private("sums", (tile.rows * block).max(packed::sums(&packed)));
    s.b.parallel("task", Extent::fixed(tasks.iter().sum()), |b, task| {
        let n_rows = rows::count(b, n_rows);
        let height = b.index(tile.rows);
        let row_tiles = b.binary(Binary::Div, n_rows, height);
        dispatch(b, task, &tasks, 0, 0, &|b, m, own| {
            if let Some(p) = &packed[m] {
                return packed::many(b, p, &own, (n_rows, sums));
            }
            let m = &members[m];
            in_blocks(b, own, m.outputs, block, &|b, first, outputs| {
                b.serial("tile", 0, row_tiles, |b, t| {
                    m.tiles(b, sums, at(t, tile.rows), first.clone(), outputs, tile);
                });
                let done = b.address("done", at(row_tiles, tile.rows));
                b.serial("row", done, n_rows, |b, t| {
                    let one = Tile { rows: 1, ..tile };
                    m.tiles(b, sums, Affine::from(t), first.clone(), outputs, one);
                });
            });
        });
    });
}

/// A member as a thread computes it.
trait Tiles {
    fn tiles(&self, b: &mut Builder, sums: Buf, row: Affine, first: Affine, outputs: i64, size: Tile);
}

impl Tiles for Buffers<'_> {
    /// The tokens of a tile from `row` on × `outputs` outputs from `first` on: tile after tile into `sums`, then the
    /// epilogue on whole vectors.
    fn tiles(&self, b: &mut Builder, sums: Buf, row: Affine, first: Affine, outputs: i64, size: Tile) {
        let row_at = |i: i64, n: i64| (row.clone() + i) * n;
        let tile = |b: &mut Builder, column: Affine, width: i64| {
            let xs: Vec<Affine> = (0..size.rows).map(|i| row_at(i, self.inputs)).collect();
            let output = first.clone() + column.clone();
            let ws: Vec<Affine> = (0..width).map(|j| (output.clone() + j) * self.inputs).collect();
            let dot = Dot {
                x: self.x,
                w: self.w,
                n: self.inputs,
                lanes: size.lanes,
                unroll: size.unroll,
                prefetch: size.prefetch,
            };
            for (i, row) in (0..).zip(dot.emit(b, &xs, &ws)) {
                for (j, sum) in (0..).zip(row) {
                    b.store(sums, column.clone() + (i * outputs + j), sum);
                }
            }
        };
        let (whole, width) = (outputs / size.outputs, size.outputs);
        if whole > 0 {
            b.serial("column", 0, whole, |b, c| tile(b, at(c, width), width));
        }
        if outputs % width > 0 {
            tile(b, Affine::from(whole * width), outputs % width);
        }
        for i in 0..size.rows {
            math::over(b, outputs, size.lanes, |b, j, lanes| {
                let sum = b.load("sum", sums, Affine::from(j) + i * outputs, lanes);
                let channel = first.clone() + j;
                self.epilogue(b, channel.clone(), row_at(i, self.outputs) + channel, sum);
            });
        }
    }
}
