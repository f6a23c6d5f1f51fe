//! `sigmoid`

use super::{Elementwise, Sigmoid};
use crate::graph::eval::Real;
use crate::kernel::Reg;
use crate::kernel::builder::{Builder, transcendental};

impl Elementwise for Sigmoid {
    const COMMUTES: bool = false;

    fn apply<F: Real>(x: &[F]) -> F {
        F::ONE / (F::ONE + (-x[0]).exp())
    }

    fn emit(b: &mut Builder, x: &[Reg]) -> Reg {
        transcendental::sigmoid(b, x[0])
    }
}
