//! `neg`

use super::{Elementwise, Neg};
use crate::graph::eval::Real;
use crate::kernel::builder::Builder;
use crate::kernel::{Reg, Unary};

impl Elementwise for Neg {
    const COMMUTES: bool = false;

    fn apply<F: Real>(x: &[F]) -> F {
        -x[0]
    }

    fn emit(b: &mut Builder, x: &[Reg]) -> Reg {
        b.unary(Unary::Neg, x[0])
    }
}
