//! One token of the nucleus, by a random number.

use rwkvc_ir::DType;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Access, Binary, Buf, Compare, Extent, Inst, Kernel, Reg, Unary};

use super::super::at;
use super::super::block::{Threads, leader};
use super::nucleus::{SPLITS, sharper};
use super::slice::Slice;
use super::{LOWEST, MOST, Options, PLACES, SHARES, SamplerBuffer, Shape};

impl Shape<'_> {
    /// Chooses.
    pub(super) fn draw(&self) -> (Kernel, Vec<SamplerBuffer>) {
        let (mut open, logits) = self.open("draw");
        let options = open.param("options", SamplerBuffer::Options, Access::Read);
        let (most, places) = (open.read("most", MOST), open.read("places", PLACES));
        let (shares, lowest) = (
            open.read("shares", SHARES),
            open.read("lowest", LOWEST[SPLITS % 2]),
        );
        let counts = open.param("counts", SamplerBuffer::Counts, Access::ReadWrite);
        let tokens = open.param("tokens", SamplerBuffer::Tokens, Access::Write);
        let memory = Memory {
            sums: open.s.sums(2),
            token: open.s.b.shared("drawn", DType::I32, 1),
        };
        let (slices, vocab) = (self.slices, self.vocab);
        let load = |b: &mut Builder, row: Reg| Options::load(b, options, row);
        open.s
            .blocks_knowing(Extent::per_token(1), load, |b, row, threads, options| {
                let (likeliest, is_finite) = self.likeliest(b, (most, places), row);
                let chosen = b.var("chosen", likeliest);
                b.if_else(
                    options.is_random,
                    |b| {
                        let count = b.load("count", counts, row, 1);
                        let random = uniform(b, options.seed, count);
                        let (slice, start, target) = target(b, (shares, slices), row, random);
                        let x = Slice::load(b, (logits, vocab), (row, slice), threads);
                        let most = self.most_of(b, most, row, threads);
                        let low = b.load("low", lowest, row, 1);
                        let sharper = sharper(b, options.temperature);
                        let weights = x.weights(b, most, low, sharper);
                        let drawn = memory.walk(b, &x, &weights, (start, target));
                        b.set(chosen, Inst::Copy(drawn));
                    },
                    |_| {},
                );
                let none = b.int(-1, 1);
                b.set(chosen, Inst::Select(is_finite, chosen, none));
                leader(b, threads.t, |b| {
                    b.store(tokens, row, chosen);
                    let count = b.load("count", counts, row, 1);
                    let one = b.int(1, 1);
                    let next = b.add(count, one);
                    b.store(counts, row, next);
                });
            });
        open.finish()
    }
}

/// The slice of a row that a random number falls into, what the slices before it weigh, and where it falls.
fn target(b: &mut Builder, (shares, slices): (Buf, i64), row: Reg, random: Reg) -> (Reg, Reg, Reg) {
    let zero = b.float(0.0, 1);
    let total = b.var("total", zero);
    let share = |b: &mut Builder, slice: Reg| b.load("share", shares, at(row, slices) + slice, 1);
    b.serial("slice", 0, slices, |b, slice| {
        let share = share(b, slice);
        b.set(total, Inst::Binary(Binary::Add, total, share));
    });
    let target = b.mul(random, total);
    let none = b.int(0, 1);
    let (chosen, start, sum) = (
        b.var("chosen_slice", none),
        b.var("start", zero),
        b.var("walked", zero),
    );
    b.serial("slice", 0, slices, |b, slice| {
        let share = share(b, slice);
        // The last slice that weighs anything and does not begin beyond the target.
        let is_there = b.less(zero, share);
        let begins = b.inst("begins", Inst::Compare(Compare::Le, sum, target));
        let takes = b.binary(Binary::And, is_there, begins);
        let number = b.unary(Unary::IndexToI32, slice);
        b.set(chosen, Inst::Select(takes, number, chosen));
        b.set(start, Inst::Select(takes, sum, start));
        b.set(sum, Inst::Binary(Binary::Add, sum, share));
    });
    let chosen = b.unary(Unary::ToIndex, chosen);
    let last = b.index(slices - 1);
    let chosen = b.binary(Binary::Min, chosen, last);
    let first = b.index(0);
    (b.binary(Binary::Max, chosen, first), start, target)
}

/// Memory of a block that draws.
struct Memory {
    /// Two numbers for each warp.
    sums: Buf,
    /// What was drawn.
    token: Buf,
}

impl Memory {
    /// The token of a slice at which the sum of the weights, from `start` on, comes to the target, in all threads.
    fn walk(&self, b: &mut Builder, x: &Slice, weights: &[Reg], (start, target): (Reg, Reg)) -> Reg {
        let threads = x.threads;
        let zero = b.float(0.0, 1);
        let mine = weights.iter().fold(zero, |sum, &p| b.add(sum, p));
        // Sums over twice as many threads at each step, of those before this one too.
        let (mut total, mut before) = (mine, zero);
        let mut mask = 1;
        while mask < threads.warp_size {
            let other = b.shuffle(total, mask as u32);
            let (_, place) = b.div_rem(threads.lane, 2 * mask);
            let end = b.index(mask);
            let is_lower = b.less(place, end);
            let of_others = b.inst("of_others", Inst::Select(is_lower, zero, other));
            before = b.add(before, of_others);
            total = b.add(total, other);
            mask *= 2;
        }
        leader(b, threads.lane, |b| b.store(self.sums, threads.warp, total));
        b.barrier();
        let mut of_warps = start;
        for warp in 0..threads.warps() - 1 {
            let sum = b.load("sum", self.sums, warp, 1);
            let end = b.index(warp + 1);
            let is_mine_or_after = b.less(threads.warp, end);
            let counted = b.inst("counted", Inst::Select(is_mine_or_after, zero, sum));
            of_warps = b.add(of_warps, counted);
        }
        let before = b.add(of_warps, before);
        // The last thread that has something and does not begin beyond the target; rounding may have several that do.
        let has_weight = b.less(zero, mine);
        let begins = b.inst("begins", Inst::Compare(Compare::Le, before, target));
        let can = b.binary(Binary::And, has_weight, begins);
        let number = b.unary(Unary::IndexToI32, threads.t);
        let number = b.unary(Unary::ToF32, number);
        let none = b.float(-1.0, 1);
        let key = b.inst("key", Inst::Select(can, number, none));
        let last = self.largest(b, key, threads);
        let takes = b.inst("takes", Inst::Compare(Compare::Eq, key, last));
        let takes = b.binary(Binary::And, takes, can);
        let first = b.int(0, 1);
        leader(b, threads.t, |b| b.store(self.token, 0, first));
        b.barrier();
        b.if_else(
            takes,
            |b| {
                let token = b.var("token", first);
                let walked = b.var("walked", before);
                for (i, &p) in weights.iter().enumerate() {
                    let is_there = b.less(zero, p);
                    let begins = b.inst("begins", Inst::Compare(Compare::Le, walked, target));
                    let takes = b.binary(Binary::And, is_there, begins);
                    let candidate = x.token(b, i);
                    b.set(token, Inst::Select(takes, candidate, token));
                    b.set(walked, Inst::Binary(Binary::Add, walked, p));
                }
                b.store(self.token, 0, token);
            },
            |_| {},
        );
        b.barrier();
        b.load("drawn", self.token, 0, 1)
    }

    /// The largest number of a block, in all threads.
    fn largest(&self, b: &mut Builder, mut x: Reg, threads: Threads) -> Reg {
        let mut mask = threads.warp_size / 2;
        while mask > 0 {
            let other = b.shuffle(x, mask as u32);
            x = b.binary(Binary::Max, x, other);
            mask /= 2;
        }
        let second = threads.warps();
        leader(b, threads.lane, |b| {
            b.store(self.sums, at(threads.warp, 1) + second, x);
        });
        b.barrier();
        (0..threads.warps()).fold(x, |largest, warp| {
            let other = b.load("other", self.sums, second + warp, 1);
            b.binary(Binary::Max, largest, other)
        })
    }
}

/// A number from 0 to 1, without 1: a hash of the seed and the count in the manner of MurmurHash3's finish.
fn uniform(b: &mut Builder, seed: Reg, count: Reg) -> Reg {
    let constant = |b: &mut Builder, c: u32| b.int(c as i32, 1);
    let golden = constant(b, 0x9e37_79b9);
    let spread = b.mul(count, golden);
    let mut h = b.add(seed, spread);
    for (shift, factor) in [(16, Some(0x85eb_ca6b)), (13, Some(0xc2b2_ae35)), (16, None)] {
        // The shift is arithmetic, so the copies of the sign are cut off.
        let bits = constant(b, shift);
        let shifted = b.binary(Binary::Shr, h, bits);
        let mask = constant(b, u32::MAX >> shift);
        let shifted = b.binary(Binary::And, shifted, mask);
        h = b.binary(Binary::Xor, h, shifted);
        if let Some(factor) = factor {
            let factor = constant(b, factor);
            h = b.mul(h, factor);
        }
    }
    let mask = constant(b, 0x00ff_ffff);
    let h = b.binary(Binary::And, h, mask);
    let h = b.unary(Unary::ToF32, h);
    let unit = b.float(1.0 / 16_777_216.0, 1);
    b.mul(h, unit)
}
