//! Products of many tokens, bound by arithmetic.
//!
//! A task has some outputs, in vector lanes, so nothing is added up across lanes. It leaves some inputs of their weights as f32
//! in the nearest cache, and multiplies them with tiles of tokens, whose sums are in registers meanwhile and wait in the second
//! cache for the next inputs.

use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Binary, Buf, Inst, LoopKind, Reg};

use super::super::super::group::Buffers;
use super::super::at;
use super::in_tiles;
use rwkvc_backend_api::CpuFeatures;

/// Inputs whose weights are kept near.
pub(super) const DEPTH: i64 = 128;

/// Tokens whose sums wait in the second cache.
const BLOCK: i64 = 256;

/// Tokens of a tile, at most.
const HEIGHT: i64 = 12;

/// Outputs of a task, at most: with a tile of tokens as many sums as there are registers for.
pub(super) fn part_of(outputs: i64, features: &CpuFeatures) -> i64 {
    let lanes = i64::from(features.f32_lanes);
    (lanes * features.tuning.square.outputs).min((outputs + lanes - 1) / lanes * lanes)
}

/// Registers of sums of a tile.
pub(super) fn most_sums(features: &CpuFeatures) -> i64 {
    features.tuning.square.rows * features.tuning.square.outputs
}

/// Where the weights of a task come from.
pub(super) trait Weights {
    /// Leaves the weights of `depth` inputs from `k` on as f32 in `panel`: all outputs of an input side by side.
    fn spread(&self, b: &mut Builder, panel: Buf, k: Reg, depth: Reg);

    /// Asks for some of the weights that [`Self::spread`] reads after those from `k` on: all of them after as many calls with
    /// numbers from 0 on as this returns.
    fn ask(&self, b: &mut Builder, k: Reg, number: Affine);

    /// How many calls ask for all.
    fn calls(&self) -> i64;
}

/// The outputs of a task for all tokens.
pub(super) struct Tiles<'m, 'b> {
    pub(super) m: &'m Buffers<'b>,
    /// Outputs of the task, in whole vectors.
    pub(super) part: i64,
    pub(super) lanes: u32,
    /// Registers of sums of a tile.
    pub(super) most_sums: i64,
    pub(super) prefetch: bool,
    /// The weights near by, [`DEPTH`] × part.
    pub(super) panel: Buf,
    /// The sums of a block of tokens.
    pub(super) sums: Buf,
}

/// Room for [`Tiles::panel`] and [`Tiles::sums`].
pub(super) fn room(part: i64) -> [i64; 2] {
    [DEPTH * part, BLOCK * part]
}

/// Some tokens of a block, and some inputs.
struct Tile {
    block: Reg,
    token: Affine,
    height: i64,
    k: Reg,
    depth: Reg,
}

impl Tiles<'_, '_> {
    fn vectors(&self) -> i64 {
        self.part / i64::from(self.lanes)
    }

    /// Adds up all products; `finish(builder, position of the sums, token)` then takes those of each token.
    pub(super) fn run(
        &self,
        b: &mut Builder,
        weights: &impl Weights,
        tokens: Reg,
        finish: &dyn Fn(&mut Builder, Affine, Affine),
    ) {
        let inputs = self.m.inputs;
        let height = (self.most_sums / self.vectors()).clamp(1, HEIGHT);
        b.for_loop(LoopKind::Serial, "block", 0, tokens, BLOCK, |b, block| {
            let count = least(b, tokens, block, BLOCK);
            let zero = b.float(0.0, self.lanes);
            b.serial("token", 0, count, |b, token| {
                for v in 0..self.vectors() {
                    b.store(self.sums, at(token, self.part) + v * i64::from(self.lanes), zero);
                }
            });
            b.for_loop(LoopKind::Serial, "k", 0, inputs, DEPTH, |b, k| {
                let end = b.index(inputs);
                let depth = least(b, end, k, DEPTH);
                weights.spread(b, self.panel, k, depth);
                let start = b.index(0);
                in_tiles(b, start, count, height, &|b, token, height| {
                    if self.prefetch {
                        self.ask(b, weights, k, &token, height);
                    }
                    let tile = Tile {
                        block,
                        token,
                        height,
                        k,
                        depth,
                    };
                    self.tile(b, &tile);
                });
            });
            b.serial("token", 0, count, |b, token| {
                finish(b, at(token, self.part), Affine::from(block) + token);
            });
        });
    }

    /// Asks for the next weights, a few for each token, so that memory is read while there is arithmetic to do.
    fn ask(&self, b: &mut Builder, weights: &impl Weights, k: Reg, token: &Affine, height: i64) {
        let [first, calls] = [token.clone(), weights.calls().into()].map(|n| b.address("asked", n));
        let is_left = b.less(first, calls);
        let ask = |b: &mut Builder| {
            for number in 0..height {
                weights.ask(b, k, Affine::from(first) + number);
            }
        };
        b.if_else(is_left, ask, |_| {});
    }

    /// Adds the products of some inputs to the sums of some tokens.
    fn tile(&self, b: &mut Builder, tile: &Tile) {
        let lanes = i64::from(self.lanes);
        let place = |token: i64, v: i64| (tile.token.clone() + token) * self.part + v * lanes;
        let mut acc: Vec<Vec<Reg>> = vec![];
        for token in 0..tile.height {
            let mut of = |v| {
                let sum = b.load("sum", self.sums, place(token, v), self.lanes);
                b.var("acc", sum)
            };
            acc.push((0..self.vectors()).map(&mut of).collect());
        }
        b.serial("i", 0, tile.depth, |b, i| {
            let mut w = |v| b.load("w", self.panel, at(i, self.part) + v * lanes, self.lanes);
            let ws: Vec<Reg> = (0..self.vectors()).map(&mut w).collect();
            for (token, acc) in (0..).zip(&acc) {
                let row = (Affine::from(tile.block) + tile.token.clone() + token) * self.m.inputs;
                let x = b.load("x", self.m.x, row + tile.k + i, 1);
                let x = b.splat(x, self.lanes);
                for (&w, &acc) in ws.iter().zip(acc) {
                    b.set(acc, Inst::Fma(w, x, acc));
                }
            }
        });
        for (token, acc) in (0..).zip(acc) {
            for (v, acc) in (0..).zip(acc) {
                b.store(self.sums, place(token, v), acc);
            }
        }
    }
}

/// Where the weights begin that are read after those from `k` on: at `next`, or after the last of `inputs`, `beyond`.
pub(super) fn following(b: &mut Builder, k: Reg, inputs: i64, next: Affine, beyond: Affine) -> Reg {
    let (next, beyond) = (b.address("next", next), b.address("beyond", beyond));
    let last = b.index((inputs - DEPTH).max(0));
    let is_more = b.less(k, last);
    b.inst("start", Inst::Select(is_more, next, beyond))
}

/// What is left of `start..end`, but no more than `most`.
fn least(b: &mut Builder, end: Reg, start: Reg, most: i64) -> Reg {
    let left = b.address("left", Affine::from(end) + at(start, -1));
    let most = b.index(most);
    b.binary(Binary::Min, left, most)
}
