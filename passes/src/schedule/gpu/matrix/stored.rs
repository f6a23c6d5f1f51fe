//! How fragments of weights come out of memory: from a matrix that lies row by row, or in panels of outputs side by side.
//!
//! The unit wants two neighbouring inputs of an output in a word. A panel has two neighbouring outputs of an input there, so
//! words of two inputs are taken apart and put together again, for two outputs at once. That these are neighbours makes no
//! difference to the unit: of few tokens, its rows `g` and `g + 8` are the outputs `2g` and `2g + 1` of a panel.

use super::super::skip::WIDTH;
use super::*;

/// How the matrix of a member lies in memory.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Stored {
    Rows,
    Panels,
}

/// A block of few tokens has the outputs of a panel.
const _: () = assert!(WIDTH == M);

impl Product<'_, '_> {
    /// The outputs of this thread's rows `g` and `g + 8`, counted from the block's first.
    pub(super) fn outputs_of(&self, g: Reg) -> [Affine; 2] {
        match self.stored {
            Stored::Rows => [0, N].map(|half| Affine::from(g) + half),
            Stored::Panels => [0, 1].map(|half| at(g, 2) + half),
        }
    }

    /// Where the weights of this thread's rows are, for few tokens: the start of each row, or of both in the panel.
    pub(super) fn places_of_few(&self, b: &mut Builder, g: Reg) -> Vec<Affine> {
        let (inputs, outputs) = (self.member.inputs, self.member.outputs);
        match self.stored {
            Stored::Rows => self
                .outputs_of(g)
                .map(|output| {
                    let row = self.output(b, at(self.own, M) + output);
                    at(row, inputs)
                })
                .into(),
            Stored::Panels => {
                let panel = Affine::from(self.own);
                let (panel, _) = clamped(b, panel, parts(outputs, M), parts(outputs, OUTPUTS) * SHARES);
                vec![at(panel, inputs * WIDTH) + at(g, 2)]
            }
        }
    }

    /// The weights of this thread's two rows at eight inputs from `k` on, as they are in memory.
    pub(super) fn load_few(&self, b: &mut Builder, places: &[Affine], k: &Affine) -> Vec<Reg> {
        let w = self.member.w;
        match self.stored {
            Stored::Rows => places
                .iter()
                .map(|row| b.words("w", w, row.clone() + k.clone(), 4))
                .collect(),
            Stored::Panels => (0..8)
                .map(|i| b.words("w", w, places[0].clone() + (k.clone() + i) * WIDTH, 1))
                .collect(),
        }
    }

    /// The same as words for the unit.
    pub(super) fn words_of_few(&self, b: &mut Builder, loaded: &[Reg]) -> [Words; 2] {
        match self.stored {
            Stored::Rows => [0, 1].map(|row| lanes(b, loaded[row])),
            Stored::Panels => {
                let pairs = [0, 2, 4, 6].map(|i| transposed(b, loaded[i], loaded[i + 1]));
                [0, 1].map(|row| pairs.map(|pair| pair[row]))
            }
        }
    }

    /// Where the weights are that this thread brings to a tile of many tokens, and where they go: two times 16 bytes.
    pub(super) fn places_of_many(&self, b: &mut Builder, first: &Affine) -> [(Affine, Affine); 2] {
        let (inputs, outputs, t) = (self.member.inputs, self.member.outputs, self.threads.t);
        match self.stored {
            Stored::Rows => {
                let (row, part) = b.div_rem(t, 4);
                [0, OUTPUTS / 2].map(|half| {
                    let own = self.output(b, first.clone() + row + half);
                    (
                        at(own, inputs) + at(part, 8),
                        at(row, K / 2) + at(part, 4) + half * (K / 2),
                    )
                })
            }
            Stored::Panels => {
                // A warp has a panel, a thread eight of its outputs at two neighbouring inputs.
                let (pair, half) = b.div_rem(self.threads.lane, 2);
                let panel = b.address("panel", divided(first, WIDTH) + self.threads.warp);
                let (count, handed_out) =
                    (parts(outputs, WIDTH), parts(outputs, OUTPUTS) * (OUTPUTS / WIDTH));
                let (panel, _) = clamped(b, panel.into(), count, handed_out);
                let from = at(panel, inputs * WIDTH) + at(pair, 2 * WIDTH) + at(half, 8);
                let to = (at(self.threads.warp, WIDTH) + at(half, 8)) * (K / 2) + pair;
                [0, 1].map(|i| (from.clone() + i * WIDTH, to.clone()))
            }
        }
    }

    /// The 16 bytes at a place, `k` inputs on.
    pub(super) fn load_many(&self, b: &mut Builder, place: &Affine, k: Affine) -> Reg {
        let each = match self.stored {
            Stored::Rows => 1,
            Stored::Panels => WIDTH,
        };
        b.words("w", self.member.w, place.clone() + k * each, 4)
    }

    /// Puts what a thread brought into shared memory: of each row, one word for two inputs after the other.
    pub(super) fn store_many(&self, b: &mut Builder, base: &Affine, to: [&Affine; 2], loaded: [Reg; 2]) {
        match self.stored {
            Stored::Rows => {
                for (to, w) in to.into_iter().zip(loaded) {
                    b.store(self.memory, base.clone() + to.clone(), w);
                }
            }
            Stored::Panels => {
                let [first, second] = loaded.map(|w| lanes(b, w));
                for (i, (first, second)) in (0..).zip(first.into_iter().zip(second)) {
                    for (output, word) in (2 * i..).zip(transposed(b, first, second)) {
                        b.store(self.memory, base.clone() + to[0].clone() + output * (K / 2), word);
                    }
                }
            }
        }
    }
}

/// Two outputs of an input and of the next: both inputs of the one output, and of the other.
fn transposed(b: &mut Builder, first: Reg, second: Reg) -> [Reg; 2] {
    let half = b.int(16, 1);
    let [lower, upper] = [0xffff, 0xffff_0000_u32 as i32].map(|mask| b.int(mask, 1));
    let low = b.binary(Binary::And, first, lower);
    let high = b.binary(Binary::Shl, second, half);
    let even = b.binary(Binary::Or, low, high);
    let low = b.binary(Binary::Shr, first, half);
    let low = b.binary(Binary::And, low, lower);
    let high = b.binary(Binary::And, second, upper);
    [even, b.binary(Binary::Or, low, high)]
}

/// A position in units of `n`, of which all its parts are multiples.
fn divided(at: &Affine, n: i64) -> Affine {
    let terms = at.terms.iter().map(|&(reg, factor)| (reg, factor / n));
    Affine {
        terms: terms.collect(),
        offset: at.offset / n,
    }
}
