//! `exp`

use super::{Elementwise, Exp};
use crate::graph::eval::Real;
use crate::kernel::Reg;
use crate::kernel::builder::{Builder, transcendental};

impl Elementwise for Exp {
    const COMMUTES: bool = false;

    fn apply<F: Real>(x: &[F]) -> F {
        x[0].exp()
    }

    fn emit(b: &mut Builder, x: &[Reg]) -> Reg {
        transcendental::exp(b, x[0])
    }
}
