//! Kernels that between them use every instruction and every statement a CPU kernel can have.

use rwkvc_ir::DType;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{
    Access, Affine, Binary, Buf, Compare, Extent, Inst, Kernel, Local, LoopKind, Reduction, Reg, Scalar,
    Space, Stmt, Unary,
};

/// Results that one iteration of a kernel writes one after the other.
struct Results {
    buf: Buf,
    lanes: i64,
    count: i64,
}

impl Results {
    fn put(&mut self, b: &mut Builder, token: Reg, value: Reg) {
        let at = Affine::from(token) * (RESULTS * self.lanes) + self.count * self.lanes;
        assert!(self.count < RESULTS, "room for more results");
        b.store(self.buf, at, value);
        self.count += 1;
    }
}

/// Room for results of each kind.
const RESULTS: i64 = 48;

/// All arithmetic on `lanes` lanes. Parameters: three f32 inputs, two i32 inputs (`[T, lanes]`), f32 and i32 results
/// (`[T, RESULTS, lanes]`).
pub(crate) fn arithmetic(lanes: u32) -> Kernel {
    let n = i64::from(lanes);
    let mut b = Builder::new(format!("arithmetic_{lanes}"));
    let input = Extent::per_token(n);
    let output = Extent::per_token(RESULTS * n);
    let floats = ["a", "b", "c"].map(|name| b.param(name, DType::F32, input, Access::Read));
    let ints = ["i", "j"].map(|name| b.param(name, DType::I32, input, Access::Read));
    let mut float_results = Results {
        buf: b.param("x", DType::F32, output, Access::Write),
        lanes: n,
        count: 0,
    };
    let mut int_results = Results {
        buf: b.param("y", DType::I32, output, Access::Write),
        lanes: n,
        count: 0,
    };
    b.parallel("t", Extent::per_token(1), |b, t| {
        let at = Affine::from(t) * n;
        let [x, y, z] = floats.map(|buf| b.load("f", buf, at.clone(), lanes));
        let [i, j] = ints.map(|buf| b.load("i", buf, at.clone(), lanes));
        float_arithmetic(b, t, [x, y, z], lanes, &mut float_results, &mut int_results);
        int_arithmetic(b, t, [i, j], lanes, &mut float_results, &mut int_results);
        // Comparisons, the logic of their results, and selections.
        let one = b.int(1, lanes);
        let zero = b.int(0, lanes);
        let mut conditions = vec![];
        for op in [Compare::Eq, Compare::Ne, Compare::Lt, Compare::Le] {
            conditions.push(b.inst("k", Inst::Compare(op, x, y)));
            conditions.push(b.inst("k", Inst::Compare(op, i, j)));
        }
        conditions.push(b.binary(Binary::And, conditions[2], conditions[5]));
        conditions.push(b.binary(Binary::Or, conditions[4], conditions[1]));
        for &condition in &conditions {
            let chosen = b.inst("s", Inst::Select(condition, one, zero));
            int_results.put(b, t, chosen);
        }
        let chosen = b.inst("s", Inst::Select(conditions[8], x, z));
        float_results.put(b, t, chosen);
        let last = b.inst("k", Inst::Extract(conditions[4], lanes - 1));
        let all = b.splat(last, lanes);
        let chosen = b.inst("s", Inst::Select(all, x, z));
        float_results.put(b, t, chosen);
        let copy = b.inst("copy", Inst::Copy(conditions[9]));
        let chosen = b.inst("s", Inst::Select(copy, y, z));
        float_results.put(b, t, chosen);
    });
    b.finish()
}

fn float_arithmetic(
    b: &mut Builder,
    t: Reg,
    [x, y, z]: [Reg; 3],
    lanes: u32,
    floats: &mut Results,
    ints: &mut Results,
) {
    for op in [Unary::Neg, Unary::Abs, Unary::Sqrt, Unary::Round] {
        let value = b.unary(op, x);
        floats.put(b, t, value);
    }
    for op in [
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::Div,
        Binary::Min,
        Binary::Max,
    ] {
        let value = b.binary(op, x, y);
        floats.put(b, t, value);
    }
    let value = b.fma(x, y, z);
    floats.put(b, t, value);
    // Negations may melt into multiplications.
    let negated = b.unary(Unary::Neg, x);
    let value = b.fma(negated, y, z);
    floats.put(b, t, value);
    for op in [Reduction::Add, Reduction::Max] {
        let value = b.inst("r", Inst::Reduce(op, y));
        let value = b.splat(value, lanes);
        floats.put(b, t, value);
    }
    let bits = b.unary(Unary::BitsOf, z);
    ints.put(b, t, bits);
    let (low, high) = (b.float(-1e6, lanes), b.float(1e6, lanes));
    let bounded = b.binary(Binary::Max, x, low);
    let bounded = b.binary(Binary::Min, bounded, high);
    let integral = b.unary(Unary::Round, bounded);
    let value = b.unary(Unary::ToI32, integral);
    ints.put(b, t, value);
    for lane in [0, lanes / 2, lanes - 1] {
        let value = b.inst("e", Inst::Extract(x, lane));
        let value = b.splat(value, lanes);
        floats.put(b, t, value);
    }
}

fn int_arithmetic(
    b: &mut Builder,
    t: Reg,
    [i, j]: [Reg; 2],
    lanes: u32,
    floats: &mut Results,
    ints: &mut Results,
) {
    use Binary::*;
    for op in [Add, Sub, Mul, Min, Max, And, Or, Xor] {
        let value = b.binary(op, i, j);
        ints.put(b, t, value);
    }
    let mask = b.int(31, lanes);
    let counts = b.binary(And, j, mask);
    let first = b.inst("e", Inst::Extract(counts, 0));
    let same = b.splat(first, lanes);
    let constant = b.int(23, lanes);
    for counts in [counts, same, constant] {
        for op in [Shl, Shr] {
            let value = b.binary(op, i, counts);
            ints.put(b, t, value);
        }
    }
    let value = b.unary(Unary::ToF32, i);
    floats.put(b, t, value);
    let value = b.unary(Unary::FromBits, j);
    floats.put(b, t, value);
    for op in [Reduction::Add, Reduction::Max] {
        let value = b.inst("r", Inst::Reduce(op, i));
        let value = b.splat(value, lanes);
        ints.put(b, t, value);
    }
    index_arithmetic(b, t, [i, j], lanes, ints);
}

fn index_arithmetic(b: &mut Builder, t: Reg, [i, j]: [Reg; 2], lanes: u32, ints: &mut Results) {
    use Binary::*;
    let (wide, other) = (b.unary(Unary::ToIndex, i), b.unary(Unary::ToIndex, j));
    let product = b.mul(wide, other);
    for op in [Add, Sub, Min, Max] {
        let value = b.binary(op, product, wide);
        let value = b.unary(Unary::IndexToI32, value);
        ints.put(b, t, value);
    }
    let less = b.less(product, other);
    let chosen = b.inst("s", Inst::Select(less, wide, other));
    let value = b.unary(Unary::IndexToI32, chosen);
    ints.put(b, t, value);
    let lane = b.inst("e", Inst::Extract(product, lanes - 1));
    for divisor in [1, 7, 16] {
        let divisor = b.index(divisor);
        let quotient = b.div(lane, divisor);
        let square = b.mul(t, t);
        let remainder = b.binary(Rem, square, divisor);
        let sum = b.add(quotient, remainder);
        let value = b.splat(sum, lanes);
        let value = b.unary(Unary::IndexToI32, value);
        ints.put(b, t, value);
    }
}

/// Loops of every kind, branches, mutable registers and a local, in `dtype`. Parameters: `x` (`dtype`, `[T, 24]`),
/// `n` (i32, `[T]`, each in 0–3), `y` (f32, `[T, 24]`, updated in place).
pub(crate) fn control(dtype: DType) -> Kernel {
    const WIDTH: i64 = 24;
    let mut b = Builder::new(format!("control_{dtype}"));
    let x = b.param("x", dtype, Extent::per_token(WIDTH), Access::Read);
    let n = b.param("n", DType::I32, Extent::per_token(1), Access::Read);
    let y = b.param("y", DType::F32, Extent::per_token(WIDTH), Access::ReadWrite);
    let local = b.private("l", WIDTH);
    b.parallel("t", Extent::per_token(1), |b, t| {
        let row = b.address("row", Affine::from(t) * WIDTH);
        b.for_loop(LoopKind::Thread, "h", 0, WIDTH, 8, |b, h| {
            b.prefetch(x, Affine::from(row) + h + 1000);
            let value = b.load("v", x, Affine::from(row) + h, 8);
            b.store(local, Affine::from(h), value);
        });
        // Sums over all tokens so far, in an order that an `if` changes.
        let count = b.load("n", n, Affine::from(t), 1);
        let count = b.unary(Unary::ToIndex, count);
        let (least, capacity) = (b.index(0), b.index(WIDTH / 4));
        let count = b.binary(Binary::Max, least, count);
        let count = b.binary(Binary::Min, capacity, count);
        let zero = b.float(0.0, 4);
        let sum = b.var("sum", zero);
        let first = b.index(0);
        let best = b.var("best", first);
        b.for_loop(
            LoopKind::Serial,
            "s",
            0,
            Extent {
                fixed: 1,
                per_token: 2,
            },
            2,
            |b, s| {
                let inside = b.less(s, t);
                b.if_else(
                    inside,
                    |b| {
                        b.for_loop(LoopKind::Serial, "c", 0, count, 1, |b, c| {
                            let value = b.load("v", x, Affine::from(s) * WIDTH + Affine::from(c) * 4, 4);
                            b.set(sum, Inst::Binary(Binary::Add, sum, value));
                        });
                        // Lies outside of the buffer unless the condition holds.
                        let value = b.load("v", x, Affine::from(s) * WIDTH + 8, 4);
                        b.set(sum, Inst::Fma(value, value, sum));
                    },
                    |b| b.set(best, Inst::Copy(s)),
                );
            },
        );
        // Iterations that never run.
        b.for_loop(LoopKind::Serial, "z", count, 0, 1, |b, z| {
            let value = b.load("v", x, Affine::from(z), 4);
            b.set(sum, Inst::Copy(value));
        });
        b.for_loop(LoopKind::Unrolled, "u", 0, 3, 1, |b, u| {
            let value = b.load("v", local, Affine::from(u) * 8 + 4, 4);
            b.set(sum, Inst::Binary(Binary::Add, sum, value));
            let old = b.load("v", y, Affine::from(row) + Affine::from(u) * 8, 4);
            let old = b.mul(old, value);
            let total = b.add(sum, old);
            b.store(y, Affine::from(row) + Affine::from(u) * 8, total);
        });
        let tokens = b.inst("tokens", Inst::Tokens);
        let last = b.add(best, tokens);
        let last = b.unary(Unary::IndexToI32, last);
        let last = b.unary(Unary::ToF32, last);
        b.store(y, Affine::from(row) + 5, last);
    });
    let mut kernel = b.finish();
    kernel.locals.push(Local {
        name: "shared".into(),
        dtype: DType::BF16,
        len: 16,
        space: Space::Shared,
    });
    if let Some(Stmt::For { body, .. }) = kernel.body.last_mut() {
        body.insert(1, Stmt::Barrier);
    }
    kernel
}

/// A kernel of one instruction, applied to scalars of type `scalar` (F32 or I32).
pub(crate) fn single(name: &str, scalar: Scalar, inst: impl FnOnce(Reg) -> Inst) -> Kernel {
    let dtype = if scalar == Scalar::F32 {
        DType::F32
    } else {
        DType::I32
    };
    let mut b = Builder::new(name);
    let x = b.param("x", dtype, Extent::fixed(1), Access::ReadWrite);
    b.parallel("i", Extent::fixed(1), |b, i| {
        let value = b.load("v", x, Affine::from(i), 1);
        let value = b.inst("r", inst(value));
        b.store(x, Affine::from(i), value);
    });
    b.finish()
}

/// A kernel of a warp, whose threads do something with a number each.
pub(crate) fn warp(name: &str, each: impl FnOnce(&mut Builder, Reg) -> Reg) -> Kernel {
    let mut b = Builder::new(name);
    let x = b.param("x", DType::I32, Extent::fixed(32), Access::Read);
    let y = b.param("y", DType::I32, Extent::fixed(32), Access::Write);
    b.parallel("i", Extent::fixed(1), |b, _| {
        b.for_loop(LoopKind::Thread, "t", 0, 32, 1, |b, t| {
            let value = b.load("v", x, Affine::from(t), 1);
            let value = each(b, value);
            b.store(y, Affine::from(t), value);
        });
    });
    b.finish()
}
