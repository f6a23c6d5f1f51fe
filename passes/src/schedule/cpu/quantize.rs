//! Activations as codes: a scale and the sum of the codes for each group.

use rwkvc_backend_api::CpuFeatures;
use rwkvc_ir::kernel::{Affine, Binary, Inst, Reduction, Reg, Unary};
use rwkvc_ir::quantized::GROUP;

use super::{Scheduled, Scope, Tensor, at};
use crate::plan::Part;

/// Groups of one task.
const GROUPS: i64 = 8;

/// A task is a few groups.
pub(super) fn activations(operands: &[Tensor], results: &[Tensor], features: &CpuFeatures) -> Vec<Scheduled> {
    let group = GROUP as i64;
    let n = operands[0].last();
    let mut s = Scope::new(&format!("quantize_{n}"), operands, results, features);
    let x = s.read("x", 0);
    let codes = s.write_part("codes", 0, Part::Codes);
    let scales = s.write_part("scales", 0, Part::Scales);
    let sums = s.write_part("sums", 0, Part::Sums);
    let lanes = s.lanes();
    let vectors = group / i64::from(lanes);
    // Each row has whole groups, so rows need not be told apart.
    let per_task = if n % (GROUPS * group) == 0 { GROUPS } else { 1 };
    let mut tasks = operands[0].rows();
    tasks.fixed *= n / group / per_task;
    tasks.per_token *= n / group / per_task;
    s.b.parallel("task", tasks, |b, task| {
        b.serial("g", 0, per_task, |b, g| {
            let number = at(task, per_task) + g;
            let place = |v: i64| number.clone() * group + v * i64::from(lanes);
            let x: Vec<Reg> = (0..vectors).map(|v| b.load("x", x, place(v), lanes)).collect();
            let mut most = b.unary(Unary::Abs, x[0]);
            for &x in &x[1..] {
                let magnitude = b.unary(Unary::Abs, x);
                most = b.binary(Binary::Max, magnitude, most);
            }
            let most = b.inst("most", Inst::Reduce(Reduction::Max, most));
            let [zero, range] = [0.0, 127.0].map(|c| b.float(c, 1));
            let scale = b.div(most, range);
            b.store(scales, number.clone(), scale);
            let inverse = b.div(range, most);
            let some = b.less(zero, most);
            let inverse = b.inst("inverse", Inst::Select(some, inverse, zero));
            let inverse = b.splat(inverse, lanes);
            let mut sum = b.int(0, lanes);
            for (v, x) in (0..).zip(x) {
                let steps = b.mul(x, inverse);
                let steps = b.unary(Unary::Round, steps);
                let code = b.unary(Unary::ToI32, steps);
                b.store(codes, place(v), code);
                sum = b.add(sum, code);
            }
            let sum = b.inst("sum", Inst::Reduce(Reduction::Add, sum));
            b.store(sums, Affine::from(0) + number, sum);
        });
    });
    vec![s.finish()]
}
