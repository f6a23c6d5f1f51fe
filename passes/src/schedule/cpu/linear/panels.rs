//! Products with a matrix that lies in panels: some outputs side by side, input after input.
//!
//! A task computes the outputs of a part of a panel in vector lanes, so there are no sums across lanes. Some inputs at a time
//! are kept as f32 in the nearest cache, and multiplied by tiles of tokens.

use rwkvc_backend_api::CpuFeatures;
use rwkvc_ir::graph::ops::Member;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Binary, Buf, Extent, Inst, LoopKind, Reg, Unary};
use rwkvc_ir::quantized::{Format, GROUP};

use super::super::super::group::{self, Buffers, Quantized};
use super::super::super::rows;
use super::super::{Scheduled, Tensor, at, math};
use super::{LINE, in_tiles};

/// Outputs of a panel, at most: an input's are long enough for memory to read in one go, and several tasks share a matrix.
const WIDTH: i64 = 512;

/// Tokens of a tile, at most.
const HEIGHT: i64 = 6;

/// Inputs of a part that are kept as f32 for all tokens of a block.
const DEPTH: i64 = 64;

/// Tokens whose sums stay near between some inputs and the next.
const BLOCK: i64 = 128;

/// Outputs of a group of a quantised matrix, whose groups run down columns.
const COLUMN: i64 = GROUP as i64;

/// Outputs of a panel of a matrix of this many.
pub(super) fn width(outputs: i64, is_quantized: bool, features: &CpuFeatures) -> i64 {
    let unit = part_of(outputs, is_quantized, features);
    let panels = (outputs + WIDTH - 1) / WIDTH;
    let each = (outputs + panels - 1) / panels;
    (each + unit - 1) / unit * unit
}

/// Outputs of a task, which its sums are in registers for.
fn part_of(outputs: i64, is_quantized: bool, features: &CpuFeatures) -> i64 {
    let lanes = i64::from(features.f32_lanes);
    if is_quantized {
        return if lanes >= COLUMN / 2 { 2 * COLUMN } else { COLUMN };
    }
    let vectors = if features.vector_registers >= 32 { 4 } else { 3 };
    (lanes * vectors).min((outputs + lanes - 1) / lanes * lanes)
}

/// `y = activation(W x + bias) * scale + residual` for any number of tokens.
pub(super) fn many_tokens(
    members: &[Member],
    operands: &[Tensor],
    results: &[Tensor],
    features: &CpuFeatures,
) -> Vec<Scheduled> {
    let rows = operands[0].rows();
    let is_quantized = operands[1].quantized.is_some();
    let width = |outputs| width(outputs, is_quantized, features);
    let (mut s, all) = group::open(members, operands, results, features, Some(&width), 1);
    let m = &all[0];
    let part = part_of(m.outputs, is_quantized, features);
    let panels = Panels::new(m, width(m.outputs), part, features);
    let panel = s.b.private("panel", DEPTH * panels.part);
    let sums = s.b.private("sums", BLOCK * panels.part);
    s.b.parallel("task", Extent::fixed(panels.tasks()), |b, own| {
        let tokens = rows::count(b, rows);
        panels.many_tokens(b, m, (panel, sums), own, tokens);
    });
    vec![s.finish()]
}

/// The panels of a matrix, and what a task takes of them.
pub(super) struct Panels {
    pub(super) inputs: i64,
    pub(super) outputs: i64,
    /// Outputs of a panel.
    pub(super) width: i64,
    /// Outputs of a task: all of a panel, or an equal part.
    part: i64,
    pub(super) lanes: u32,
    /// Tokens of a tile: with the vectors of a part as many sums as there are registers for.
    height: i64,
    pub(super) prefetch: bool,
}

impl Panels {
    pub(super) fn new(m: &Buffers<'_>, width: i64, part: i64, features: &CpuFeatures) -> Panels {
        let vectors = part / i64::from(features.f32_lanes);
        // Some registers are for weights and activations.
        let sums = i64::from(features.vector_registers) - 3;
        Panels {
            height: (sums / vectors).clamp(1, HEIGHT),
            inputs: m.inputs,
            outputs: m.outputs,
            width,
            part,
            lanes: features.f32_lanes,
            prefetch: features.prefetch,
        }
    }

    pub(super) fn tasks(&self) -> i64 {
        (self.outputs + self.part - 1) / self.part
    }

    fn vectors(&self) -> i64 {
        self.part / i64::from(self.lanes)
    }

    /// Where the outputs of task `own` lie in input 0.
    pub(super) fn start(&self, b: &mut Builder, own: Reg) -> Affine {
        let parts = self.width / self.part;
        if parts == 1 {
            return at(own, self.inputs * self.width);
        }
        let (panel, part) = b.div_rem(own, parts);
        at(panel, self.inputs * self.width) + at(part, self.part)
    }

    /// Runs `body(builder, first, count)` for the outputs of a task: the last may have fewer than a part.
    pub(super) fn for_outputs(&self, b: &mut Builder, own: Reg, body: impl Fn(&mut Builder, Affine, i64)) {
        let (full, rest) = (self.outputs / self.part, self.outputs % self.part);
        let first = at(own, self.part);
        match (full, rest) {
            (_, 0) => body(b, first, self.part),
            (0, _) => body(b, Affine::from(0), rest),
            _ => {
                let end = b.index(full);
                let whole = b.less(own, end);
                b.if_else(
                    whole,
                    |b| body(b, first, self.part),
                    |b| body(b, Affine::from(full * self.part), rest),
                );
            }
        }
    }

    /// What follows the sums of a token, which start at `from`: outputs from `first` on.
    pub(super) fn finish(
        &self,
        b: &mut Builder,
        m: &Buffers<'_>,
        sums: Buf,
        from: Affine,
        first: &Affine,
        (token, count): (Affine, i64),
    ) {
        math::over(b, count, self.lanes, |b, i, lanes| {
            let sum = b.load("sum", sums, from.clone() + i, lanes);
            let channel = first.clone() + i;
            m.epilogue(b, channel.clone(), token.clone() * self.outputs + channel, sum);
        });
    }

    /// The outputs of a task for all tokens.
    fn many_tokens(
        &self,
        b: &mut Builder,
        m: &Buffers<'_>,
        (panel, sums): (Buf, Buf),
        own: Reg,
        tokens: Reg,
    ) {
        let start = self.start(b, own);
        b.for_loop(LoopKind::Serial, "block", 0, tokens, BLOCK, |b, block| {
            let left = b.address("left", Affine::from(tokens) + at(block, -1));
            let most = b.index(BLOCK);
            let count = b.binary(Binary::Min, left, most);
            let (whole, rest) = (self.inputs / DEPTH, self.inputs % DEPTH);
            let chunk = |b: &mut Builder, k: Affine, depth: i64, is_first: bool| {
                self.spread(b, m, panel, start.clone() + k.clone() * self.width, depth);
                let next = start.clone() + (k.clone() + DEPTH) * self.width;
                let zero = b.index(0);
                in_tiles(b, zero, count, self.height, &|b, token, height| {
                    let tile = Tile {
                        token,
                        height,
                        k: k.clone(),
                        depth,
                        next: next.clone(),
                        is_first,
                    };
                    self.tile(b, m, (panel, sums), block, &tile);
                });
            };
            if whole > 0 {
                chunk(b, Affine::from(0), DEPTH, true);
                b.for_loop(LoopKind::Serial, "k", DEPTH, whole * DEPTH, DEPTH, |b, k| {
                    chunk(b, k.into(), DEPTH, false);
                });
            }
            if rest > 0 {
                chunk(b, Affine::from(whole * DEPTH), rest, whole == 0);
            }
            self.for_outputs(b, own, |b, first, outputs| {
                b.serial("token", 0, count, |b, token| {
                    let position = Affine::from(block) + token;
                    self.finish(b, m, sums, at(token, self.part), &first, (position, outputs));
                });
            });
        });
    }

    /// Some inputs of a task's outputs as f32, from `row` on.
    fn spread(&self, b: &mut Builder, m: &Buffers<'_>, panel: Buf, row: Affine, depth: i64) {
        if let Some(parts) = &m.quantized {
            return b.serial("i", 0, depth, |b, i| {
                for group in 0..self.part / COLUMN {
                    let first = row.clone() + at(i, self.width) + group * COLUMN;
                    let number = divided(&first, COLUMN);
                    let mut of_group = |name, part| {
                        let x = b.load(name, part, number.clone(), 1);
                        b.splat(x, self.lanes)
                    };
                    let scale = of_group("scale", parts.scales);
                    let offset = parts.offsets.map(|offsets| of_group("offset", offsets));
                    for (v, code) in (0..).zip(codes(b, m, parts, &first, self.lanes)) {
                        let w = match offset {
                            None => b.mul(code, scale),
                            Some(offset) => b.fma(code, scale, offset),
                        };
                        let column = group * COLUMN + v * i64::from(self.lanes);
                        b.store(panel, at(i, self.part) + column, w);
                    }
                }
            });
        }
        b.serial("i", 0, depth, |b, i| {
            for v in 0..self.vectors() {
                let column = v * i64::from(self.lanes);
                let w = b.load("w", m.w, row.clone() + at(i, self.width) + column, self.lanes);
                b.store(panel, at(i, self.part) + column, w);
            }
        });
    }

    /// Adds some inputs to the sums of a tile of tokens.
    fn tile(&self, b: &mut Builder, m: &Buffers<'_>, (panel, sums): (Buf, Buf), block: Reg, tile: &Tile) {
        let lanes = i64::from(self.lanes);
        let place = |token: i64, v: i64| (tile.token.clone() + token) * self.part + v * lanes;
        let zero = b.float(0.0, self.lanes);
        let acc: Vec<Vec<Reg>> = (0..tile.height)
            .map(|token| {
                (0..self.vectors())
                    .map(|v| {
                        let sum = match tile.is_first {
                            true => zero,
                            false => b.load("sum", sums, place(token, v), self.lanes),
                        };
                        b.var("acc", sum)
                    })
                    .collect()
            })
            .collect();
        let line = LINE / b.dtype(m.w).size() as i64;
        b.serial("i", 0, tile.depth, |b, i| {
            // Codes are few enough for the machine to foresee.
            if self.prefetch && m.quantized.is_none() {
                for column in (0..self.part).step_by(line as usize) {
                    b.prefetch(m.w, tile.next.clone() + at(i, self.width) + column);
                }
            }
            let ws: Vec<Reg> = (0..self.vectors())
                .map(|v| b.load("w", panel, at(i, self.part) + v * lanes, self.lanes))
                .collect();
            for (token, acc) in (0..).zip(&acc) {
                let row = (Affine::from(block) + tile.token.clone() + token) * self.inputs;
                let x = b.load("x", m.x, row + tile.k.clone() + i, 1);
                let x = b.splat(x, self.lanes);
                for (&w, &acc) in ws.iter().zip(acc) {
                    b.set(acc, Inst::Fma(w, x, acc));
                }
            }
        });
        for (token, acc) in (0..).zip(acc) {
            for (v, acc) in (0..).zip(acc) {
                b.store(sums, place(token, v), acc);
            }
        }
    }
}

/// The codes of a group of outputs for one input, as floats in vectors: the group whose first weight is at `first`, a multiple of a
/// group.
pub(super) fn codes(
    b: &mut Builder,
    m: &Buffers<'_>,
    parts: &Quantized,
    first: &Affine,
    lanes: u32,
) -> Vec<Reg> {
    let step = i64::from(lanes);
    let mut code = |v: i64| match parts.format {
        Format::Int4 => {
            let half = COLUMN / 2;
            let byte = v * step % half;
            let both = b.load("w", m.w, divided(first, 2) + byte, lanes);
            let mask = b.int(15, lanes);
            if v * step < half {
                return b.binary(Binary::And, both, mask);
            }
            let four = b.int(4, lanes);
            let upper = b.binary(Binary::Shr, both, four);
            b.binary(Binary::And, upper, mask)
        }
        _ => b.load("w", m.w, first.clone() + v * step, lanes),
    };
    let codes: Vec<Reg> = (0..COLUMN / step).map(&mut code).collect();
    codes
        .into_iter()
        .map(|code| b.unary(Unary::ToF32, code))
        .collect()
}

/// A position in units of `n`, of which all its parts are multiples.
pub(super) fn divided(at: &Affine, n: i64) -> Affine {
    let terms = at.terms.iter().map(|&(reg, factor)| (reg, factor / n));
    Affine {
        terms: terms.collect(),
        offset: at.offset / n,
    }
}

/// Some tokens and inputs.
struct Tile {
    /// The first token of a block.
    token: Affine,
    height: i64,
    /// The first input.
    k: Affine,
    depth: i64,
    /// Where the inputs lie that come after these, which are asked for meanwhile.
    next: Affine,
    /// Whether nothing was added up yet.
    is_first: bool,
}
