//! The sums of several registers at once.
//!
//! Two registers are halved together: the lower halves of both are added to their upper halves, which leaves one register
//! with what is left of both. So each step halves what there is, until every lane is a sum.

use inkwell::types::VectorType;
use inkwell::values::{BasicValueEnum, VectorValue};
use rwkvc_ir::kernel::{Binary, Half, Reduction, Reg, Scalar, Type};

use crate::emitter::{Emitter, Fault};
use crate::instruction::vector;

/// Lanes among which x86 shuffles with the least effort.
const NEAR: usize = 4;

/// What is left of some registers, as many lanes of each, one after the other.
struct Left<'c> {
    value: VectorValue<'c>,
    /// Whose lanes these are.
    owners: Vec<usize>,
}

impl<'c> Emitter<'_, '_, 'c> {
    /// The sum of the lanes of each register, as the lanes of one.
    pub(crate) fn sums(&self, registers: &[Reg], ty: Type) -> Result<BasicValueEnum<'c>, Fault> {
        let mut lanes = self.kernel.ty(registers[0]).lanes as usize;
        if let [one] = registers {
            return self.reduce(Reduction::Add, *one);
        }
        if lanes == 1 {
            return self.join(registers, ty);
        }
        let mut all = vec![];
        for (i, register) in registers.iter().enumerate() {
            let value = vector(self.value(*register)?)?;
            all.push(Left {
                value,
                owners: vec![i],
            });
        }
        while lanes > 1 {
            let halved = all.chunks(2).map(|pair| self.halved(pair, lanes));
            all = halved.collect::<Result<_, _>>()?;
            lanes /= 2;
        }
        while all.len() > 1 {
            let side_by_side = all.chunks(2).map(|pair| {
                let owners: Vec<usize> = pair.iter().flat_map(|left| left.owners.clone()).collect();
                let value = self.picked(pair, 0..owners.len())?;
                Ok(Left { value, owners })
            });
            all = side_by_side.collect::<Result<_, Fault>>()?;
        }
        let owners = &all[0].owners;
        let lane_of = |i| owners.iter().position(|&owner| owner == i).unwrap_or(0);
        Ok(self.picked(&all[..1], (0..owners.len()).map(lane_of))?.into())
    }

    /// The lanes of one half of two registers in turn.
    pub(crate) fn zip(&self, half: Half, a: Reg, b: Reg, lanes: usize) -> Result<BasicValueEnum<'c>, Fault> {
        let first = if half == Half::Upper { lanes / 2 } else { 0 };
        let of = |register| -> Result<Left<'c>, Fault> {
            Ok(Left {
                value: vector(self.value(register)?)?,
                owners: vec![],
            })
        };
        let pair = [of(a)?, of(b)?];
        let in_turn = (first..first + lanes / 2).flat_map(|lane| [lane, lanes + lane]);
        Ok(self.picked(&pair, in_turn)?.into())
    }

    /// Adds the upper to the lower halves of the `lanes` lanes that are left of each register in one or two vectors.
    fn halved(&self, vectors: &[Left<'c>], lanes: usize) -> Result<Left<'c>, Fault> {
        let width = vectors[0].owners.len() * lanes;
        let block = if lanes > NEAR { width } else { NEAR.min(width) };
        let (mut lower, mut owners) = (vec![], vec![]);
        for start in (0..width).step_by(block) {
            for (v, left) in vectors.iter().enumerate() {
                for first in (start..start + block).step_by(lanes) {
                    lower.extend(v * width + first..v * width + first + lanes / 2);
                    owners.push(left.owners[first / lanes]);
                }
            }
        }
        let ty = Type {
            scalar: Scalar::F32,
            lanes: lower.len() as u32,
        };
        let upper = lower.iter().map(|lane| lane + lanes / 2);
        let upper = self.picked(vectors, upper)?;
        let lower = self.picked(vectors, lower.iter().copied())?;
        let sum = self.binary(Binary::Add, ty, lower.into(), upper.into())?;
        Ok(Left {
            value: vector(sum)?,
            owners,
        })
    }

    /// Some lanes of one or two vectors, which are counted together.
    fn picked(
        &self,
        vectors: &[Left<'c>],
        lanes: impl Iterator<Item = usize>,
    ) -> Result<VectorValue<'c>, Fault> {
        let first = vectors[0].value;
        let second = vectors
            .get(1)
            .map_or(first.get_type().get_poison(), |second| second.value);
        let int = self.context.i32_type();
        let mask: Vec<_> = lanes.map(|lane| int.const_int(lane as u64, false)).collect();
        let mask = VectorType::const_vector(&mask);
        Ok(self.b.build_shuffle_vector(first, second, mask, "")?)
    }
}
