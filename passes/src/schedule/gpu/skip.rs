//! A product with activations that are mostly zero: only what belongs to the others is read.
//!
//! The matrix lies in panels of 16 outputs, input after input, so that an input is 32 bytes of a bf16 panel: the least that
//! memory gives. A block has a panel and a row of activations:
//!
//! ```text
//! list      each warp lists those of its share of the inputs that are not zero, in shared memory
//! multiply  a few threads for an input of the list, 16 bytes each, and as many of these in flight as registers allow
//! add up    by shuffles in a warp, through shared memory between warps
//! ```
//!
//! The order of a sum depends on which activations are zero and on nothing else.

use rwkvc_backend_api::GpuFeatures;
use rwkvc_ir::DType;
use rwkvc_ir::graph::ops::Member;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Binary, Buf, Compare, Extent, Inst, LoopKind, Reg, Unary};

use super::super::group::{self, Buffers, dispatch};
use super::block::{Threads, clamped, lanes_of, parts, within};
use super::prologue::Carried;
use super::{Scheduled, Tensor, at, matrix};

/// Outputs of a panel.
pub(super) const WIDTH: i64 = 16;

/// Activations that a thread looks at before any is used.
const LOOKS: i64 = 32;

/// Loads of a matrix that a thread has in flight.
const IN_FLIGHT: i64 = 8;

/// Whether the matrix of a group lies in panels: the only member's, if it skips zeros.
pub(super) fn is_skipping(members: &[Member]) -> bool {
    matches!(members, [Member { skip_zeros: true, .. }])
}

/// `y = activation(W x + bias) * scale + residual`, for a member that skips zeros. What is carried besides is as in the products of
/// dense activations.
pub(super) fn linear_group(
    members: &[Member],
    operands: &[Tensor],
    results: &[Tensor],
    carries: bool,
    features: &GpuFeatures,
    most: i64,
) -> Vec<Scheduled> {
    let rows = operands[0].rows();
    let (mut s, all) = group::open(members, operands, results, features, Some(&|_| WIDTH), 1);
    if rows != Extent::fixed(1) && matrix::fits(&all, &s.b, features) {
        return matrix::linear_group(members, operands, results, features, most);
    }
    let carried = carries.then(|| Carried::open(&mut s, operands));
    let m = &all[0];
    let share = Share::new(m, &s.b, features);
    let warps = i64::from(features.threads / features.warp);
    let list = s.b.shared("list", DType::I32, warps * share.room());
    let sums = s.b.shared("sums", DType::F32, warps * WIDTH);
    let panels = [parts(m.outputs, WIDTH)].into_iter();
    let tasks: Vec<i64> = panels.chain(carried.iter().map(|c| c.tasks(features))).collect();
    s.blocks_of_rows(rows, tasks.iter().sum(), |b, row, task, threads| {
        let task = b.address("task", task);
        dispatch(b, task, &tasks, 0, 0, &|b, part, panel| {
            if let (Some(carried), 1) = (&carried, part) {
                return carried.carry(b, panel, threads);
            }
            let product = Product {
                m,
                share: &share,
                list,
                sums,
                threads,
                row: row.clone() * m.inputs,
                panel: panel.clone() * (WIDTH * m.inputs),
            };
            product.add_up(b);
            let first = panel * WIDTH;
            within(b, threads.t, WIDTH, threads.count, |b| {
                let output = b.address("output", first + threads.t);
                within(b, output, m.outputs, WIDTH, |b| {
                    let total = product.total(b);
                    let position = row.clone() * m.outputs + output;
                    m.epilogue(b, Affine::from(output), position, total);
                });
            });
        });
    });
    vec![s.finish()]
}

/// How the inputs are shared out: some rounds for all, in each of which a thread looks at neighbours.
struct Share {
    /// Activations that a thread loads at once.
    lanes: i64,
    /// Such loads of a thread before what they found is used.
    loads: i64,
    /// Inputs that a warp looks at before what it found is used.
    inputs: i64,
    /// How often that happens.
    rounds: i64,
    /// Outputs that a thread reads at once.
    outputs: i64,
}

impl Share {
    fn new(m: &Buffers<'_>, b: &Builder, features: &GpuFeatures) -> Share {
        let (threads, warp) = (i64::from(features.threads), i64::from(features.warp));
        let lanes = i64::from(lanes_of(m.inputs, 4));
        let all = parts(m.inputs / lanes, threads);
        let rounds = parts(all, LOOKS / lanes);
        let loads = parts(all, rounds);
        Share {
            lanes,
            loads,
            inputs: loads * lanes * warp,
            rounds,
            outputs: 16 / b.dtype(m.w).size() as i64,
        }
    }

    /// Places for what a warp finds: a power of two, so that a place is certainly one of them when its upper bits are cut off.
    fn room(&self) -> i64 {
        self.inputs.unsigned_abs().next_power_of_two() as i64
    }
}

/// What the threads of a block add up.
struct Product<'a, 'm> {
    m: &'a Buffers<'m>,
    share: &'a Share,
    list: Buf,
    sums: Buf,
    threads: Threads,
    /// Where the activations start.
    row: Affine,
    /// Where the panel starts.
    panel: Affine,
}

impl Product<'_, '_> {
    /// Leaves each warp's sums in shared memory.
    fn add_up(&self, b: &mut Builder) {
        let (share, threads) = (self.share, self.threads);
        let lanes = share.outputs as u32;
        let zero = b.float(0.0, lanes);
        let acc = b.var("acc", zero);
        b.serial("round", 0, share.rounds, |b, round| {
            let count = self.find(b, round);
            b.barrier();
            self.multiply(b, count, acc);
            if share.rounds > 1 {
                b.barrier();
            }
        });
        let each = WIDTH / share.outputs;
        let mut sum = acc;
        let mut mask = each;
        while mask < threads.warp_size {
            let other = b.shuffle(sum, mask as u32);
            sum = b.add(sum, other);
            mask *= 2;
        }
        within(b, threads.lane, each, threads.warp_size, |b| {
            let place = at(threads.warp, WIDTH) + at(threads.lane, share.outputs);
            b.store(self.sums, place, sum);
        });
        b.barrier();
    }

    /// What the warps' sums of an output are together: the one whose number is that of the thread.
    fn total(&self, b: &mut Builder) -> Reg {
        let part = |b: &mut Builder, warp: i64| {
            let place = Affine::from(self.threads.t) + warp * WIDTH;
            b.load("part", self.sums, place, 1)
        };
        (1..self.threads.warps()).fold(part(b, 0), |sum, warp| {
            let part = part(b, warp);
            b.add(sum, part)
        })
    }

    /// Lists those of the warp's inputs that are not zero; how many there are, the same in all its threads.
    fn find(&self, b: &mut Builder, round: Reg) -> Reg {
        let (share, threads) = (self.share, self.threads);
        let vectors = self.m.inputs / share.lanes;
        let mine = at(round, share.loads * threads.count)
            + at(threads.warp, share.loads * threads.warp_size)
            + threads.lane;
        let loads: Vec<_> = (0..share.loads)
            .map(|i| {
                let vector = mine.clone() + i * threads.warp_size;
                let (vector, inside) =
                    clamped(b, vector, vectors, share.rounds * share.loads * threads.count);
                let x = b.load(
                    "x",
                    self.m.x,
                    self.row.clone() + at(vector, share.lanes),
                    share.lanes as u32,
                );
                (vector, inside, x)
            })
            .collect();
        let [none, one] = [0, 1].map(|n| b.int(n, 1));
        let zero = b.float(0.0, 1);
        let mut found = vec![];
        let mut count = none;
        for (vector, inside, x) in loads {
            let first = b.address("k", at(vector, share.lanes));
            let first = b.unary(Unary::IndexToI32, first);
            for lane in 0..share.lanes as u32 {
                let x = match share.lanes {
                    1 => x,
                    _ => b.inst("x", Inst::Extract(x, lane)),
                };
                let mut is_there = b.inst("is_there", Inst::Compare(Compare::Ne, x, zero));
                if let Some(inside) = inside {
                    is_there = b.binary(Binary::And, is_there, inside);
                }
                let lane = b.int(lane as i32, 1);
                found.push((b.add(first, lane), is_there, count));
                let more = b.inst("more", Inst::Select(is_there, one, none));
                count = b.add(count, more);
            }
        }
        let (before, total) = self.counts_before(b, count);
        let mask = b.int(share.room() as i32 - 1, 1);
        let own = at(threads.warp, share.room());
        for (k, is_there, earlier) in found {
            let place = b.add(before, earlier);
            let place = b.binary(Binary::And, place, mask);
            let place = b.unary(Unary::ToIndex, place);
            b.if_else(is_there, |b| b.store(self.list, own.clone() + place, k), |_| {});
        }
        total
    }

    /// The sum of the numbers of those threads of the warp that come before this one, and of all.
    fn counts_before(&self, b: &mut Builder, count: Reg) -> (Reg, Reg) {
        let threads = self.threads;
        let lane = b.unary(Unary::IndexToI32, threads.lane);
        let none = b.int(0, 1);
        let (mut before, mut total) = (none, count);
        let mut mask = 1;
        while mask < threads.warp_size {
            let other = b.shuffle(total, mask as u32);
            let bit = b.int(mask as i32, 1);
            let bit = b.binary(Binary::And, lane, bit);
            let is_later = b.inst("is_later", Inst::Compare(Compare::Lt, none, bit));
            let more = b.inst("more", Inst::Select(is_later, other, none));
            before = b.add(before, more);
            total = b.add(total, other);
            mask *= 2;
        }
        (before, total)
    }

    /// Adds the products of what the warp has listed.
    fn multiply(&self, b: &mut Builder, count: Reg, acc: Reg) {
        let (share, threads) = (self.share, self.threads);
        let each = WIDTH / share.outputs;
        let together = threads.warp_size / each;
        let (item, part) = b.div_rem(threads.lane, each);
        let count = b.unary(Unary::ToIndex, count);
        let most = b.index(share.room());
        let count = b.binary(Binary::Min, count, most);
        let (nothing, last) = (b.index(0), b.address("last", Affine::from(count) - 1));
        let last = b.binary(Binary::Max, last, nothing);
        let [lowest, highest] = [0, self.m.inputs - 1].map(|k| b.int(k as i32, 1));
        let own = at(threads.warp, share.room());
        let unroll = IN_FLIGHT.min(parts(share.inputs, together));
        let (lanes, step) = (share.outputs as u32, unroll * together);
        b.for_loop(LoopKind::Serial, "listed", nothing, count, step, |b, listed| {
            let items: Vec<_> = (0..unroll)
                .map(|u| {
                    let item = b.address("item", Affine::from(listed) + item + u * together);
                    let is_listed = b.less(item, count);
                    let item = b.binary(Binary::Min, item, last);
                    let k = b.load("k", self.list, own.clone() + item, 1);
                    let k = b.binary(Binary::Max, k, lowest);
                    let k = b.binary(Binary::Min, k, highest);
                    (b.unary(Unary::ToIndex, k), is_listed)
                })
                .collect();
            let loads: Vec<_> = items
                .into_iter()
                .map(|(k, is_listed)| {
                    let place = self.panel.clone() + at(k, WIDTH) + at(part, share.outputs);
                    let w = b.load("w", self.m.w, place, lanes);
                    let x = b.load("x", self.m.x, self.row.clone() + k, 1);
                    (w, x, is_listed)
                })
                .collect();
            for (w, x, is_listed) in loads {
                // The last of the list is read again beyond its end, and adds nothing: no product with zero, which an infinite
                // weight would make a NaN of.
                let x = b.splat(x, lanes);
                let more = b.fma(w, x, acc);
                let is_listed = b.splat(is_listed, lanes);
                b.set(acc, Inst::Select(is_listed, more, acc));
            }
        });
    }
}
