//! The logits of a slice in the registers of a block.

use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Binary, Buf, Inst, Reg, Unary};

use super::super::at;
use super::super::block::Threads;

/// Logits that a thread has.
const EACH: i64 = 8;
/// Logits of a slice.
pub(super) const SLICE: i64 = EACH * 256;

/// A slice of the logits of a state as a thread sees it: elements `t`, `t + threads`, ….
pub(super) struct Slice {
    pub(super) row: Reg,
    /// Its number among those of the row.
    pub(super) slice: Reg,
    pub(super) threads: Threads,
    logits: Vec<Logit>,
}

struct Logit {
    value: Reg,
    /// Its token; beyond the end, the last one, whose logit is there once more.
    token: Reg,
    /// Whether it is not beyond the end, if that is not certain.
    inside: Option<Reg>,
}

impl Slice {
    /// Loads logits of a vocabulary.
    pub(super) fn load(
        b: &mut Builder,
        (logits, vocab): (Buf, i64),
        (row, slice): (Reg, Reg),
        threads: Threads,
    ) -> Self {
        assert_eq!(
            threads.count * EACH,
            SLICE,
            "a slice is what the threads of a block have"
        );
        let last = b.index(vocab - 1);
        let one = |i: i64| {
            let token = b.address("token", at(slice, SLICE) + threads.t + i * threads.count);
            let (token, inside) = if vocab % SLICE == 0 {
                (token, None)
            } else {
                let end = b.index(vocab);
                let inside = b.less(token, end);
                (b.binary(Binary::Min, token, last), Some(inside))
            };
            Logit {
                value: b.load("x", logits, at(row, vocab) + token, 1),
                token,
                inside,
            }
        };
        Slice {
            row,
            slice,
            threads,
            logits: (0..EACH).map(one).collect(),
        }
    }

    /// The logits of the thread; the last one may be there several times.
    pub(super) fn logits(&self) -> impl Iterator<Item = Reg> {
        self.logits.iter().map(|logit| logit.value)
    }

    /// The token of the thread's logit `i`.
    pub(super) fn token(&self, b: &mut Builder, i: usize) -> Reg {
        b.unary(Unary::IndexToI32, self.logits[i].token)
    }

    /// The largest logit of the thread and the first token that has it, in variables.
    pub(super) fn most(&self, b: &mut Builder) -> (Reg, Reg) {
        let first = self.token(b, 0);
        let (most, place) = (b.var("most", self.logits[0].value), b.var("place", first));
        for (i, logit) in self.logits.iter().enumerate().skip(1) {
            let is_more = b.less(most, logit.value);
            let token = self.token(b, i);
            b.set(place, Inst::Select(is_more, token, place));
            b.set(most, Inst::Select(is_more, logit.value, most));
        }
        (most, place)
    }

    /// Octaves of a logit below the largest one. Finite, so that no product with it is NaN.
    fn octaves(&self, b: &mut Builder, logit: &Logit, most: Reg) -> Reg {
        let (log2_e, smallest) = (b.float(std::f32::consts::LOG2_E, 1), b.float(f32::MIN, 1));
        let d = b.sub(logit.value, most);
        let u = b.mul(d, log2_e);
        b.binary(Binary::Max, u, smallest)
    }

    /// `2^(octaves * sharper)`, and 0 beyond the end.
    fn weight(&self, b: &mut Builder, logit: &Logit, octaves: Reg, sharper: Reg) -> Reg {
        let u = b.mul(octaves, sharper);
        let p = b.unary(Unary::Exp2, u);
        match logit.inside {
            None => p,
            Some(inside) => {
                let zero = b.float(0.0, 1);
                b.inst("p", Inst::Select(inside, p, zero))
            }
        }
    }

    /// What each logit of the thread weighs beside the largest one; 0 below `low` octaves.
    pub(super) fn weights(&self, b: &mut Builder, most: Reg, low: Reg, sharper: Reg) -> Vec<Reg> {
        let weigh = |logit: &Logit| {
            let u = self.octaves(b, logit, most);
            let p = self.weight(b, logit, u, sharper);
            let zero = b.float(0.0, 1);
            let outside = b.less(u, low);
            b.inst("p", Inst::Select(outside, zero, p))
        };
        self.logits.iter().map(weigh).collect()
    }

    /// Puts the octaves of all logits into memory, and after them what they weigh.
    pub(super) fn keep(&self, b: &mut Builder, memory: Buf, most: Reg, sharper: Reg) {
        for (i, logit) in (0..).zip(&self.logits) {
            let u = self.octaves(b, logit, most);
            let p = self.weight(b, logit, u, sharper);
            let place = Affine::from(self.threads.t) + i * self.threads.count;
            b.store(memory, place.clone(), u);
            b.store(memory, place + SLICE, p);
        }
    }
}
