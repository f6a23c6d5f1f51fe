//! The most likely token: of each slice, and of a row.

use rwkvc_ir::DType;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Binary, Buf, Compare, Extent, Inst, Kernel, LoopKind, Reg};

use super::super::at;
use super::super::block::{Threads, block_sum, leader};
use super::slice::Slice;
use super::{MOST, PLACES, SamplerBuffer, Shape};

impl Shape<'_> {
    /// The largest logit of each slice, and the first token that has it; -1 if one is not a finite number.
    pub(super) fn most(&self) -> (Kernel, Vec<SamplerBuffer>) {
        let (mut open, logits) = self.open("most");
        let (most, places) = (open.write("most", MOST), open.write("places", PLACES));
        let sums = open.s.sums(1);
        let warps = i64::from(self.features.threads / self.features.warp);
        let values = open.s.b.shared("values", DType::F32, warps);
        let tokens = open.s.b.shared("tokens_of_values", DType::I32, warps);
        let (slices, vocab) = (self.slices, self.vocab);
        open.s
            .blocks_of_rows(Extent::per_token(1), slices, |b, row, slice, threads| {
                let (row, slice) = (b.address("row", row), b.address("slice", slice));
                let x = Slice::load(b, (logits, vocab), (row, slice), threads);
                // Nothing but zeros, unless a factor is infinite or NaN.
                let zero = b.float(0.0, 1);
                let nothing = x.logits().fold(zero, |sum, logit| b.fma(logit, zero, sum));
                let nothing = block_sum(b, sums, 0, nothing, threads);
                let is_finite = b.inst("finite", Inst::Compare(Compare::Eq, nothing, nothing));
                let (value, token) = x.most(b);
                prefer_in_warp(b, (value, token), threads);
                leader(b, threads.lane, |b| {
                    b.store(values, threads.warp, value);
                    b.store(tokens, threads.warp, token);
                });
                b.barrier();
                leader(b, threads.t, |b| {
                    for warp in 1..warps {
                        let other = b.load("other", values, warp, 1);
                        let place = b.load("place", tokens, warp, 1);
                        prefer(b, (value, token), (other, place));
                    }
                    let place = at(row, slices) + slice;
                    b.store(most, place.clone(), value);
                    let none = b.int(-1, 1);
                    let token = b.inst("place", Inst::Select(is_finite, token, none));
                    b.store(places, place, token);
                });
            });
        open.finish()
    }

    /// The largest logit of a row, in all threads.
    pub(super) fn most_of(&self, b: &mut Builder, most: Buf, row: Reg, threads: Threads) -> Reg {
        let low = b.float(f32::NEG_INFINITY, 1);
        let largest = b.var("largest", low);
        let last = b.index(self.slices - 1);
        b.for_loop(
            LoopKind::Serial,
            "first",
            0,
            self.slices,
            threads.warp_size,
            |b, first| {
                let slice = b.address("slice", at(first, 1) + threads.lane);
                let slice = b.binary(Binary::Min, slice, last);
                let x = b.load("x", most, at(row, self.slices) + slice, 1);
                b.set(largest, Inst::Binary(Binary::Max, largest, x));
            },
        );
        let mut x = largest;
        let mut mask = threads.warp_size / 2;
        while mask > 0 {
            let other = b.shuffle(x, mask as u32);
            x = b.binary(Binary::Max, x, other);
            mask /= 2;
        }
        x
    }

    /// The first of the most likely tokens of a row, and whether all logits are finite, in all threads.
    pub(super) fn likeliest(&self, b: &mut Builder, (most, places): (Buf, Buf), row: Reg) -> (Reg, Reg) {
        let low = b.float(f32::NEG_INFINITY, 1);
        let zero = b.int(0, 1);
        let (value, token) = (b.var("value", low), b.var("token", zero));
        let fine = b.var("fine", zero);
        b.serial("slice", 0, self.slices, |b, slice| {
            let place = at(row, self.slices) + slice;
            let other = b.load("other", most, place.clone(), 1);
            let candidate = b.load("candidate", places, place, 1);
            b.set(fine, Inst::Binary(Binary::Min, fine, candidate));
            prefer(b, (value, token), (other, candidate));
        });
        let is_fine = b.inst("is_fine", Inst::Compare(Compare::Le, zero, fine));
        (token, is_fine)
    }
}

/// Keeps the larger of two logits, and of equal ones that of the lower token.
fn prefer(b: &mut Builder, (most, place): (Reg, Reg), (other, token): (Reg, Reg)) {
    let is_more = b.less(most, other);
    let is_equal = b.inst("eq", Inst::Compare(Compare::Eq, most, other));
    let is_lower = b.less(token, place);
    let is_first = b.binary(Binary::And, is_equal, is_lower);
    let better = b.binary(Binary::Or, is_more, is_first);
    b.set(place, Inst::Select(better, token, place));
    b.set(most, Inst::Select(better, other, most));
}

/// Keeps the best of a warp.
fn prefer_in_warp(b: &mut Builder, (most, place): (Reg, Reg), threads: Threads) {
    let mut mask = threads.warp_size / 2;
    while mask > 0 {
        let (other, token) = (b.shuffle(most, mask as u32), b.shuffle(place, mask as u32));
        prefer(b, (most, place), (other, token));
        mask /= 2;
    }
}
