//! The numbers that the evaluator computes with.

use std::fmt::Debug;
use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::DType;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// f32 or f64.
pub trait Real:
    sealed::Sealed
    + Copy
    + Debug
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + 'static
{
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
    /// The nearest number.
    fn from_f64(x: f64) -> Self;
    /// The same number.
    fn to_f64(self) -> f64;
    /// `e^x`
    fn exp(self) -> Self;
    /// The hyperbolic tangent.
    fn tanh(self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// The larger of both, as `maximum` of IEEE 754: not a number if one of them is not.
    fn max(self, other: Self) -> Self;
    /// Reads stored elements, exactly.
    fn decode(dtype: DType, bytes: &[u8], values: &mut [Self]);
}

macro_rules! real {
    ($t:ident, $decode:expr) => {
        impl Real for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn exp(self) -> Self {
                $t::exp(self)
            }
            fn tanh(self) -> Self {
                $t::tanh(self)
            }
            fn sqrt(self) -> Self {
                $t::sqrt(self)
            }
            fn max(self, other: Self) -> Self {
                if self.is_nan() || self > other {
                    self
                } else {
                    other
                }
            }
            fn decode(dtype: DType, bytes: &[u8], values: &mut [Self]) {
                $decode(dtype, bytes, values);
            }
        }
    };
}

real!(f32, |dtype: DType, bytes, values| dtype.decode(bytes, values));
real!(f64, |dtype: DType, bytes: &[u8], values: &mut [f64]| {
    let mut single = [0.0f32; 256];
    for (values, bytes) in values.chunks_mut(256).zip(bytes.chunks(256 * dtype.size())) {
        let single = &mut single[..values.len()];
        dtype.decode(bytes, single);
        for (value, &x) in values.iter_mut().zip(&*single) {
            *value = f64::from(x);
        }
    }
});

/// How many partial sums run side by side. They let the compiler use vectors and keep rounding errors small.
const LANES: usize = 16;

/// `Σ x_i y_i` of two rows of the same length.
pub(crate) fn dot<F: Real>(x: &[F], y: &[F]) -> F {
    debug_assert_eq!(x.len(), y.len());
    let mut sums = [F::ZERO; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let rest = xs.remainder().iter().zip(ys.remainder());
    let rest = rest.fold(F::ZERO, |sum, (&x, &y)| sum + x * y);
    for (x, y) in xs.zip(ys) {
        for ((sum, &x), &y) in sums.iter_mut().zip(x).zip(y) {
            *sum = *sum + x * y;
        }
    }
    sums.into_iter().fold(rest, Add::add)
}

/// `Σ f(x_i)`
pub(crate) fn total<F: Real>(x: &[F], f: impl Fn(F) -> F) -> F {
    let mut sums = [F::ZERO; LANES];
    let xs = x.chunks_exact(LANES);
    let rest = xs.remainder().iter().fold(F::ZERO, |sum, &x| sum + f(x));
    for x in xs {
        for (sum, &x) in sums.iter_mut().zip(x) {
            *sum = *sum + f(x);
        }
    }
    sums.into_iter().fold(rest, Add::add)
}
