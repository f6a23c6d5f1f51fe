//! Blocks of threads: who does what, and sums over several of them.

use crate::schedule::ScheduleError;
use rwkvc_ir::DType;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Binary, Buf, Extent, Inst, Reg};

use super::super::rows::by_token;
use super::Scope;

/// The threads of a block, as seen by one of them.
#[derive(Clone, Copy)]
pub(super) struct Threads {
    /// Its number in the block.
    pub(super) t: Reg,
    /// Its number in its warp.
    pub(super) lane: Reg,
    /// The number of its warp.
    pub(super) warp: Reg,
    /// Threads of a block.
    pub(super) count: i64,
    /// Threads of a warp.
    pub(super) warp_size: i64,
}

impl Threads {
    /// Warps of a block.
    pub(super) fn warps(&self) -> i64 {
        self.count / self.warp_size
    }
}

/// How many of `size` things there are if each holds `n`: the last may not be full.
pub(super) fn parts(n: i64, size: i64) -> i64 {
    (n + size - 1) / size
}

impl Scope<'_> {
    /// `grid` blocks: `body(builder, block, threads)` is what a thread does.
    pub(super) fn blocks(&mut self, grid: Extent, body: impl FnOnce(&mut Builder, Reg, Threads)) {
        self.blocks_knowing(grid, |_, _| (), |b, block, threads, ()| body(b, block, threads));
    }

    /// The same, after `before(builder, block)`, whose results are the same for all threads of the block.
    pub(super) fn blocks_knowing<T>(
        &mut self,
        grid: Extent,
        before: impl FnOnce(&mut Builder, Reg) -> T,
        body: impl FnOnce(&mut Builder, Reg, Threads, T),
    ) {
        let (count, warp_size) = (i64::from(self.features.threads), i64::from(self.features.warp));
        self.b.parallel("block", grid, |b, block| {
            let known = before(b, block);
            b.threads("t", count, |b, t| {
                let (warp, lane) = b.div_rem(t, warp_size);
                let threads = Threads {
                    t,
                    lane,
                    warp,
                    count,
                    warp_size,
                };
                body(b, block, threads, known);
            });
        });
    }

    /// `parts` blocks for each of `rows` rows: `body(builder, row, part, threads)`.
    pub(super) fn blocks_of_rows(
        &mut self,
        rows: Extent,
        parts: i64,
        body: impl FnOnce(&mut Builder, Affine, Affine, Threads),
    ) {
        let grid = Extent {
            fixed: rows.fixed * parts,
            per_token: rows.per_token * parts,
        };
        self.blocks(grid, |b, block, threads| {
            let (row, part) = if rows == Extent::fixed(1) {
                (Affine::default(), Affine::from(block))
            } else if parts == 1 {
                (Affine::from(block), Affine::default())
            } else {
                let (row, part) = b.div_rem(block, parts);
                (row.into(), part.into())
            };
            body(b, row, part, threads);
        });
    }

    /// One thread for each of `len` elements: `body(builder, token, element of the token)`. A length that does not
    /// depend on the number of tokens is that of one token.
    pub(super) fn elements(&mut self, len: Extent, body: impl FnOnce(&mut Builder, Affine, Reg)) {
        let (tokens, each) = by_token(len);
        let threads = i64::from(self.features.threads);
        self.blocks_of_rows(tokens, parts(each, threads), |b, token, part, threads| {
            let element = b.address("element", part * threads.count + threads.t);
            within(b, element, each, threads.count, |b| body(b, token, element));
        });
    }

    /// Memory through which the warps of a block add up, for several sums between two barriers.
    pub(super) fn sums(&mut self, sums: i64) -> Buf {
        let warps = i64::from(self.features.threads / self.features.warp);
        self.b.shared("sums", DType::F32, sums * warps)
    }
}

/// Runs `body` where `i < n`, without asking if `n` is a multiple of the `step` that `i` is handed out in.
pub(super) fn within(b: &mut Builder, i: Reg, n: i64, step: i64, body: impl FnOnce(&mut Builder)) {
    if n % step == 0 {
        return body(b);
    }
    let end = b.index(n);
    let inside = b.less(i, end);
    b.if_else(inside, body, |_| {});
}

/// The sum over groups of `width` neighbouring threads of a warp, in all of them.
pub(super) fn group_sum(b: &mut Builder, mut x: Reg, width: i64) -> Reg {
    let mut mask = width / 2;
    while mask > 0 {
        let other = b.shuffle(x, mask as u32);
        x = b.add(x, other);
        mask /= 2;
    }
    x
}

/// The sum over all threads of a block, in all of them. `place` counts the sums that share this memory.
pub(super) fn block_sum(b: &mut Builder, sums: Buf, place: i64, x: Reg, threads: Threads) -> Reg {
    let x = group_sum(b, x, threads.warp_size);
    let first = place * threads.warps();
    leader(b, threads.lane, |b| {
        b.store(sums, Affine::from(threads.warp) + first, x)
    });
    b.barrier();
    let part = |b: &mut Builder, warp| b.load("part", sums, first + warp, 1);
    (1..threads.warps()).fold(part(b, 0), |sum, warp| {
        let part = part(b, warp);
        b.add(sum, part)
    })
}

/// Runs `body` in the first thread of a group only.
pub(super) fn leader(b: &mut Builder, i: Reg, body: impl FnOnce(&mut Builder)) {
    let one = b.index(1);
    let is_first = b.less(i, one);
    b.if_else(is_first, body, |_| {});
}

/// A row of `n` elements that a group of threads holds in registers: thread `i` of `group` has elements `i`, `i +
/// group`, …; those beyond the end are zero.
pub(super) struct Row {
    pub(super) values: Vec<Reg>,
    /// Where the values are in the row; within it for the values beyond the end too.
    pub(super) at: Vec<Reg>,
    /// Whether a value is in the row, if that is not certain.
    inside: Vec<Option<Reg>>,
    pub(super) n: i64,
}

/// Values of a row that one thread can hold.
const MAX_VALUES: i64 = 64;

impl Row {
    /// # Errors
    /// If the row is longer than the registers of the group.
    pub(super) fn check(n: i64, group: i64) -> Result<(), ScheduleError> {
        if parts(n, group) > MAX_VALUES {
            return Err(ScheduleError::Row {
                found: n,
                capacity: MAX_VALUES * group,
            });
        }
        Ok(())
    }

    /// Gets the values from `value(builder, position)`.
    pub(super) fn new(
        b: &mut Builder,
        n: i64,
        (i, group): (Reg, i64),
        mut value: impl FnMut(&mut Builder, Reg) -> Reg,
    ) -> Row {
        let mut row = Row {
            values: vec![],
            at: vec![],
            inside: vec![],
            n,
        };
        for part in 0..parts(n, group) {
            let at = b.address("i", Affine::from(i) + part * group);
            if (part + 1) * group <= n {
                row.values.push(value(b, at));
                row.at.push(at);
                row.inside.push(None);
                continue;
            }
            let end = b.index(n);
            let inside = b.less(at, end);
            let last = b.index(n - 1);
            let at = b.binary(Binary::Min, at, last);
            let x = value(b, at);
            let zero = b.float(0.0, 1);
            row.values.push(b.inst("x", Inst::Select(inside, x, zero)));
            row.at.push(at);
            row.inside.push(Some(inside));
        }
        row
    }

    /// What this thread's values add to a sum over the row: `term` of each, and zero beyond the end.
    pub(super) fn partial_sum(&self, b: &mut Builder, mut term: impl FnMut(&mut Builder, Reg) -> Reg) -> Reg {
        let mut sum: Option<Reg> = None;
        for (&value, inside) in self.values.iter().zip(&self.inside) {
            let mut x = term(b, value);
            if let Some(inside) = *inside {
                let zero = b.float(0.0, 1);
                x = b.inst("x", Inst::Select(inside, x, zero));
            }
            sum = Some(sum.map_or(x, |sum| b.add(sum, x)));
        }
        sum.expect("a row has elements")
    }

    /// Runs `body(builder, index, position)` for each value that is in the row.
    pub(super) fn for_each(&self, b: &mut Builder, mut body: impl FnMut(&mut Builder, usize, Reg)) {
        for i in 0..self.values.len() {
            match self.inside[i] {
                None => body(b, i, self.at[i]),
                Some(inside) => b.if_else(inside, |b| body(b, i, self.at[i]), |_| {}),
            }
        }
    }
}

/// The last of the rows that a group may take: a thread without a row of its own does the work of this one again, and
/// stores nothing.
pub(super) fn clamped(b: &mut Builder, row: Affine, rows: i64, handed_out: i64) -> (Reg, Option<Reg>) {
    let row = b.address("row", row);
    if rows == handed_out {
        return (row, None);
    }
    let end = b.index(rows);
    let inside = b.less(row, end);
    let last = b.index(rows - 1);
    (b.binary(Binary::Min, row, last), Some(inside))
}

/// Runs `body` where a condition holds, if there is one.
pub(super) fn where_inside(b: &mut Builder, inside: Option<Reg>, body: impl FnOnce(&mut Builder)) {
    match inside {
        None => body(b),
        Some(inside) => b.if_else(inside, body, |_| {}),
    }
}

/// Lanes of the widest load of 16 bytes that a row of `n` elements of `size` bytes is a multiple of.
pub(super) fn lanes_of(n: i64, size: i64) -> u32 {
    let mut lanes = 16 / size;
    while n % lanes != 0 {
        lanes /= 2;
    }
    lanes as u32
}
