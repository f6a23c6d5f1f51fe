//! Choosing the next token where the logits are, so that a step needs nothing of the host.
//!
//! Each block has a slice of the logits of one state, so that all multiprocessors read them. The nucleus, the fewest tokens whose
//! probabilities add up to `top_p`, is all tokens of at least some probability; it is found without sorting: each of three
//! launches splits the range in which that probability lies into 63 parts. One of the nucleus is drawn by a random number, a
//! hash of a seed and a count; as the runtime's sampler does it, the temperature changes the shares within the nucleus, not the
//! nucleus.
//!
//! ```text
//! most    logits                         → the largest of each slice
//! masses  logits, most                   → of each slice, the probabilities above each of 63 bounds: three times
//! shares  logits, most, masses           → of each slice, what its tokens of the nucleus weigh
//! draw    logits, most, shares           → the slice that the random number falls into, and the token there
//! ```
//!
//! All sums are added up in one order, so that equal logits and seeds give equal tokens.

mod slice;

use rwkvc_abi::SampleOptions;
use rwkvc_backend_api::GpuFeatures;
use rwkvc_ir::DType;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Access, Binary, Buf, Compare, Extent, Inst, Kernel, Reg, Unary};

use super::block::{Threads, block_sum, leader, parts};
use super::{Scope, at};
use slice::{SLICE, Slice};

/// Words of the [`SampleOptions`] of a state.
const OPTION_WORDS: i64 = SampleOptions::WORDS as i64;

/// Probabilities below `2^-LEAST` of the highest are not told apart.
const LEAST: f32 = 32.0;

/// Sums of probabilities of a slice: that of all tokens, and those of tokens above so many bounds but one.
const SUMS: i64 = 64;

/// How often the range of the least probability of the nucleus is split: to `2^-13` of an octave.
const SPLITS: usize = 3;

/// What a kernel of the sampler reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplerBuffer {
    /// The logits `[T, vocab]`, f32.
    Logits,
    /// A [`SampleOptions`] for each state, as i32 words.
    Options,
    /// How many tokens each state chose before `[T]`, i32.
    Counts,
    /// The tokens `[T]`, i32.
    Tokens,
    /// Memory that the kernels share, by its place in [`Sampler::scratch`].
    Scratch(usize),
}

/// The kernels that choose a token for each row of logits, in launch order, which count on. A temperature of 0 takes the first
/// of the most likely. The token is −1 where a logit is not a finite number.
#[derive(Debug)]
pub struct Sampler {
    /// Each with what it is passed.
    pub steps: Vec<(Kernel, Vec<SamplerBuffer>)>,
    /// Words of 32 bits of each part of the shared memory, for each state.
    pub scratch: Vec<i64>,
}

/// The parts of the scratch memory.
const MOST: usize = 0;
const PLACES: usize = 1;
const SHARES: usize = 2;
/// Two of each, of which a launch reads one and writes the other.
const MASSES: [usize; 2] = [3, 4];
const LOWEST: [usize; 2] = [5, 6];

/// The sampler of logits of so many tokens.
pub fn sampler(vocab: i64, features: &GpuFeatures) -> Sampler {
    let slices = parts(vocab, SLICE);
    let mut scratch = vec![0; 7];
    (scratch[MOST], scratch[PLACES], scratch[SHARES]) = (slices, slices, slices);
    for i in [0, 1] {
        (scratch[MASSES[i]], scratch[LOWEST[i]]) = (slices * SUMS, 1);
    }
    let all = Shape {
        vocab,
        slices,
        features,
        scratch: &scratch,
    };
    let mut steps = vec![all.most()];
    steps.extend((0..SPLITS).map(|split| all.masses(split)));
    steps.extend([all.shares(), all.draw()]);
    Sampler { steps, scratch }
}

/// What all kernels know.
struct Shape<'f> {
    vocab: i64,
    /// Slices of a row.
    slices: i64,
    features: &'f GpuFeatures,
    scratch: &'f [i64],
}

/// A kernel that is being built.
struct Open<'f> {
    s: Scope<'f>,
    passed: Vec<SamplerBuffer>,
    scratch: &'f [i64],
}

impl Open<'_> {
    /// A parameter.
    fn param(&mut self, name: &str, buffer: SamplerBuffer, access: Access) -> Buf {
        let (dtype, each) = match buffer {
            SamplerBuffer::Logits => unreachable!("it has a length of its own"),
            SamplerBuffer::Options => (DType::I32, OPTION_WORDS),
            SamplerBuffer::Counts | SamplerBuffer::Tokens => (DType::I32, 1),
            SamplerBuffer::Scratch(part) if part == PLACES => (DType::I32, self.scratch[part]),
            SamplerBuffer::Scratch(part) => (DType::F32, self.scratch[part]),
        };
        self.passed.push(buffer);
        self.s.b.param(name, dtype, Extent::per_token(each), access)
    }

    fn read(&mut self, name: &str, part: usize) -> Buf {
        self.param(name, SamplerBuffer::Scratch(part), Access::Read)
    }

    fn write(&mut self, name: &str, part: usize) -> Buf {
        self.param(name, SamplerBuffer::Scratch(part), Access::Write)
    }

    fn finish(self) -> (Kernel, Vec<SamplerBuffer>) {
        (self.s.finish().kernel, self.passed)
    }
}

/// How a state's token is chosen.
#[derive(Clone, Copy)]
struct Options {
    /// Whether it is drawn: the temperature is not 0.
    is_random: Reg,
    temperature: Reg,
    top_p: Reg,
    seed: Reg,
}

impl Options {
    fn load(b: &mut Builder, buf: Buf, row: Reg) -> Self {
        let option = |b: &mut Builder, i: i64| b.load("option", buf, at(row, OPTION_WORDS) + i, 1);
        let [temperature, top_p] = [0, 1].map(|i| {
            let bits = option(b, i);
            b.unary(Unary::FromBits, bits)
        });
        let zero = b.float(0.0, 1);
        Options {
            is_random: b.less(zero, temperature),
            temperature,
            top_p,
            seed: option(b, 2),
        }
    }
}

/// What the masses of the launch before say of the least probability of the nucleus, in octaves below the highest.
struct Before {
    masses: Buf,
    /// The bounds that they belong to begin here; with the first launch, at `-LEAST`.
    lowest: Option<Buf>,
    /// How far their bounds are apart.
    apart: f32,
}

/// Memory of a block: a number for each thread, and for each warp.
#[derive(Clone, Copy)]
struct Numbers {
    values: Buf,
    sums: Buf,
}

/// Octaves between the bounds of a launch.
fn apart(split: usize) -> f32 {
    (0..=split).fold(LEAST, |range, _| range / (SUMS - 1) as f32)
}

impl Shape<'_> {
    fn open(&self, name: &str) -> (Open<'_>, Buf) {
        let mut s = Scope::new(&format!("sample_{name}_{}", self.vocab), &[], &[], self.features);
        let len = Extent::per_token(self.vocab);
        let logits = s.b.param("logits", DType::F32, len, Access::Read);
        let open = Open {
            s,
            passed: vec![SamplerBuffer::Logits],
            scratch: self.scratch,
        };
        (open, logits)
    }

    /// A block for each slice: `body(builder, slice)` in states whose token is drawn.
    fn blocks(
        &self,
        open: &mut Open<'_>,
        (logits, options): (Buf, Buf),
        body: impl FnOnce(&mut Builder, Slice, Options),
    ) {
        let slices = self.slices;
        let before = |b: &mut Builder, block: Reg| {
            let (row, slice) = b.div_rem(block, slices);
            (row, slice, Options::load(b, options, row))
        };
        let vocab = self.vocab;
        open.s.blocks_knowing(
            Extent::per_token(slices),
            before,
            |b, _, threads, (row, slice, options)| {
                b.if_else(
                    options.is_random,
                    |b| {
                        let slice = Slice::load(b, (logits, vocab), (row, slice), threads);
                        body(b, slice, options);
                    },
                    |_| {},
                );
            },
        );
    }

    /// The largest logit of each slice, and the first token that has it; -1 if one is not a finite number.
    fn most(&self) -> (Kernel, Vec<SamplerBuffer>) {
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

    /// The probabilities of each slice above each bound of a split.
    fn masses(&self, split: usize) -> (Kernel, Vec<SamplerBuffer>) {
        let (mut open, logits) = self.open(&format!("masses{split}"));
        let options = open.param("options", SamplerBuffer::Options, Access::Read);
        let most = open.read("most", MOST);
        let before = (split > 0).then(|| self.before(&mut open, split));
        let masses = open.write("sums_above", MASSES[split % 2]);
        let lowest = open.write("lowest", LOWEST[split % 2]);
        let memory = open.s.b.shared("slice", DType::F32, 2 * SLICE);
        let numbers = self.numbers(&mut open);
        let slices = self.slices;
        self.blocks(&mut open, (logits, options), |b, x, options| {
            let threads = x.threads;
            let most = self.most_of(b, most, x.row, threads);
            let low = match &before {
                None => b.float(-LEAST, 1),
                Some(before) => self.lowest(b, before, numbers, (x.row, options, threads)),
            };
            leader_of_row(b, &x, |b| b.store(lowest, x.row, low));
            let one = b.float(1.0, 1);
            x.keep(b, memory, most, one);
            b.barrier();
            // A thread adds up a part of the slice above one bound.
            let (part, bound) = b.div_rem(threads.t, SUMS);
            let part_size = SLICE / (threads.count / SUMS);
            let index = b.unary(Unary::IndexToI32, bound);
            let steps = b.unary(Unary::ToF32, index);
            let one = b.float(1.0, 1);
            let steps = b.sub(steps, one);
            let width = b.float(apart(split), 1);
            let above = b.fma(steps, width, low);
            let first = b.index(1);
            let is_all = b.less(bound, first);
            let everything = b.float(f32::NEG_INFINITY, 1);
            let above = b.inst("above", Inst::Select(is_all, everything, above));
            let above = b.splat(above, 4);
            let zero = b.float(0.0, 4);
            let sum = b.var("sum", zero);
            b.for_loop(
                rwkvc_ir::kernel::LoopKind::Serial,
                "i",
                0,
                part_size,
                4,
                |b, i| {
                    let place = at(part, part_size) + i;
                    let u = b.load("u", memory, place.clone(), 4);
                    let p = b.load("p", memory, place + SLICE, 4);
                    let is_above = b.inst("is_above", Inst::Compare(Compare::Le, above, u));
                    let p = b.inst("p", Inst::Select(is_above, p, zero));
                    b.set(sum, Inst::Binary(Binary::Add, sum, p));
                },
            );
            let sum = b.reduce_add(sum);
            b.store(numbers.values, threads.t, sum);
            b.barrier();
            let end = b.index(SUMS);
            let has_sum = b.less(threads.t, end);
            b.if_else(
                has_sum,
                |b| {
                    let sum = sum_of_parts(b, numbers.values, threads, threads.t);
                    b.store(masses, (at(x.row, slices) + x.slice) * SUMS + threads.t, sum);
                },
                |_| {},
            );
        });
        open.finish()
    }

    /// Opens what a launch knows of the one before, `split` launches after the first.
    fn before(&self, open: &mut Open<'_>, split: usize) -> Before {
        let last = split - 1;
        Before {
            masses: open.read("masses", MASSES[last % 2]),
            lowest: (last > 0).then(|| open.read("lowest_before", LOWEST[last % 2])),
            apart: apart(last),
        }
    }

    /// Memory, after all parameters.
    fn numbers(&self, open: &mut Open<'_>) -> Numbers {
        let threads = i64::from(self.features.threads);
        Numbers {
            values: open.s.b.shared("values", DType::F32, threads),
            sums: open.s.sums(1),
        }
    }

    /// The highest of the bounds with enough above it; -∞ if all tokens are not enough.
    fn lowest(
        &self,
        b: &mut Builder,
        before: &Before,
        memory: Numbers,
        (row, options, threads): (Reg, Options, Threads),
    ) -> Reg {
        let (part, bound) = b.div_rem(threads.t, SUMS);
        let zero = b.float(0.0, 1);
        let sum = b.var("mass", zero);
        let together = threads.count / SUMS;
        let slices = self.slices;
        b.for_loop(
            rwkvc_ir::kernel::LoopKind::Serial,
            "slice",
            part,
            slices,
            together,
            |b, slice| {
                let mass = b.load("mass", before.masses, (at(row, slices) + slice) * SUMS + bound, 1);
                b.set(sum, Inst::Binary(Binary::Add, sum, mass));
            },
        );
        b.store(memory.values, threads.t, sum);
        b.barrier();
        let all = b.index(0);
        let all = sum_of_parts(b, memory.values, threads, all);
        let wanted = b.mul(options.top_p, all);
        let mass = sum_of_parts(b, memory.values, threads, bound);
        // Each bound counts once, and the sum of all not at all.
        let is_enough = b.inst("enough", Inst::Compare(Compare::Le, wanted, mass));
        let [first, end] = [1, SUMS].map(|i| b.index(i));
        let is_bound = b.inst("is_bound", Inst::Compare(Compare::Le, first, threads.t));
        let is_first_part = b.less(threads.t, end);
        let counts = b.binary(Binary::And, is_bound, is_first_part);
        let counts = b.binary(Binary::And, counts, is_enough);
        let one = b.float(1.0, 1);
        let count = b.inst("count", Inst::Select(counts, one, zero));
        let count = block_sum(b, memory.sums, 0, count, threads);
        let low = match before.lowest {
            None => b.float(-LEAST, 1),
            Some(lowest) => b.load("low", lowest, row, 1),
        };
        let steps = b.sub(count, one);
        let width = b.float(before.apart, 1);
        let bound = b.fma(steps, width, low);
        let none = b.float(f32::NEG_INFINITY, 1);
        let has_bound = b.less(zero, count);
        b.inst("low", Inst::Select(has_bound, bound, none))
    }

    /// The largest logit of a row, in all threads.
    fn most_of(&self, b: &mut Builder, most: Buf, row: Reg, threads: Threads) -> Reg {
        let low = b.float(f32::NEG_INFINITY, 1);
        let largest = b.var("largest", low);
        let last = b.index(self.slices - 1);
        b.for_loop(
            rwkvc_ir::kernel::LoopKind::Serial,
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

    /// What the tokens of each slice that are in the nucleus weigh, and where the nucleus ends.
    fn shares(&self) -> (Kernel, Vec<SamplerBuffer>) {
        let (mut open, logits) = self.open("shares");
        let options = open.param("options", SamplerBuffer::Options, Access::Read);
        let most = open.read("most", MOST);
        let before = self.before(&mut open, SPLITS);
        let shares = open.write("shares", SHARES);
        let lowest = open.write("lowest", LOWEST[SPLITS % 2]);
        let numbers = self.numbers(&mut open);
        self.blocks(&mut open, (logits, options), |b, x, options| {
            let threads = x.threads;
            let most = self.most_of(b, most, x.row, threads);
            let low = self.lowest(b, &before, numbers, (x.row, options, threads));
            leader_of_row(b, &x, |b| b.store(lowest, x.row, low));
            let sharper = sharper(b, options.temperature);
            let weights = x.weights(b, most, low, sharper);
            let zero = b.float(0.0, 1);
            let sum = weights.into_iter().fold(zero, |sum, p| b.add(sum, p));
            // The sums of the launch before are not needed any more.
            b.barrier();
            let sum = block_sum(b, numbers.sums, 0, sum, threads);
            leader(b, threads.t, |b| {
                b.store(shares, at(x.row, self.slices) + x.slice, sum);
            });
        });
        open.finish()
    }

    /// Chooses.
    fn draw(&self) -> (Kernel, Vec<SamplerBuffer>) {
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

    /// The first of the most likely tokens of a row, and whether all logits are finite, in all threads.
    fn likeliest(&self, b: &mut Builder, (most, places): (Buf, Buf), row: Reg) -> (Reg, Reg) {
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

/// Runs `body` in one thread of a row.
fn leader_of_row(b: &mut Builder, x: &Slice, body: impl FnOnce(&mut Builder)) {
    let first = b.index(1);
    let is_first = b.less(x.slice, first);
    b.if_else(is_first, |b| leader(b, x.threads.t, body), |_| {});
}

/// The sum of the parts that threads have of the sum of this number.
fn sum_of_parts(b: &mut Builder, values: Buf, threads: Threads, number: Reg) -> Reg {
    let part = |b: &mut Builder, i: i64| b.load("part", values, at(number, 1) + i * SUMS, 1);
    (1..threads.count / SUMS).fold(part(b, 0), |sum, i| {
        let part = part(b, i);
        b.add(sum, part)
    })
}

/// What octaves are multiplied with at a temperature: finite, however small it is.
fn sharper(b: &mut Builder, temperature: Reg) -> Reg {
    let (one, largest) = (b.float(1.0, 1), b.float(f32::MAX, 1));
    let sharper = b.div(one, temperature);
    b.binary(Binary::Min, sharper, largest)
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
