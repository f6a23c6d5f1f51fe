//! Positions, written as sums and products.

use std::ops::{Add, Mul, Sub};

use crate::kernel::{Affine, Reg};

impl From<Reg> for Affine {
    fn from(reg: Reg) -> Self {
        Affine {
            terms: vec![(reg, 1)],
            offset: 0,
        }
    }
}

impl From<i64> for Affine {
    fn from(offset: i64) -> Self {
        Affine {
            terms: vec![],
            offset,
        }
    }
}

impl Add for Affine {
    type Output = Affine;
    fn add(mut self, other: Affine) -> Affine {
        for (reg, factor) in other.terms {
            match self.terms.iter_mut().find(|(r, _)| *r == reg) {
                Some((_, f)) => *f += factor,
                None => self.terms.push((reg, factor)),
            }
        }
        self.terms.retain(|&(_, f)| f != 0);
        self.offset += other.offset;
        self
    }
}

impl Add<Reg> for Affine {
    type Output = Affine;
    fn add(self, reg: Reg) -> Affine {
        self + Affine::from(reg)
    }
}

impl Add<i64> for Affine {
    type Output = Affine;
    fn add(mut self, offset: i64) -> Affine {
        self.offset += offset;
        self
    }
}

impl Sub<i64> for Affine {
    type Output = Affine;
    fn sub(self, offset: i64) -> Affine {
        self + -offset
    }
}

impl Mul<i64> for Affine {
    type Output = Affine;
    fn mul(mut self, factor: i64) -> Affine {
        for (_, f) in &mut self.terms {
            *f *= factor;
        }
        self.terms.retain(|&(_, f)| f != 0);
        self.offset *= factor;
        self
    }
}
