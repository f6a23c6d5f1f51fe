//! The nucleus: the least probability of its tokens, found by splitting a range, and what they weigh.

use rwkvc_ir::DType;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Access, Binary, Buf, Compare, Inst, Kernel, LoopKind, Reg, Unary};

use super::super::at;
use super::super::block::{Threads, block_sum, leader};
use super::slice::{SLICE, Slice};
use super::{LOWEST, MASSES, MOST, Open, Options, SHARES, SUMS, SamplerBuffer, Shape};

/// Probabilities below `2^-LEAST` of the highest are not told apart.
const LEAST: f32 = 32.0;

/// How often the range of the least probability of the nucleus is split: to `2^-13` of an octave.
pub(super) const SPLITS: usize = 3;

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
    /// The probabilities of each slice above each bound of a split.
    pub(super) fn masses(&self, split: usize) -> (Kernel, Vec<SamplerBuffer>) {
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
            b.for_loop(LoopKind::Serial, "i", 0, part_size, 4, |b, i| {
                let place = at(part, part_size) + i;
                let u = b.load("u", memory, place.clone(), 4);
                let p = b.load("p", memory, place + SLICE, 4);
                let is_above = b.inst("is_above", Inst::Compare(Compare::Le, above, u));
                let p = b.inst("p", Inst::Select(is_above, p, zero));
                b.set(sum, Inst::Binary(Binary::Add, sum, p));
            });
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
        b.for_loop(LoopKind::Serial, "slice", part, slices, together, |b, slice| {
            let mass = b.load("mass", before.masses, (at(row, slices) + slice) * SUMS + bound, 1);
            b.set(sum, Inst::Binary(Binary::Add, sum, mass));
        });
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

    /// What the tokens of each slice that are in the nucleus weigh, and where the nucleus ends.
    pub(super) fn shares(&self) -> (Kernel, Vec<SamplerBuffer>) {
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

    /// Memory, after all parameters.
    fn numbers(&self, open: &mut Open<'_>) -> Numbers {
        let threads = i64::from(self.features.threads);
        Numbers {
            values: open.s.b.shared("values", DType::F32, threads),
            sums: open.s.sums(1),
        }
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
pub(super) fn sharper(b: &mut Builder, temperature: Reg) -> Reg {
    let (one, largest) = (b.float(1.0, 1), b.float(f32::MAX, 1));
    let sharper = b.div(one, temperature);
    b.binary(Binary::Min, sharper, largest)
}
