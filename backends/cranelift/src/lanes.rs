//! Between scalars and vectors.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self, InstBuilder, Value, types};
use rwkvc_backend_api::LowerError;
use rwkvc_ir::kernel::{Binary, Half, Reduction, Reg, Scalar, Type};

use crate::emitter::Emitter;
use crate::formats::{cast, shuffle};
use crate::shape::{Width, part_type, parts, width};

impl Emitter<'_, '_> {
    /// All lanes equal to a scalar.
    pub(crate) fn splat(&mut self, from: Reg, ty: Type) -> Result<Vec<Value>, LowerError> {
        let value = self.scalar(from)?;
        let part = match width(ty) {
            Width::One => value,
            Width::Four if ty.scalar == Scalar::Bool => {
                let mask = self.b.ins().bmask(types::I32, value);
                self.b.ins().splat(types::I32X4, mask)
            }
            Width::Four => self.b.ins().splat(part_type(ty), value),
        };
        Ok(vec![part; parts(ty) as usize])
    }

    /// One lane of a register, as a scalar.
    pub(crate) fn lane(&mut self, from: Reg, lane: u32) -> Result<Value, LowerError> {
        let ty = self.kernel.ty(from);
        let width = width(ty);
        let values = self.values(from)?;
        let Some(&value) = values.get((lane / width.lanes()) as usize) else {
            return Err(self.refuse(format!("lane {lane} of a register of {} lanes", ty.lanes)));
        };
        Ok(match width {
            Width::One => value,
            Width::Four => {
                let value = self.b.ins().extractlane(value, (lane % 4) as u8);
                if ty.scalar == Scalar::Bool {
                    self.b.ins().icmp_imm_s(IntCC::NotEqual, value, 0)
                } else {
                    value
                }
            }
        })
    }

    /// All lanes of a register, as scalars.
    pub(crate) fn lanes(&mut self, from: Reg) -> Result<Vec<Value>, LowerError> {
        (0..self.kernel.ty(from).lanes)
            .map(|lane| self.lane(from, lane))
            .collect()
    }

    /// The parts of a register from its lanes.
    pub(crate) fn gather(&mut self, ty: Type, mut lanes: Vec<Value>) -> Vec<Value> {
        if width(ty) == Width::One {
            return lanes;
        }
        if ty.scalar == Scalar::Bool {
            lanes
                .iter_mut()
                .for_each(|lane| *lane = self.b.ins().bmask(types::I32, *lane));
        }
        lanes
            .chunks_exact(4)
            .map(|lanes| self.vector(part_type(ty), lanes))
            .collect()
    }

    /// A vector from four scalars.
    pub(crate) fn vector(&mut self, ty: ir::Type, lanes: &[Value]) -> Value {
        let mut vector = self.b.ins().scalar_to_vector(ty, lanes[0]);
        for (&lane, i) in lanes[1..].iter().zip(1u8..) {
            vector = self.b.ins().insertlane(vector, lane, i);
        }
        vector
    }

    /// The lanes of one half of two registers in turn.
    pub(crate) fn zip(&mut self, half: Half, a: Reg, b: Reg, ty: Type) -> Result<Vec<Value>, LowerError> {
        const LOWER: [u8; 16] = [0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23];
        const UPPER: [u8; 16] = [8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31];
        let (x, y) = (self.values(a)?, self.values(b)?);
        if width(ty) == Width::One {
            let first = if half == Half::Upper { x.len() / 2 } else { 0 };
            let in_turn = (first..first + x.len() / 2).flat_map(|lane| [x[lane], y[lane]]);
            return Ok(in_turn.collect());
        }
        // Of a single part one half is used, of several all of half the parts.
        let lanes: &[[u8; 16]] = match (x.len(), half) {
            (1, Half::Lower) => &[LOWER],
            (1, Half::Upper) => &[UPPER],
            _ => &[LOWER, UPPER],
        };
        let used = x.len().div_ceil(2);
        let first = if half == Half::Upper { x.len() / 2 } else { 0 };
        let mut zipped = vec![];
        for part in first..first + used {
            for &lanes in lanes {
                let both = shuffle(&mut self.b, x[part], y[part], lanes);
                zipped.push(cast(&mut self.b, part_type(ty), both));
            }
        }
        Ok(zipped)
    }

    /// All lanes combined into a scalar: the lower half with the upper, until one is left.
    pub(crate) fn reduce(&mut self, op: Reduction, from: Reg) -> Result<Value, LowerError> {
        const UPPER: [u8; 16] = [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7];
        let ty = self.kernel.ty(from);
        let op = match op {
            Reduction::Add => Binary::Add,
            Reduction::Max => Binary::Max,
        };
        let mut values = self.values(from)?;
        while values.len() > 1 {
            let upper = values.split_off(values.len() / 2);
            values = values
                .into_iter()
                .zip(upper)
                .map(|(x, y)| self.binary(op, ty, x, y))
                .collect();
        }
        let value = values[0];
        if width(ty) == Width::One {
            return Ok(value);
        }
        let upper = shuffle(&mut self.b, value, value, UPPER);
        let upper = cast(&mut self.b, part_type(ty), upper);
        let pair = self.binary(op, ty, value, upper);
        let (low, high) = (
            self.b.ins().extractlane(pair, 0),
            self.b.ins().extractlane(pair, 1),
        );
        Ok(self.binary(op, Type { lanes: 1, ..ty }, low, high))
    }
}
