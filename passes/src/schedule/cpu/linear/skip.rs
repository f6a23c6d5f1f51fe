//! A product with activations of one token that are mostly zero: only the inputs that are not are read.
//!
//! ```text
//! list   positions of the activations that are not zero, and how many there are
//! rows   a panel a task: eight of the listed inputs at once, sums in the nearest cache, the next eight asked for; all inputs
//!        where too many are listed
//! ```

use rwkvc_backend_api::CpuFeatures;
use rwkvc_ir::graph::ops::Member;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Access, Affine, Binary, Buf, Compare, Extent, Inst, LoopKind, Reg, Unary};

use rwkvc_ir::quantized::GROUP;

use super::super::super::group::{self, Buffers, Quantized};
use super::super::{Scheduled, Scope, Tensor, at, math};
use super::LINE;
use super::panels::{Panels, codes, divided, width};

/// Listed inputs that are added up together.
const TOGETHER: i64 = 8;

/// How many inputs ahead lines are asked for when all are read: one after the other, since the machine itself asks for what
/// comes next in memory.
const AHEAD: i64 = 4;

pub(super) fn one_token(
    members: &[Member],
    operands: &[Tensor],
    results: &[Tensor],
    features: &CpuFeatures,
) -> Vec<Scheduled> {
    let inputs = operands[0].last();
    let is_quantized = operands[1].quantized.is_some();
    let width = |outputs| width(outputs, is_quantized, features);
    // Reading some is faster than reading all if these are few enough: memory likes long stretches.
    let few = inputs * features.tuning.skip_percent / 100;
    let (mut s, all) = group::open(members, operands, results, features, Some(&width), 1);
    let m = &all[0];
    let listed = (few > 0).then(|| s.scratch("list", 0, inputs + 1, Access::Read));
    let panels = Panels::new(m, width(m.outputs), width(m.outputs), features);
    let sums = Sums {
        sums: s.b.private("sums", panels.width),
        scaled: is_quantized.then(|| {
            s.b.private("scaled", (TOGETHER + 1) * panels.width / GROUP as i64)
        }),
    };
    s.b.parallel("task", Extent::fixed(panels.tasks()), |b, own| {
        panels.one_token(b, m, sums, own, listed.map(|list| (list, few)));
    });
    let list = listed.map(|_| list(operands, results, features, inputs));
    list.into_iter().chain([s.finish()]).collect()
}

/// Memory of a task.
#[derive(Clone, Copy)]
struct Sums {
    /// The outputs of a panel so far.
    sums: Buf,
    /// For a quantised matrix: scales of the groups of a panel times activations, of as many inputs as are added up together,
    /// and what their offsets add to each group.
    scaled: Option<Buf>,
}

/// Writes the positions of what is not zero, then how many these are.
fn list(operands: &[Tensor], results: &[Tensor], features: &CpuFeatures, inputs: i64) -> Scheduled {
    let mut s: Scope<'_> = Scope::new(&format!("nonzero_{inputs}"), operands, results, features);
    let x = s.read("x", 0);
    let list = s.scratch("list", 0, inputs + 1, Access::Write);
    s.b.parallel("task", Extent::fixed(1), |b, _| {
        let [nothing, one] = [0, 1].map(|n| b.index(n));
        let count = b.var("count", nothing);
        let zero = b.float(0.0, 1);
        b.serial("k", 0, inputs, |b, k| {
            // Without a branch, which would often be foreseen wrongly: a position is written, and overwritten if it is
            // none.
            let place = within(b, count, inputs);
            let position = b.unary(Unary::IndexToI32, k);
            b.store(list, place, position);
            let x = b.load("x", x, k, 1);
            let is_there = b.inst("is_there", Inst::Compare(Compare::Ne, x, zero));
            let more = b.inst("more", Inst::Select(is_there, one, nothing));
            b.set(count, Inst::Binary(Binary::Add, count, more));
        });
        let count = b.unary(Unary::IndexToI32, count);
        b.store(list, Affine::from(inputs), count);
    });
    s.finish()
}

/// A number from 0 to `n - 1`: the nearest.
fn within(b: &mut Builder, i: Reg, n: i64) -> Reg {
    let (zero, last) = (b.index(0), b.index(n - 1));
    let i = b.binary(Binary::Max, i, zero);
    b.binary(Binary::Min, i, last)
}

impl Panels {
    /// The outputs of a panel: from those inputs that are listed if there is a list and these are fewer than it says, else from all.
    fn one_token(&self, b: &mut Builder, m: &Buffers<'_>, sums: Sums, own: Reg, list: Option<(Buf, i64)>) {
        let start = self.start(b, own);
        let zero = b.float(0.0, self.lanes);
        let step = i64::from(self.lanes);
        b.for_loop(LoopKind::Serial, "i", 0, self.width, step, |b, i| {
            b.store(sums.sums, i, zero);
        });
        match list {
            None => self.all(b, m, sums, &start),
            Some((list, few)) => {
                let count = b.load("count", list, Affine::from(self.inputs), 1);
                let count = b.unary(Unary::ToIndex, count);
                let count = within(b, count, self.inputs + 1);
                let few = b.index(few);
                let is_few = b.less(count, few);
                b.if_else(
                    is_few,
                    |b| self.listed(b, m, (list, count), sums, &start),
                    |b| self.all(b, m, sums, &start),
                );
            }
        }
        self.for_outputs(b, own, |b, first, count| {
            self.finish(b, m, sums.sums, Affine::from(0), &first, (Affine::from(0), count));
        });
    }

    /// The outputs of a panel, from the `count` inputs that are listed.
    fn listed(
        &self,
        b: &mut Builder,
        m: &Buffers<'_>,
        (list, count): (Buf, Reg),
        sums: Sums,
        start: &Affine,
    ) {
        let together = b.index(TOGETHER);
        let groups = b.binary(Binary::Div, count, together);
        b.serial("group", 0, groups, |b, group| {
            let inputs: Vec<_> = (0..TOGETHER)
                .map(|j| {
                    let k = self.input(b, list, at(group, TOGETHER) + j);
                    let next = b.address("next", at(group, TOGETHER) + (j + TOGETHER));
                    let next = within(b, next, self.inputs);
                    (k, Some(Affine::from(self.input(b, list, next.into()))))
                })
                .collect();
            self.add(b, m, sums, start, &inputs);
        });
        let done = b.address("done", at(groups, TOGETHER));
        b.serial("one", done, count, |b, one| {
            let k = self.input(b, list, one.into());
            self.add(b, m, sums, start, &[(k, None)]);
        });
    }

    /// The outputs of a panel, from all inputs in order.
    fn all(&self, b: &mut Builder, m: &Buffers<'_>, sums: Sums, start: &Affine) {
        if m.quantized.is_some() {
            // What is added to the sums takes more instructions, and is worth to be done for several inputs at once.
            let whole = self.inputs / TOGETHER * TOGETHER;
            b.for_loop(LoopKind::Serial, "k", 0, whole, TOGETHER, |b, k| {
                let input = |b: &mut Builder, j: i64| {
                    let ahead = Affine::from(k) + (j + TOGETHER);
                    (b.address("k", Affine::from(k) + j), Some(ahead))
                };
                let inputs: Vec<_> = (0..TOGETHER).map(|j| input(b, j)).collect();
                self.add(b, m, sums, start, &inputs);
            });
            return b.serial("k", whole, self.inputs, |b, k| {
                self.add(b, m, sums, start, &[(k, None)]);
            });
        }
        b.serial("k", 0, self.inputs, |b, k| {
            self.add(b, m, sums, start, &[(k, Some(Affine::from(k) + AHEAD))]);
        });
    }

    /// Adds some inputs to the sums; of each there may be a later one whose lines are asked for.
    fn add(
        &self,
        b: &mut Builder,
        m: &Buffers<'_>,
        sums: Sums,
        start: &Affine,
        inputs: &[(Reg, Option<Affine>)],
    ) {
        if let (Some(parts), Some(scaled)) = (&m.quantized, sums.scaled) {
            return self.add_groups(b, m, parts, (sums.sums, scaled), start, inputs);
        }
        let sums = sums.sums;
        let step = i64::from(self.lanes);
        let row = |k: Affine| start.clone() + k * self.width;
        let rows: Vec<(Affine, Reg)> = inputs
            .iter()
            .map(|(k, _)| {
                let x = b.load("x", m.x, *k, 1);
                (row(Affine::from(*k)), b.splat(x, self.lanes))
            })
            .collect();
        let next: Vec<Affine> = inputs
            .iter()
            .filter_map(|(_, next)| next.clone().filter(|_| self.prefetch).map(row))
            .collect();
        let line = LINE / b.dtype(m.w).size() as i64;
        let vectors = if line > step && self.width % line == 0 {
            line / step
        } else {
            1
        };
        b.for_loop(LoopKind::Serial, "i", 0, self.width, vectors * step, |b, i| {
            for next in &next {
                b.prefetch(m.w, next.clone() + i);
            }
            for v in 0..vectors {
                let i = Affine::from(i) + v * step;
                let mut sum = b.load("sum", sums, i.clone(), self.lanes);
                for (row, x) in &rows {
                    let w = b.load("w", m.w, row.clone() + i.clone(), self.lanes);
                    sum = b.fma(w, *x, sum);
                }
                b.store(sums, i, sum);
            }
        });
    }

    /// The same with a quantised matrix: group after group of outputs.
    fn add_groups(
        &self,
        b: &mut Builder,
        m: &Buffers<'_>,
        parts: &Quantized,
        (sums, scaled): (Buf, Buf),
        start: &Affine,
        inputs: &[(Reg, Option<Affine>)],
    ) {
        let (group, step) = (GROUP as i64, i64::from(self.lanes));
        let groups = self.width / group;
        let xs: Vec<Reg> = inputs.iter().map(|(k, _)| b.load("x", m.x, *k, 1)).collect();
        self.scale_groups(b, parts, scaled, start, inputs, &xs);
        b.serial("g", 0, groups, |b, g| {
            let place = |k: Affine| start.clone() + k * self.width + at(g, group);
            for next in inputs.iter().filter_map(|(_, next)| next.clone()) {
                if self.prefetch {
                    b.prefetch(m.w, divided(&place(next), 8 / parts.format.bits() as i64));
                }
            }
            let of = |v: i64| at(g, group) + v * step;
            let mut totals: Vec<Reg> = (0..group / step)
                .map(|v| b.load("sum", sums, of(v), self.lanes))
                .collect();
            for (j, (k, _)) in (0..).zip(inputs) {
                let scale = b.load("scale", scaled, Affine::from(g) + j * groups, 1);
                let scale = b.splat(scale, self.lanes);
                let codes = codes(b, m, parts, &place(Affine::from(*k)), self.lanes);
                for (total, code) in totals.iter_mut().zip(codes) {
                    *total = b.fma(code, scale, *total);
                }
            }
            if parts.offsets.is_some() {
                let shift = b.load("shift", scaled, Affine::from(g) + TOGETHER * groups, 1);
                let shift = b.splat(shift, self.lanes);
                totals.iter_mut().for_each(|total| *total = b.add(*total, shift));
            }
            for (v, total) in (0..).zip(totals) {
                b.store(sums, of(v), total);
            }
        });
    }

    /// What each activation makes of the scales of a panel's groups, and behind these the sums of what they make of the offsets.
    fn scale_groups(
        &self,
        b: &mut Builder,
        parts: &Quantized,
        scaled: Buf,
        start: &Affine,
        inputs: &[(Reg, Option<Affine>)],
        xs: &[Reg],
    ) {
        let groups = self.width / GROUP as i64;
        let lanes = self.lanes.min(1 << groups.trailing_zeros());
        math::over(b, groups, lanes, |b, g, lanes| {
            let mut shift = b.float(0.0, lanes);
            for (j, ((k, _), &x)) in (0..).zip(inputs.iter().zip(xs)) {
                let first = divided(&(start.clone() + Affine::from(*k) * self.width), GROUP as i64) + g;
                let x = b.splat(x, lanes);
                let scale = b.load("scale", parts.scales, first.clone(), lanes);
                let scale = b.mul(x, scale);
                b.store(scaled, Affine::from(g) + j * groups, scale);
                if let Some(offsets) = parts.offsets {
                    let offset = b.load("offset", offsets, first, lanes);
                    shift = b.fma(x, offset, shift);
                }
            }
            b.store(scaled, Affine::from(g) + TOGETHER * groups, shift);
        });
    }

    /// A listed input.
    fn input(&self, b: &mut Builder, list: Buf, place: Affine) -> Reg {
        let k = b.load("k", list, place, 1);
        let k = b.unary(Unary::ToIndex, k);
        within(b, k, self.inputs)
    }
}
