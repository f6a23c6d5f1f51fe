//! Products with a matrix that lies in panels: some outputs side by side, input after input.
//!
//! A task has a part of a panel, or all of it.

use rwkvc_backend_api::CpuFeatures;
use rwkvc_ir::graph::ops::Member;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Binary, Buf, Extent, Reg, Unary};
use rwkvc_ir::quantized::{Format, GROUP};

use super::super::super::group::{self, Buffers, Quantized};
use super::super::super::rows;
use super::super::{Scheduled, Tensor, at, math};
use super::LINE;
use super::tiles::{self, DEPTH, Tiles, Weights};

/// Outputs of a group of a quantised matrix, whose groups run down columns.
const COLUMN: i64 = GROUP as i64;

/// Outputs of a panel of a matrix of this many: an input's are long enough for memory to read in one go, and several tasks
/// share a matrix.
pub(super) fn width(outputs: i64, is_quantized: bool, features: &CpuFeatures) -> i64 {
    let unit = part_of(outputs, is_quantized, features);
    let most = features.tuning.panel_outputs;
    let panels = (outputs + most - 1) / most;
    let each = (outputs + panels - 1) / panels;
    (each + unit - 1) / unit * unit
}

/// Outputs of a task, which its sums are in registers for.
fn part_of(outputs: i64, is_quantized: bool, features: &CpuFeatures) -> i64 {
    let lanes = i64::from(features.f32_lanes);
    if is_quantized {
        return if lanes >= COLUMN / 2 { 2 * COLUMN } else { COLUMN };
    }
    tiles::part_of(outputs, features)
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
    let [panel, sums] = tiles::room(part);
    let tiles = Tiles {
        m,
        part,
        lanes: features.f32_lanes,
        most_sums: tiles::most_sums(features),
        // Codes are few enough for the machine to foresee.
        prefetch: features.prefetch && !is_quantized,
        panel: s.b.private("panel", panel),
        sums: s.b.private("sums", sums),
    };
    s.b.parallel("task", Extent::fixed(panels.tasks()), |b, own| {
        let tokens = rows::count(b, rows);
        let part = Part {
            panels: &panels,
            m,
            start: panels.start(b, own),
        };
        tiles.run(b, &part, tokens, &|b, from, token| {
            panels.for_outputs(b, own, |b, first, outputs| {
                panels.finish(b, m, tiles.sums, from.clone(), &first, (token.clone(), outputs));
            });
        });
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
    pub(super) prefetch: bool,
}

impl Panels {
    pub(super) fn new(m: &Buffers<'_>, width: i64, part: i64, features: &CpuFeatures) -> Panels {
        Panels {
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
}

/// A part of a panel.
struct Part<'m, 'b> {
    panels: &'m Panels,
    m: &'m Buffers<'b>,
    /// Where it lies in input 0.
    start: Affine,
}

impl Weights for Part<'_, '_> {
    fn spread(&self, b: &mut Builder, panel: Buf, k: Reg, depth: Reg) {
        let Panels {
            part, width, lanes, ..
        } = *self.panels;
        b.serial("i", 0, depth, |b, i| {
            let row = self.start.clone() + (Affine::from(k) + i) * width;
            let ws = match &self.m.quantized {
                Some(parts) => decoded(b, self.m, parts, &row, (part, lanes)),
                None => (0..part)
                    .step_by(lanes as usize)
                    .map(|column| b.load("w", self.m.w, row.clone() + column, lanes))
                    .collect(),
            };
            for (v, w) in (0..).zip(ws) {
                b.store(panel, at(i, part) + v * i64::from(lanes), w);
            }
        });
    }

    fn ask(&self, b: &mut Builder, k: Reg, number: Affine) {
        let Panels {
            inputs, part, width, ..
        } = *self.panels;
        let next = self.start.clone() + (Affine::from(k) + DEPTH) * width;
        let start = tiles::following(b, k, inputs, next, self.start.clone() + part);
        for column in (0..part).step_by(LINE as usize / b.dtype(self.m.w).size()) {
            b.prefetch(self.m.w, number.clone() * width + start + column);
        }
    }

    fn calls(&self) -> i64 {
        DEPTH.min(self.panels.inputs)
    }
}

/// The weights of quantised outputs for one input, in vectors: those whose first is at `row`.
fn decoded(
    b: &mut Builder,
    m: &Buffers<'_>,
    parts: &Quantized,
    row: &Affine,
    (part, lanes): (i64, u32),
) -> Vec<Reg> {
    let mut all = vec![];
    for group in 0..part / COLUMN {
        let first = row.clone() + group * COLUMN;
        let number = divided(&first, COLUMN);
        let mut of_group = |name, part| {
            let x = b.load(name, part, number.clone(), 1);
            b.splat(x, lanes)
        };
        let scale = of_group("scale", parts.scales);
        let offset = parts.offsets.map(|offsets| of_group("offset", offsets));
        for code in codes(b, m, parts, &first, lanes) {
            all.push(match offset {
                None => b.mul(code, scale),
                Some(offset) => b.fma(code, scale, offset),
            });
        }
    }
    all
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
