//! `relu`

use super::{Elementwise, Relu};
use crate::graph::eval::Real;
use crate::kernel::Reg;
use crate::kernel::builder::{Builder, transcendental};

impl Elementwise for Relu {
    const COMMUTES: bool = false;

    fn apply<F: Real>(x: &[F]) -> F {
        x[0].max(F::ZERO)
    }

    fn emit(b: &mut Builder, x: &[Reg]) -> Reg {
        transcendental::relu(b, x[0])
    }
}
