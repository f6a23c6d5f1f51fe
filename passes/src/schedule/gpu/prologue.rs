//! Products that normalise, shift and mix what they multiply themselves: one launch less, which would take as long as they do.
//!
//! Each block asks for its weights, then computes the mix of its member in shared memory: from the statistics of the row,
//! which is in the cache that all multiprocessors share, like the vectors of the norm. The state is only read; one block
//! leaves its next value elsewhere, and the blocks of a later launch carry that to its place.

use crate::schedule::ScheduleError;
use rwkvc_backend_api::GpuFeatures;
use rwkvc_ir::DType;
use rwkvc_ir::graph::ops::Member;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Buf, Extent, Reg};

use super::super::group::{Buffers, dispatch};
use super::block::{Row, Threads, block_sum, clamped, leader, parts, where_inside, within};
use super::linear::Dot;
use super::norm::statistics;
use super::{Scheduled, Scope, Tensor, at};

/// Blocks of a launch, at most: what all of them read again should be little beside the weights.
const BLOCKS: i64 = 512;

/// Bytes of memory that are cached together.
const LINE: i64 = 128;

/// A `norm_shift_mix` of one token, of which each member of a group takes a mix.
pub(crate) struct Prologue<'a> {
    /// Added to the variance.
    pub(crate) eps: f64,
    /// How many mixes there are.
    pub(crate) n_mixes: usize,
    /// For each member the number of its mix.
    pub(crate) mixes: &'a [usize],
}

/// The buffers of the token shift.
struct Source {
    x: Buf,
    weight: Buf,
    bias: Buf,
    prev: Buf,
    next: Buf,
    mixes: Vec<Buf>,
    /// Where blocks add up.
    sums: Buf,
    /// What a block's member multiplies.
    mixed: Buf,
}

/// `y = activation(W mix + bias) * scale + residual` for each member. The operands are those of the `norm_shift_mix`, then those of
/// the members but what they multiply; the results those of the members, then the next state.
pub(super) fn linear_group(
    prologue: &Prologue<'_>,
    members: &[Member],
    operands: &[Tensor],
    results: &[Tensor],
    features: &GpuFeatures,
) -> Result<Vec<Scheduled>, ScheduleError> {
    let n = operands[0].last();
    let (threads, warp) = (i64::from(features.threads), i64::from(features.warp));
    Row::check(n, threads)?;
    let dims: Vec<String> = results[..members.len()]
        .iter()
        .map(|y| format!("{}x{n}", y.last()))
        .collect();
    let first = 4 + prologue.n_mixes;
    let name = format!("mixed_{}_{}", operands[first].dtype.name(), dims.join("_"));
    let mut s = Scope::new(&name, operands, results, features);
    let (x, weight, bias, prev) = (
        s.read("x", 0),
        s.read("norm_weight", 1),
        s.read("norm_bias", 2),
        s.read("prev", 3),
    );
    let mixes = (0..prologue.n_mixes).map(|i| s.read("mix", 4 + i)).collect();
    let next = s.write("next", members.len());
    let mut operand = first..;
    let mut all: Vec<Buffers<'_>> = vec![];
    for (m, member) in members.iter().enumerate() {
        let mut read = |s: &mut Scope<'_>, name| s.read(name, operand.next().expect("endless"));
        all.push(Buffers {
            member,
            x,
            w: read(&mut s, "w"),
            quantized: None,
            bias: member.bias.then(|| read(&mut s, "bias")),
            scale: member.scale.then(|| read(&mut s, "scale")),
            residual: member.residual.then(|| read(&mut s, "residual")),
            y: s.write("y", m),
            inputs: n,
            outputs: results[m].last(),
        });
    }
    let source = Source {
        x,
        weight,
        bias,
        prev,
        next,
        mixes,
        sums: s.sums(2),
        mixed: s.b.shared("mixed", DType::F32, n),
    };
    all.iter_mut().for_each(|m| m.x = source.mixed);

    let dots: Vec<Dot> = all
        .iter()
        .map(|m| Dot::new(n, s.b.dtype(m.w).size() as i64, warp))
        .collect();
    let at_once: Vec<i64> = dots.iter().map(|d| threads / d.group).collect();
    let tasks = |passes: i64| -> Vec<i64> {
        let members = all.iter().zip(&at_once);
        members.map(|(m, rows)| parts(m.outputs, rows * passes)).collect()
    };
    let passes = parts(tasks(1).iter().sum(), BLOCKS);
    let tasks = tasks(passes);
    s.blocks(Extent::fixed(tasks.iter().sum()), |b, block, threads| {
        dispatch(b, block, &tasks, 0, 0, &|b, m, own| {
            let (member, dot) = (&all[m], &dots[m]);
            let (group, i) = b.div_rem(threads.t, dot.group);
            let rows = at_once[m];
            ask_for(b, member, own.clone() * (rows * passes), rows * passes, threads);
            let is_first = (m == 0).then(|| {
                let (own, one) = (b.address("own", own.clone()), b.index(1));
                b.less(own, one)
            });
            source.mix(
                b,
                n,
                prologue.eps,
                source.mixes[prologue.mixes[m]],
                is_first,
                threads,
            );
            b.serial("pass", 0, passes, |b, pass| {
                // Before the first pass the mix is complete; before the others this keeps it out of registers.
                b.barrier();
                let row = own.clone() * (rows * passes) + at(pass, rows) + group;
                let (row, inside) = clamped(b, row, member.outputs, tasks[m] * rows * passes);
                let sums = dot.emit(b, member, &[Affine::default()], at(row, n), i);
                where_inside(b, inside, |b| {
                    leader(b, i, |b| {
                        member.epilogue(b, Affine::from(row), Affine::from(row), sums[0]);
                    });
                });
            });
        });
    });
    Ok(vec![s.finish()])
}

/// Asks for some rows of a member's matrix, a line a thread, so that the memory is at work while the mix is computed.
fn ask_for(b: &mut Builder, m: &Buffers<'_>, first: Affine, rows: i64, threads: Threads) {
    let line = LINE / b.dtype(m.w).size() as i64;
    let (lines, end) = (parts(rows * m.inputs, line), b.index(m.outputs * m.inputs));
    for round in 0..parts(lines, threads.count) {
        let own = b.address("line", Affine::from(threads.t) + round * threads.count);
        within(b, own, lines, threads.count, |b| {
            let place = b.address("place", first.clone() * m.inputs + at(own, line));
            let exists = b.less(place, end);
            b.if_else(exists, |b| b.prefetch(m.w, place), |_| {});
        });
    }
}

impl Source {
    /// Leaves a mix in shared memory, and where `is_first` the normalised row as the next state.
    fn mix(&self, b: &mut Builder, n: i64, eps: f64, mix: Buf, is_first: Option<Reg>, threads: Threads) {
        let row = Row::new(b, n, (threads.t, threads.count), |b, i| b.load("x", self.x, i, 1));
        let mut place = 0..;
        let stats = statistics(b, &row, eps, |b, x| {
            block_sum(b, self.sums, place.next().expect("endless"), x, threads)
        });
        row.for_each(b, |b, j, i| {
            let weight = b.load("weight", self.weight, i, 1);
            let bias = b.load("bias", self.bias, i, 1);
            let now = stats.normalise(b, row.values[j], weight, bias);
            let before = b.load("before", self.prev, i, 1);
            let mix = b.load("mix", mix, i, 1);
            let d = b.sub(before, now);
            let mixed = b.fma(d, mix, now);
            b.store(self.mixed, i, mixed);
            if let Some(is_first) = is_first {
                b.if_else(is_first, |b| b.store(self.next, i, now), |_| {});
            }
        });
    }
}

/// What a launch carries to another place besides: some floats from an operand to another.
pub(super) struct Carried {
    from: Buf,
    to: Buf,
    n: i64,
}

impl Carried {
    /// Opens the parameters for the last two operands.
    pub(super) fn open(s: &mut Scope<'_>, operands: &[Tensor]) -> Carried {
        let last = operands.len() - 1;
        Carried {
            from: s.read("next", last - 1),
            to: s.overwrite("prev", last),
            n: operands[last].len().fixed,
        }
    }

    /// How many blocks it takes.
    pub(super) fn tasks(&self, features: &GpuFeatures) -> i64 {
        parts(self.n, i64::from(features.threads))
    }

    /// What the block of this number does.
    pub(super) fn carry(&self, b: &mut Builder, own: Affine, threads: Threads) {
        let i = b.address("i", own * threads.count + threads.t);
        within(b, i, self.n, threads.count, |b| {
            let x = b.load("x", self.from, i, 1);
            b.store(self.to, i, x);
        });
    }
}
