//! Random straight-line kernels: combinations of instructions that nobody would write.
//!
//! No instruction turns an f32 into an i32 bit by bit, so that the unspecified payloads of NaNs stay unobserved.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rwkvc_ir::DType;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{
    Access, Affine, Binary, Compare, Extent, Half, Inst, Kernel, Reduction, Reg, Scalar, Unary,
};

/// Instructions of a kernel.
const LENGTH: usize = 40;

/// Registers of as many lanes, by what their lanes are.
struct Pool {
    lanes: u32,
    floats: Vec<Reg>,
    ints: Vec<Reg>,
    bools: Vec<Reg>,
}

impl Pool {
    fn of(&mut self, scalar: Scalar) -> &mut Vec<Reg> {
        match scalar {
            Scalar::F32 => &mut self.floats,
            Scalar::I32 => &mut self.ints,
            Scalar::Bool | Scalar::Index => &mut self.bools,
        }
    }

    /// A register, rather one of the later ones, so that chains form.
    fn any(&mut self, rng: &mut SmallRng, scalar: Scalar) -> Reg {
        let of = self.of(scalar);
        let (a, b) = (rng.random_range(0..of.len()), rng.random_range(0..of.len()));
        of[a.max(b)]
    }

    fn step(&mut self, b: &mut Builder, rng: &mut SmallRng) {
        use Binary::*;
        use Scalar::{Bool, F32, I32};
        let numeric = any_of(rng, &[F32, I32]);
        let (scalar, inst) = match rng.random_range(0..14) {
            0 | 1 => {
                let op = any_of(rng, &[Add, Sub, Mul, Div, Min, Max]);
                (F32, Inst::Binary(op, self.any(rng, F32), self.any(rng, F32)))
            }
            2 | 3 => {
                let op = any_of(rng, &[Add, Sub, Mul, Min, Max, And, Or, Xor, Shl, Shr]);
                (I32, Inst::Binary(op, self.any(rng, I32), self.any(rng, I32)))
            }
            4 => (
                Bool,
                Inst::Binary(any_of(rng, &[And, Or]), self.any(rng, Bool), self.any(rng, Bool)),
            ),
            5 => (
                F32,
                Inst::Fma(self.any(rng, F32), self.any(rng, F32), self.any(rng, F32)),
            ),
            6 => {
                let op = any_of(rng, &[Compare::Eq, Compare::Ne, Compare::Lt, Compare::Le]);
                (
                    Bool,
                    Inst::Compare(op, self.any(rng, numeric), self.any(rng, numeric)),
                )
            }
            7 => {
                let scalar = any_of(rng, &[F32, I32, Bool]);
                (
                    scalar,
                    Inst::Select(self.any(rng, Bool), self.any(rng, scalar), self.any(rng, scalar)),
                )
            }
            8 => {
                let op = any_of(rng, &[Unary::Neg, Unary::Abs, Unary::Sqrt, Unary::Round]);
                (F32, Inst::Unary(op, self.any(rng, F32)))
            }
            9 => (
                F32,
                Inst::Unary(any_of(rng, &[Unary::ToF32, Unary::FromBits]), self.any(rng, I32)),
            ),
            10 => {
                let scalar = any_of(rng, &[F32, I32, Bool]);
                let lane = Inst::Extract(self.any(rng, scalar), rng.random_range(0..self.lanes));
                (scalar, Inst::Splat(b.inst("lane", lane), self.lanes))
            }
            11 => {
                let all = (0..self.lanes).map(|_| self.any(rng, F32)).collect();
                (F32, Inst::Sums(all))
            }
            12 if self.lanes > 1 => {
                let scalar = any_of(rng, &[F32, I32]);
                let half = any_of(rng, &[Half::Lower, Half::Upper]);
                (
                    scalar,
                    Inst::Zip(half, self.any(rng, scalar), self.any(rng, scalar)),
                )
            }
            _ => {
                let op = any_of(rng, &[Reduction::Add, Reduction::Max]);
                let all = Inst::Reduce(op, self.any(rng, numeric));
                (numeric, Inst::Splat(b.inst("all", all), self.lanes))
            }
        };
        let reg = b.inst("v", inst);
        self.of(scalar).push(reg);
    }
}

fn any_of<T: Copy>(rng: &mut SmallRng, options: &[T]) -> T {
    options[rng.random_range(0..options.len())]
}

/// A kernel that computes [`LENGTH`] random values for each token and stores all of them.
pub(crate) fn straight_line(seed: u64, lanes: u32) -> Kernel {
    let mut rng = SmallRng::seed_from_u64(seed);
    let n = i64::from(lanes);
    // No more values than inputs, constants and results.
    let row = n * (LENGTH as i64 + 8);
    let mut b = Builder::new(format!("straight_line_{seed}_{lanes}"));
    let x = b.param("x", DType::F32, Extent::per_token(3 * n), Access::Read);
    let i = b.param("i", DType::I32, Extent::per_token(3 * n), Access::Read);
    let floats = b.param("floats", DType::F32, Extent::per_token(row), Access::Write);
    let ints = b.param("ints", DType::I32, Extent::per_token(row), Access::Write);
    let bools = b.param("bools", DType::I32, Extent::per_token(row), Access::Write);
    b.parallel("t", Extent::per_token(1), |b, t| {
        let at = Affine::from(t) * (3 * n);
        let load = |b: &mut Builder, buf| {
            (0..3)
                .map(|k| b.load("x", buf, at.clone() + k * n, lanes))
                .collect()
        };
        let mut pool = Pool {
            lanes,
            floats: load(b, x),
            ints: load(b, i),
            bools: vec![],
        };
        pool.floats.push(b.float(1.5, lanes));
        pool.ints.push(b.int(7, lanes));
        pool.bools.push(b.less(pool.ints[0], pool.ints[1]));
        for _ in 0..LENGTH {
            pool.step(b, &mut rng);
        }
        let (one, zero) = (b.int(1, lanes), b.int(0, lanes));
        let bits = pool
            .bools
            .iter()
            .map(|&k| b.inst("k", Inst::Select(k, one, zero)))
            .collect();
        for (buf, values) in [(floats, pool.floats), (ints, pool.ints), (bools, bits)] {
            for (value, k) in values.into_iter().zip(0..) {
                b.store(buf, Affine::from(t) * row + k * n, value);
            }
        }
    });
    b.finish()
}
