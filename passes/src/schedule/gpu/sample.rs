//! Choosing the next token where the logits are, so that a step needs nothing of the host.
//!
//! A block has the logits of one state. The nucleus, the fewest tokens whose probabilities add up to `top_p`, is all
//! tokens of at least some probability, which a search by halves finds without sorting. One of them is drawn by a random
//! number, a hash of a seed and a count; as the runtime's sampler does it, the temperature changes the shares within the
//! nucleus, not the nucleus.

use rwkvc_backend_api::GpuFeatures;
use rwkvc_ir::DType;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Access, Affine, Binary, Buf, Compare, Extent, Inst, Kernel, Reg, Unary};

use super::block::{Threads, block_sum, leader};
use super::{Scope, at};

/// 32-bit words that say how a state's next token is chosen: temperature and top-p as f32, and a seed.
pub const SAMPLER_WORDS: i64 = 3;

/// Probabilities below `2^-LEAST` of the highest are not told apart.
const LEAST: f32 = 32.0;

/// Halvings of the range in which the least probability of the nucleus lies: to `2^-19` of an octave.
const HALVINGS: i64 = 24;

/// Logits that a thread loads at the same time.
const AT_ONCE: i64 = 8;

/// The logits of a row as a thread sees them: elements `t`, `t + threads`, ….
struct Logits {
    buf: Buf,
    start: Affine,
    vocab: i64,
    threads: Threads,
}

impl Logits {
    /// Runs `body(builder, logit, token)` for each of the thread's logits.
    fn for_each(&self, b: &mut Builder, mut body: impl FnMut(&mut Builder, Reg, Reg)) {
        let count = self.threads.count;
        let mut elements = |b: &mut Builder, first: Affine, n: i64| {
            // All loads first: they wait for memory together.
            let load = |b: &mut Builder, i: i64| {
                let token = b.address("token", first.clone() + i * count + self.threads.t);
                (b.load("x", self.buf, self.start.clone() + token, 1), token)
            };
            let loaded: Vec<_> = (0..n).map(|i| load(b, i)).collect();
            for (x, token) in loaded {
                body(b, x, token);
            }
        };
        let mut start = 0;
        for n in [AT_ONCE, 1] {
            let step = n * count;
            let end = start + (self.vocab - start) / step * step;
            if start < end {
                let kind = rwkvc_ir::kernel::LoopKind::Serial;
                b.for_loop(kind, "i", start, end, step, |b, i| elements(b, i.into(), n));
            }
            start = end;
        }
        if start < self.vocab {
            let end = b.index(self.vocab - start);
            let inside = b.less(self.threads.t, end);
            b.if_else(inside, |b| elements(b, start.into(), 1), |_| {});
        }
    }
}

/// The kernel that chooses a token for each row of logits. Parameters: the logits `[T, vocab]`, [`SAMPLER_WORDS`] for
/// each row, how many tokens each row chose before `[T]`, which it counts on, and the tokens `[T]`. A temperature of 0
/// takes the first of the most likely. The token is −1 where a logit is not a finite number.
pub fn sample_kernel(vocab: i64, features: &GpuFeatures) -> Kernel {
    let mut s = Scope::new(&format!("sample_{vocab}"), &[], &[], features);
    let logits =
        s.b.param("logits", DType::F32, Extent::per_token(vocab), Access::Read);
    let words = Extent::per_token(SAMPLER_WORDS);
    let sampler = s.b.param("sampler", DType::I32, words, Access::Read);
    let counts =
        s.b.param("counts", DType::I32, Extent::per_token(1), Access::ReadWrite);
    let tokens =
        s.b.param("tokens", DType::I32, Extent::per_token(1), Access::Write);
    let sums = s.sums(1);
    let threads = i64::from(features.threads);
    let values = s.b.shared("values", DType::F32, threads);
    let places = s.b.shared("places", DType::I32, threads);
    let block = Block { sums, values, places };
    let options = |b: &mut Builder, row: Reg| {
        let option = |b: &mut Builder, i: i64| b.load("option", sampler, at(row, SAMPLER_WORDS) + i, 1);
        let [temperature, top_p] = [0, 1].map(|i| {
            let bits = option(b, i);
            b.unary(Unary::FromBits, bits)
        });
        let zero = b.float(0.0, 1);
        let is_random = b.less(zero, temperature);
        (is_random, temperature, top_p, option(b, 2))
    };
    s.blocks_knowing(Extent::per_token(1), options, |b, row, threads, options| {
        let (is_random, temperature, top_p, seed) = options;
        let count = b.load("count", counts, row, 1);
        let x = Logits {
            buf: logits,
            start: at(row, vocab),
            vocab,
            threads,
        };
        let is_finite = block.all_finite(b, &x);
        let (most, likeliest) = block.most(b, &x);
        let chosen = b.var("chosen", likeliest);
        b.if_else(
            is_random,
            |b| {
                let random = uniform(b, seed, count);
                let token = block.draw(b, &x, most, (temperature, top_p), random);
                b.set(chosen, Inst::Copy(token));
            },
            |_| {},
        );
        let none = b.int(-1, 1);
        b.set(chosen, Inst::Select(is_finite, chosen, none));
        leader(b, threads.t, |b| {
            b.store(tokens, row, chosen);
            let one = b.int(1, 1);
            let next = b.add(count, one);
            b.store(counts, row, next);
        });
    });
    s.finish().kernel
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

/// Memory of a block.
struct Block {
    sums: Buf,
    /// A number of each thread.
    values: Buf,
    /// A token of each thread, or of the block.
    places: Buf,
}

impl Block {
    /// Whether all logits are finite numbers, in all threads.
    fn all_finite(&self, b: &mut Builder, x: &Logits) -> Reg {
        let zero = b.float(0.0, 1);
        let sum = b.var("nothing", zero);
        // Nothing but zeros, unless a factor is infinite or NaN.
        x.for_each(b, |b, logit, _| b.set(sum, Inst::Fma(logit, zero, sum)));
        let sum = block_sum(b, self.sums, 0, sum, x.threads);
        b.barrier();
        b.inst("finite", Inst::Compare(Compare::Eq, sum, sum))
    }

    /// The largest logit and the first token that has it, in all threads.
    fn most(&self, b: &mut Builder, x: &Logits) -> (Reg, Reg) {
        let low = b.float(f32::NEG_INFINITY, 1);
        let most = b.var("most", low);
        let zero = b.int(0, 1);
        let token_of_most = b.var("place", zero);
        x.for_each(b, |b, logit, token| {
            let is_more = b.less(most, logit);
            let token = b.unary(Unary::IndexToI32, token);
            b.set(token_of_most, Inst::Select(is_more, token, token_of_most));
            b.set(most, Inst::Select(is_more, logit, most));
        });
        let mut mask = x.threads.warp_size / 2;
        while mask > 0 {
            let (other, place) = (
                b.shuffle(most, mask as u32),
                b.shuffle(token_of_most, mask as u32),
            );
            self.prefer(b, (most, token_of_most), (other, place));
            mask /= 2;
        }
        leader(b, x.threads.lane, |b| {
            b.store(self.values, x.threads.warp, most);
            b.store(self.places, x.threads.warp, token_of_most);
        });
        b.barrier();
        for warp in 0..x.threads.warps() {
            let other = b.load("other", self.values, warp, 1);
            let place = b.load("place", self.places, warp, 1);
            self.prefer(b, (most, token_of_most), (other, place));
        }
        b.barrier();
        (most, token_of_most)
    }

    /// Keeps the larger of two logits, and of equal ones that of the lower token.
    fn prefer(&self, b: &mut Builder, (most, place): (Reg, Reg), (other, token): (Reg, Reg)) {
        let is_more = b.less(most, other);
        let is_equal = b.inst("eq", Inst::Compare(Compare::Eq, most, other));
        let is_lower = b.less(token, place);
        let is_first = b.binary(Binary::And, is_equal, is_lower);
        let better = b.binary(Binary::Or, is_more, is_first);
        b.set(place, Inst::Select(better, token, place));
        b.set(most, Inst::Select(better, other, most));
    }

    /// A token of the nucleus.
    fn draw(
        &self,
        b: &mut Builder,
        x: &Logits,
        most: Reg,
        (temperature, top_p): (Reg, Reg),
        random: Reg,
    ) -> Reg {
        let log2_e = b.float(std::f32::consts::LOG2_E, 1);
        let one = b.float(1.0, 1);
        let sharper = b.div(one, temperature);
        let (largest, smallest) = (b.float(f32::MAX, 1), b.float(f32::MIN, 1));
        let sharper = b.binary(Binary::Min, sharper, largest);
        // Octaves below the likeliest token. Finite, so that no product with it is NaN.
        let octaves = |b: &mut Builder, logit: Reg| {
            let d = b.sub(logit, most);
            let u = b.mul(d, log2_e);
            b.binary(Binary::Max, u, smallest)
        };
        // A token's probability beside the likeliest one's if it is at least `least`, and whether it is less.
        let share = |b: &mut Builder, logit: Reg, least: Reg, sharper: Reg| {
            let u = octaves(b, logit);
            let outside = b.less(u, least);
            let u = b.mul(u, sharper);
            let p = b.unary(Unary::Exp2, u);
            let none = b.float(0.0, 1);
            (b.inst("p", Inst::Select(outside, none, p)), outside)
        };
        let mass_from = |b: &mut Builder, least: Reg, sharper: Reg| {
            let zero = b.float(0.0, 1);
            let mass = b.var("mass", zero);
            x.for_each(b, |b, logit, _| {
                let (p, _) = share(b, logit, least, sharper);
                b.set(mass, Inst::Binary(Binary::Add, p, mass));
            });
            mass
        };
        let total_mass = |b: &mut Builder, least: Reg| {
            let mass = mass_from(b, least, one);
            let total = block_sum(b, self.sums, 0, mass, x.threads);
            b.barrier();
            total
        };
        let all = b.float(f32::NEG_INFINITY, 1);
        let all = total_mass(b, all);
        let wanted = b.mul(top_p, all);
        let lowest = b.float(-LEAST, 1);
        let low = b.var("low", lowest);
        let highest = b.float(0.0, 1);
        let high = b.var("high", highest);
        b.serial("halving", 0, HALVINGS, |b, _| {
            let (half, sum) = (b.float(0.5, 1), b.add(low, high));
            let middle = b.mul(half, sum);
            let mass = total_mass(b, middle);
            let too_few = b.less(mass, wanted);
            b.set(high, Inst::Select(too_few, middle, high));
            b.set(low, Inst::Select(too_few, low, middle));
        });
        // Everything if even the least probabilities are wanted.
        let everything = total_mass(b, lowest);
        let not_enough = b.less(everything, wanted);
        let none = b.float(f32::NEG_INFINITY, 1);
        b.set(low, Inst::Select(not_enough, none, low));

        let mine = mass_from(b, low, sharper);
        let (before, total) = self.running_sum(b, mine, x.threads);
        let target = b.mul(random, total);
        // The thread in whose share the target falls; the likeliest token if rounding leaves it in none.
        let zero = b.int(0, 1);
        leader(b, x.threads.t, |b| b.store(self.places, 0, zero));
        let end = b.add(before, mine);
        let is_past = b.less(target, before);
        let is_inside = b.less(target, end);
        let token = b.var("token", zero);
        b.barrier();
        b.if_else(
            is_past,
            |_| {},
            |b| {
                b.if_else(
                    is_inside,
                    |b| {
                        let mass = b.var("walked", before);
                        x.for_each(b, |b, logit, candidate| {
                            let (p, outside) = share(b, logit, low, sharper);
                            // The last token of the nucleus at which the sum before it is not beyond the target.
                            let beyond = b.less(target, mass);
                            let skip = b.binary(Binary::Or, outside, beyond);
                            let candidate = b.unary(Unary::IndexToI32, candidate);
                            b.set(token, Inst::Select(skip, token, candidate));
                            b.set(mass, Inst::Binary(Binary::Add, p, mass));
                        });
                        b.store(self.places, 0, token);
                    },
                    |_| {},
                );
            },
        );
        b.barrier();
        b.load("drawn", self.places, 0, 1)
    }

    /// The sum of the numbers of the threads before this one, and that of all.
    fn running_sum(&self, b: &mut Builder, x: Reg, threads: Threads) -> (Reg, Reg) {
        b.store(self.values, threads.t, x);
        b.barrier();
        let zero = b.float(0.0, 1);
        let (before, total) = (b.var("before", zero), b.var("total", zero));
        b.serial("i", 0, threads.count, |b, i| {
            let value = b.load("value", self.values, i, 1);
            let is_before = b.less(i, threads.t);
            let counted = b.inst("v", Inst::Select(is_before, value, zero));
            b.set(before, Inst::Binary(Binary::Add, before, counted));
            b.set(total, Inst::Binary(Binary::Add, total, value));
        });
        b.barrier();
        (before, total)
    }
}
