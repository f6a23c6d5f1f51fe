//! `mul`

use super::{Elementwise, Mul};
use crate::graph::eval::Real;
use crate::kernel::Reg;
use crate::kernel::builder::Builder;

impl Elementwise for Mul {
    const COMMUTES: bool = true;

    fn apply<F: Real>(x: &[F]) -> F {
        x[0] * x[1]
    }

    fn emit(b: &mut Builder, x: &[Reg]) -> Reg {
        b.mul(x[0], x[1])
    }
}
