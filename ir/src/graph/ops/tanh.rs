//! `tanh`

use super::{Elementwise, Tanh};
use crate::graph::eval::Real;
use crate::kernel::Reg;
use crate::kernel::builder::{Builder, transcendental};

impl Elementwise for Tanh {
    const COMMUTES: bool = false;

    fn apply<F: Real>(x: &[F]) -> F {
        x[0].tanh()
    }

    fn emit(b: &mut Builder, x: &[Reg]) -> Reg {
        transcendental::tanh(b, x[0])
    }
}
