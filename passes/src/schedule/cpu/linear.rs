//! Products of activations with weight matrices, and everything that rides along in their epilogue.
//!
//! Decode reads every weight once, so it is bound by memory: a task reads a few rows (four, if nothing was measured) equal
//! parts of the matrix apart, as many concurrent streams, each prefetched a few lines ahead. Products with several tokens, of
//! one state or of a batch, are computed in tiles of tokens × outputs whose accumulators stay in registers. Few tokens are bound by memory still:
//! their tiles have all of them, so that each weight is read and converted once.
//!
//! For one token dot products end as scalars. Where an expensive function follows, and for many tokens, a task computes
//! enough of them to add up their lanes together and to apply what follows to whole vectors.

mod dot;
mod packed;
mod panels;
mod skip;
mod tiles;
mod transposed;

use rwkvc_ir::graph::ops::Member;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Binary, Buf, Extent, Inst, LoopKind, Reg};

use dot::Dot;
use packed::Packed;
use tiles::Tiles;
use transposed::Rows;

use super::super::group::{self, Buffers, dispatch};
use super::super::rows;
use super::{Scheduled, Scope, Tensor, at, math};
use rwkvc_backend_api::{CpuFeatures, Tuning, tuning};

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
        many_tokens(&mut s, &all, rows)
    }
    vec![s.finish()]
}

/// Blocks of `block` outputs, the last perhaps not full.
fn n_blocks(outputs: i64, block: i64) -> i64 {
    (outputs + block - 1) / block
}

/// Tasks of each member: blocks of its outputs, or what its codes say.
fn tasks(
    members: &[Buffers<'_>],
    packed: &[Option<Packed<'_>>],
    block: impl Fn(&Buffers<'_>) -> i64,
) -> Vec<i64> {
    let of = |(m, packed): (&Buffers<'_>, &Option<Packed<'_>>)| match packed {
        Some(packed) => packed.tasks(),
        None => n_blocks(m.outputs, block(m)),
    };
    members.iter().zip(packed).map(of).collect()
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

/// Bytes of a cache line.
const LINE: i64 = 64;

/// One token. A task is a few row streams of one member's matrix, or as many near rows as there are lanes if a vector
/// function follows: such matrices are the small, low-rank ones.
fn decode(s: &mut Scope<'_>, members: &[Buffers<'_>]) {
    let lanes = s.lanes();
    let Tuning {
        streams,
        prefetch_bytes,
        sums: unroll,
        ..
    } = s.features.tuning;
    let ahead = |b: &Builder, w: Buf| prefetch_bytes / b.dtype(w).size() as i64;
    let is_prefetched = s.features.prefetch && prefetch_bytes > 0;
    let near = Tile {
        rows: 1,
        outputs: streams,
        lanes,
        unroll,
        ahead: None,
    };
    let near_block = i64::from(lanes).max(streams);
    let block = |m: &Buffers<'_>| if m.is_curved() { near_block } else { streams };
    let packed: Vec<Option<Packed<'_>>> = members.iter().map(|m| Packed::of(m, s.features)).collect();
    let tasks = tasks(members, &packed, |m| block(m));
    let sums = s.b.private("sums", near.sums().max(packed::sums(&packed)));
    s.b.parallel("task", Extent::fixed(tasks.iter().sum()), |b, task| {
        dispatch(b, task, &tasks, 0, 0, &|b, m, own| {
            if let Some(p) = &packed[m] {
                return p.tile(b, &own, &Affine::from(0), 1, sums);
            }
            let m = &members[m];
            let ahead = is_prefetched.then(|| ahead(b, m.w));
            if m.is_curved() {
                let near = Tile { ahead, ..near };
                return in_blocks(b, own, m.outputs, near_block, &|b, first, outputs| {
                    m.tiles(b, sums, Affine::from(0), (first, outputs), near);
                });
            }
            let part = m.outputs / streams;
            in_blocks(b, own.clone(), m.outputs, streams, &|b, first, outputs| {
                let far = (0..outputs).map(|i| {
                    if outputs == streams {
                        own.clone() + i * part
                    } else {
                        first.clone() + i
                    }
                });
                let rows: Vec<Affine> = far.collect();
                let starts: Vec<Affine> = rows.iter().map(|r| r.clone() * m.inputs).collect();
                let dot = m.dot(Tile { ahead, ..near });
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
    /// How many weights ahead lines are asked for, if the weights come from memory rather than from a cache.
    ahead: Option<i64>,
}

impl Tile {
    /// Room for the lanes of the sums of a vector of outputs.
    fn sums(&self) -> i64 {
        self.rows * i64::from(self.lanes) * i64::from(self.lanes)
    }
}

/// Tokens up to which a product is bound by reading the matrix.
const FEW_TOKENS: i64 = 16;

/// The shape of tiles for few tokens: as many of them as can be with the registers there are, since each weight costs more than
/// an input.
fn tall(features: &CpuFeatures) -> Tile {
    let tuning::Tile { rows, outputs } = features.tuning.tall;
    Tile {
        rows,
        outputs,
        lanes: features.f32_lanes,
        unroll: 1,
        ahead: None,
    }
}

/// Many tokens: a task is some outputs of one member, for all tokens.
fn many_tokens(s: &mut Scope<'_>, members: &[Buffers<'_>], n_rows: Extent) {
    let features = s.features;
    let tall = tall(features);
    let packed: Vec<Option<Packed<'_>>> = members.iter().map(|m| Packed::of(m, features)).collect();
    let part = |m: &Buffers<'_>| tiles::part_of(m.outputs, features);
    let tasks = tasks(members, &packed, part);
    let widest = members.iter().map(part).max().unwrap_or_default();
    let [panel, waiting] = tiles::room(widest);
    let (panel, waiting) = (s.b.private("panel", panel), s.b.private("waiting", waiting));
    let sums = s.b.private("sums", tall.sums().max(packed::sums(&packed)));
    s.b.parallel("task", Extent::fixed(tasks.iter().sum()), |b, task| {
        let n_rows = rows::count(b, n_rows);
        dispatch(b, task, &tasks, 0, 0, &|b, m, own| {
            if let Some(p) = &packed[m] {
                return packed::many(b, p, &own, (n_rows, sums));
            }
            let m = &members[m];
            // The next tile's weights, which lie behind this one's.
            let ahead = features.prefetch.then_some(tall.outputs * m.inputs);
            in_blocks(b, own, m.outputs, part(m), &|b, first, outputs| {
                let few = b.index(FEW_TOKENS + 1);
                let is_few = b.less(n_rows, few);
                let few = |b: &mut Builder| {
                    let start = b.index(0);
                    in_tiles(b, start, n_rows, tall.rows, &|b, row, rows| {
                        let tile = Tile { rows, ahead, ..tall };
                        m.tiles(b, sums, row, (first.clone(), outputs), tile);
                    });
                };
                let many = |b: &mut Builder| {
                    let lanes = i64::from(features.f32_lanes);
                    let part = (outputs + lanes - 1) / lanes * lanes;
                    let rows = Rows {
                        m,
                        first: first.clone(),
                        outputs,
                        part,
                        lanes: features.f32_lanes,
                    };
                    let tiles = Tiles {
                        m,
                        part,
                        lanes: features.f32_lanes,
                        most_sums: tiles::most_sums(features),
                        prefetch: features.prefetch,
                        panel,
                        sums: waiting,
                    };
                    tiles.run(b, &rows, n_rows, &|b, from, token| {
                        math::over(b, outputs, features.f32_lanes, |b, i, lanes| {
                            let sum = b.load("sum", waiting, from.clone() + i, lanes);
                            let channel = first.clone() + i;
                            m.epilogue(b, channel.clone(), token.clone() * m.outputs + channel, sum);
                        });
                    });
                };
                b.if_else(is_few, few, many);
            });
        });
    });
}

/// What is left over of tiles is computed at once if it is less than so many tokens: each height is code of its own.
const AT_ONCE: i64 = 4;

/// Runs `body(builder, first, count)` over `start..end`: `most` at a time, then half as many, and the last few at once, so that
/// few make as much of each weight as they can.
fn in_tiles(b: &mut Builder, start: Reg, end: Reg, most: i64, body: &dyn Fn(&mut Builder, Affine, i64)) {
    let left = b.inst("left", Inst::Binary(Binary::Sub, end, start));
    let height = b.index(most);
    let whole = b.binary(Binary::Div, left, height);
    let whole_end = b.address("whole_end", Affine::from(start) + at(whole, most));
    let last = b.address("last", Affine::from(end) - (most - 1));
    b.for_loop(LoopKind::Serial, "row", start, last, most, |b, row| {
        body(b, row.into(), most);
    });
    match most > AT_ONCE {
        true => in_tiles(b, whole_end, end, most / 2, body),
        false => rest(b, whole_end, end, (1, most), body),
    }
}

/// Runs `body` at once for `start..end`, which are from `count` to `most - 1`, or none.
fn rest(
    b: &mut Builder,
    start: Reg,
    end: Reg,
    (count, most): (i64, i64),
    body: &dyn Fn(&mut Builder, Affine, i64),
) {
    if count == most {
        return;
    }
    let run = |b: &mut Builder| {
        let last = b.address("last", Affine::from(end) - (count - 1));
        b.for_loop(LoopKind::Serial, "row", start, last, count, |b, row| {
            body(b, row.into(), count);
        });
    };
    if count + 1 == most {
        return run(b);
    }
    let next = b.address("next", Affine::from(start) + (count + 1));
    let is_last = b.less(end, next);
    b.if_else(is_last, run, |b| rest(b, start, end, (count + 1, most), body));
}

/// A member as a thread computes it.
trait Tiled {
    fn dot(&self, size: Tile) -> Dot;

    fn tiles(&self, b: &mut Builder, sums: Buf, row: Affine, outputs: (Affine, i64), size: Tile);
}

impl Tiled for Buffers<'_> {
    fn dot(&self, size: Tile) -> Dot {
        Dot {
            x: self.x,
            w: self.w,
            n: self.inputs,
            lanes: size.lanes,
            unroll: size.unroll,
            prefetch: size.ahead,
        }
    }

    /// The tokens of a tile from `row` on × some outputs from the first on, as many at once as make a vector: tile after
    /// tile into `sums`, whose lanes are then added up, and the epilogue.
    fn tiles(&self, b: &mut Builder, sums: Buf, row: Affine, (first, outputs): (Affine, i64), size: Tile) {
        let lanes = i64::from(size.lanes);
        let group = |b: &mut Builder, start: Affine, count: i64| {
            let width = self.dot(size).width();
            let place = |i: i64, j: Affine| (j + i * count) * i64::from(width);
            let tile = |b: &mut Builder, column: Affine, n: i64| {
                let xs: Vec<Affine> = (0..size.rows).map(|i| (row.clone() + i) * self.inputs).collect();
                let weights = first.clone() + start.clone() + column.clone();
                let ws: Vec<Affine> = (0..n).map(|j| (weights.clone() + j) * self.inputs).collect();
                let place = |i: i64, j: i64| place(i, column.clone() + j);
                self.dot(size).leave(b, &xs, &ws, (sums, &place));
            };
            let (whole, n) = (count / size.outputs, size.outputs);
            if whole > 0 {
                b.serial("column", 0, whole, |b, c| tile(b, at(c, n), n));
            }
            if count % n > 0 {
                tile(b, Affine::from(whole * n), count % n);
            }
            b.serial("row", 0, size.rows, |b, i| {
                math::over(b, count, size.lanes, |b, j, l| {
                    let from = at(i, count * i64::from(width)) + at(j, i64::from(width));
                    let all = (0..i64::from(l))
                        .map(|k| b.load("sum", sums, from.clone() + k * i64::from(width), width))
                        .collect();
                    let sum = b.sums(all);
                    let channel = first.clone() + start.clone() + j;
                    let position = (row.clone() + i) * self.outputs + channel.clone();
                    self.epilogue(b, channel, position, sum);
                });
            });
        };
        let (whole, rest) = (outputs / lanes, outputs % lanes);
        if whole > 0 {
            b.serial("group", 0, whole, |b, g| group(b, at(g, lanes), lanes));
        }
        if rest > 0 {
            group(b, Affine::from(whole * lanes), rest);
        }
    }
}
