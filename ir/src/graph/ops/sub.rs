//! `sub`

use super::{Elementwise, Sub};
use crate::graph::eval::Real;
use crate::kernel::Reg;
use crate::kernel::builder::Builder;

impl Elementwise for Sub {
    const COMMUTES: bool = false;

    fn apply<F: Real>(x: &[F]) -> F {
        x[0] - x[1]
    }

    fn emit(b: &mut Builder, x: &[Reg]) -> Reg {
        b.sub(x[0], x[1])
    }
}
