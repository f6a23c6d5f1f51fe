//! Products of quantised activations with a quantised matrix, in integers.
//!
//! A panel has as many rows as there are lanes. Four codes of each of its rows are one register, and four codes of an activation
//! are the same for all of them, so there are no sums across lanes. Within a group products are added up exactly; each group
//! then adds to the sums of floats what its scales make of it:
//!
//! ```text
//! y += x_scale * (scale * Σ code x_code + offset * Σ x_code)
//! ```

use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Binary, Buf, Inst, Reg, Unary};
use rwkvc_ir::quantized::{Format, GROUP, INT8_ZERO};

use super::super::super::group::{Buffers, Quantized};
use super::super::math;
use super::{LINE, in_tiles};
use rwkvc_backend_api::CpuFeatures;

/// A member whose activations and weights are quantised.
pub(super) struct Packed<'m> {
    m: &'m Buffers<'m>,
    parts: &'m Quantized,
    x_scales: Buf,
    x_sums: Buf,
    /// Outputs of a panel.
    lanes: u32,
    /// Panels of a task.
    panels: i64,
    /// Tokens of a tile.
    pub(super) height: i64,
    /// Groups ahead whose codes are asked for.
    ahead: Option<i64>,
}

impl<'m> Packed<'m> {
    /// `None` if the member is not quantised, or its activations are not.
    pub(super) fn of(m: &'m Buffers<'m>, features: &CpuFeatures) -> Option<Self> {
        let parts = m.quantized.as_ref()?;
        let (x_scales, x_sums) = parts.activations?;
        let tuning = &features.tuning;
        let there = (m.outputs + i64::from(features.f32_lanes) - 1) / i64::from(features.f32_lanes);
        Some(Packed {
            m,
            parts,
            x_scales,
            x_sums,
            lanes: features.f32_lanes,
            panels: tuning.packed_panels.min(there),
            height: tuning.packed_rows,
            ahead: Some(tuning.packed_ahead).filter(|&ahead| features.prefetch && ahead > 0),
        })
    }

    /// Outputs of a task.
    fn width(&self) -> i64 {
        self.panels * i64::from(self.lanes)
    }

    pub(super) fn tasks(&self) -> i64 {
        (self.m.outputs + self.width() - 1) / self.width()
    }

    fn groups(&self) -> i64 {
        self.m.inputs / GROUP as i64
    }

    /// The outputs of a task for some tokens from `token` on. `sums` holds the outputs of a task for a token.
    pub(super) fn tile(&self, b: &mut Builder, own: &Affine, token: &Affine, height: i64, sums: Buf) {
        let lanes = i64::from(self.lanes);
        let task = |b: &mut Builder, own: &Affine, outputs: i64| {
            let panels = (outputs + lanes - 1) / lanes;
            let totals = self.totals(b, &(own.clone() * self.panels), panels, token, height);
            for (t, totals) in (0..).zip(totals) {
                for (p, total) in (0..).zip(totals) {
                    b.store(sums, t * self.width() + p * lanes, total);
                }
            }
            let first = own.clone() * self.width();
            for t in 0..height {
                let row = (token.clone() + t) * self.m.outputs;
                math::over(b, outputs, self.lanes, |b, i, lanes| {
                    let sum = b.load("sum", sums, Affine::from(0) + i + t * self.width(), lanes);
                    let channel = first.clone() + i;
                    self.m.epilogue(b, channel.clone(), row.clone() + channel, sum);
                });
            }
        };
        let (full, rest) = (self.m.outputs / self.width(), self.m.outputs % self.width());
        let last = |b: &mut Builder| task(b, &Affine::from(full), rest);
        let whole = |b: &mut Builder| task(b, own, self.width());
        match (full, rest) {
            (_, 0) => whole(b),
            (0, _) => last(b),
            _ => {
                let number = b.address("own", own.clone());
                let end = b.index(full);
                let is_whole = b.less(number, end);
                b.if_else(is_whole, whole, last);
            }
        }
    }

    /// The sums of some panels, from `first` on, for each token.
    fn totals(
        &self,
        b: &mut Builder,
        first: &Affine,
        panels: i64,
        token: &Affine,
        height: i64,
    ) -> Vec<Vec<Reg>> {
        let zero = b.float(0.0, self.lanes);
        let totals: Vec<Vec<Reg>> = (0..height)
            .map(|_| (0..panels).map(|_| b.var("total", zero)).collect())
            .collect();
        b.serial("g", 0, self.groups(), |b, g| {
            let panel = |p: i64| (first.clone() + p) * self.groups() + g;
            let panels: Vec<Affine> = (0..panels).map(panel).collect();
            let rows: Vec<Affine> = (0..height)
                .map(|t| (token.clone() + t) * self.groups() + g)
                .collect();
            let sums: Vec<Reg> = rows
                .iter()
                .map(|row| b.load("x_sum", self.x_sums, row.clone(), 1))
                .collect();
            let dots = self.dots(b, &panels, &rows, &sums);
            let scales: Vec<Reg> = panels
                .iter()
                .map(|panel| self.of_group(b, "scale", self.parts.scales, panel))
                .collect();
            let offsets: Option<Vec<Reg>> = self.parts.offsets.map(|offsets| {
                let load = |panel| self.of_group(b, "offset", offsets, panel);
                panels.iter().map(load).collect()
            });
            for (t, row) in rows.iter().enumerate() {
                let x_scale = b.load("x_scale", self.x_scales, row.clone(), 1);
                let x_scale = b.splat(x_scale, self.lanes);
                for (p, &scale) in scales.iter().enumerate() {
                    let dot = b.unary(Unary::ToF32, dots[t][p]);
                    let sum = match &offsets {
                        None => b.mul(scale, dot),
                        Some(offsets) => {
                            let sum = b.unary(Unary::ToF32, sums[t]);
                            let sum = b.splat(sum, self.lanes);
                            let shift = b.mul(offsets[p], sum);
                            b.fma(scale, dot, shift)
                        }
                    };
                    b.set(totals[t][p], Inst::Fma(x_scale, sum, totals[t][p]));
                }
            }
        });
        totals
    }

    /// A number for each row of a panel's group.
    fn of_group(&self, b: &mut Builder, name: &str, part: Buf, group: &Affine) -> Reg {
        b.load(name, part, group.clone() * i64::from(self.lanes), self.lanes)
    }

    /// The products of one group, added up: of each token with each panel. Groups are given by their numbers.
    fn dots(&self, b: &mut Builder, panels: &[Affine], tokens: &[Affine], sums: &[Reg]) -> Vec<Vec<Reg>> {
        let format = self.parts.format;
        let mut dots: Vec<Vec<Reg>> = sums
            .iter()
            .map(|&sum| {
                let start = match format {
                    Format::Int4 => b.int(0, self.lanes),
                    // Codes count from there.
                    _ => {
                        let zero = b.int(-i32::from(INT8_ZERO), 1);
                        let start = b.mul(sum, zero);
                        b.splat(start, self.lanes)
                    }
                };
                vec![start; panels.len()]
            })
            .collect();
        let bytes = (GROUP * format.bits() / 8) as i64 * i64::from(self.lanes);
        let words = GROUP as i64 * format.bits() as i64 / 32;
        let x_word = |b: &mut Builder, row: &Affine, word: i64| {
            let x = b.words("x", self.m.x, row.clone() * GROUP as i64 + 4 * word, 1);
            b.splat(x, self.lanes)
        };
        if let Some(ahead) = self.ahead {
            for panel in panels {
                for line in 0..bytes / LINE {
                    b.prefetch(self.m.w, (panel.clone() + ahead) * bytes + line * LINE);
                }
            }
        }
        for word in 0..words {
            let codes: Vec<Reg> = panels
                .iter()
                .map(|panel| {
                    let at = panel.clone() * bytes + word * 4 * i64::from(self.lanes);
                    b.words("w", self.m.w, at, self.lanes)
                })
                .collect();
            let halves: Vec<(i64, Vec<Reg>)> = match format {
                Format::Int4 => {
                    let (mask, four) = (b.int(0x0f0f_0f0f, self.lanes), b.int(4, self.lanes));
                    let low = codes.iter().map(|&w| b.binary(Binary::And, w, mask)).collect();
                    let high = codes
                        .iter()
                        .map(|&w| {
                            let w = b.binary(Binary::Shr, w, four);
                            b.binary(Binary::And, w, mask)
                        })
                        .collect();
                    vec![(word, low), (word + words, high)]
                }
                _ => vec![(word, codes)],
            };
            for (word, codes) in halves {
                for (row, dots) in tokens.iter().zip(&mut dots) {
                    let x = x_word(b, row, word);
                    for (dot, &w) in dots.iter_mut().zip(&codes) {
                        *dot = b.inst("dot", Inst::Dot4(w, x, *dot));
                    }
                }
            }
        }
        dots
    }
}

/// How many sums tiles of all members need: outputs of a task for each token.
pub(super) fn sums(all: &[Option<Packed<'_>>]) -> i64 {
    let of = |p: &Packed<'_>| p.width() * p.height;
    all.iter().flatten().map(of).max().unwrap_or(0)
}

/// A task for any number of tokens.
pub(super) fn many(b: &mut Builder, p: &Packed<'_>, own: &Affine, (tokens, sums): (Reg, Buf)) {
    let zero = b.index(0);
    in_tiles(b, zero, tokens, p.height, &|b, token, height| {
        p.tile(b, own, &token, height, sums);
    });
}
