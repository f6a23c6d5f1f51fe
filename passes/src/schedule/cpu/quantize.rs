//! Activations as codes: a scale and the sum of the codes for each group.

use rwkvc_backend_api::CpuFeatures;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Binary, Buf, Extent, Inst, Reduction, Reg, Unary};
use rwkvc_ir::quantized::GROUP;

use super::super::group::dispatch;
use super::{Scheduled, Scope, Tensor, at};
use crate::storage::Part;

/// Groups of one task.
const GROUPS: i64 = 8;

/// A task is a few groups.
pub(super) fn activations(operands: &[Tensor], results: &[Tensor], features: &CpuFeatures) -> Vec<Scheduled> {
    // Rows have whole groups, so they need not be told apart.
    let rows = operands[0].rows();
    let blocks: Vec<i64> = operands.iter().map(|x| x.last() / GROUP as i64).collect();
    let widths: Vec<String> = operands.iter().map(|x| x.last().to_string()).collect();
    let mut s = Scope::new(
        &format!("quantize_{}", widths.join("_")),
        operands,
        results,
        features,
    );
    let all: Vec<Parts> = (0..operands.len())
        .map(|i| Parts {
            x: s.read("x", i),
            codes: s.write_part("codes", i, Part::Codes),
            scales: s.write_part("scales", i, Part::Scales),
            sums: s.write_part("sums", i, Part::Sums),
        })
        .collect();
    let lanes = s.lanes();
    let per_row: i64 = blocks.iter().map(|&groups| tasks(groups)).sum();
    let grid = Extent {
        fixed: rows.fixed * per_row,
        per_token: rows.per_token * per_row,
    };
    s.b.parallel("task", grid, |b, task| {
        let (row, own) = match rows.as_fixed() {
            Some(1) => (b.index(0), task),
            _ => b.div_rem(task, per_row),
        };
        let each: Vec<i64> = blocks.iter().map(|&groups| tasks(groups)).collect();
        dispatch(b, own, &each, 0, 0, &|b, i, own| {
            let per_task = blocks[i] / each[i];
            b.serial("g", 0, per_task, |b, g| {
                all[i].group(b, at(row, blocks[i]) + own.clone() * per_task + g, lanes);
            });
        });
    });
    vec![s.finish()]
}

/// Tasks of a row of so many groups.
fn tasks(groups: i64) -> i64 {
    if groups % GROUPS == 0 {
        groups / GROUPS
    } else {
        groups
    }
}

/// Activations, and what becomes of them.
struct Parts {
    x: Buf,
    codes: Buf,
    scales: Buf,
    sums: Buf,
}

impl Parts {
    /// One group: the largest magnitude is 127 steps from zero.
    fn group(&self, b: &mut Builder, number: Affine, lanes: u32) {
        let group = GROUP as i64;
        let place = |v: i64| number.clone() * group + v * i64::from(lanes);
        let vectors = group / i64::from(lanes);
        let x: Vec<Reg> = (0..vectors)
            .map(|v| b.load("x", self.x, place(v), lanes))
            .collect();
        let mut most = b.unary(Unary::Abs, x[0]);
        for &x in &x[1..] {
            let magnitude = b.unary(Unary::Abs, x);
            most = b.binary(Binary::Max, magnitude, most);
        }
        let most = b.inst("most", Inst::Reduce(Reduction::Max, most));
        let [zero, range] = [0.0, 127.0].map(|c| b.float(c, 1));
        let scale = b.div(most, range);
        b.store(self.scales, number.clone(), scale);
        let inverse = b.div(range, most);
        let some = b.less(zero, most);
        let inverse = b.inst("inverse", Inst::Select(some, inverse, zero));
        let inverse = b.splat(inverse, lanes);
        let mut sum = b.int(0, lanes);
        for (v, x) in (0..).zip(x) {
            let steps = b.mul(x, inverse);
            let steps = b.unary(Unary::Round, steps);
            let code = b.unary(Unary::ToI32, steps);
            b.store(self.codes, place(v), code);
            sum = b.add(sum, code);
        }
        let sum = b.inst("sum", Inst::Reduce(Reduction::Add, sum));
        b.store(self.sums, number, sum);
    }
}
