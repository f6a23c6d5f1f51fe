//! Loads and stores.

use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types};
use rwkvc_backend_api::LowerError;
use rwkvc_ir::DType;
use rwkvc_ir::kernel::{Access, Affine, Buf, Reg};

use crate::emitter::Emitter;
use crate::formats::{cast, narrow, narrow_bytes, pack_halves, widen_bytes, widen_scalar, widen_vector};
use crate::shape::{Width, width};

/// Bytes of a vector.
const VECTOR: i32 = 16;

/// A place in memory: an address and a distance in bytes.
#[derive(Clone, Copy)]
struct Place {
    address: Value,
    offset: i32,
}

impl Emitter<'_, '_> {
    /// The value of an affine index.
    pub(crate) fn affine(&mut self, at: &Affine) -> Result<Value, LowerError> {
        let zero = self.b.ins().iconst(types::I64, 0);
        let sum = self.sum(zero, at, 1)?;
        Ok(self.b.ins().iadd_imm_s(sum, at.offset))
    }

    /// `base + scale * Σ factor * register`. What changes in outer loops comes first, so that it can stay there.
    fn sum(&mut self, base: Value, at: &Affine, scale: i64) -> Result<Value, LowerError> {
        let mut terms: Vec<(Reg, i64)> = at
            .terms
            .iter()
            .copied()
            .filter(|(_, factor)| *factor != 0)
            .collect();
        terms.sort_by_key(|&term| self.follows(&[term]));
        let mut sum = base;
        for (reg, factor) in terms {
            let value = self.scalar(reg)?;
            let value = match factor.wrapping_mul(scale) {
                1 => value,
                factor if factor.count_ones() == 1 => {
                    self.b.ins().ishl_imm_u(value, i64::from(factor.trailing_zeros()))
                }
                factor => self.b.ins().imul_imm_s(value, factor),
            };
            sum = self.b.ins().iadd(sum, value);
        }
        Ok(sum)
    }

    /// The place of an element; the `bytes` that follow are reached with offsets.
    fn place(&mut self, buf: Buf, at: &Affine, bytes: i64) -> Result<Place, LowerError> {
        let size = self.kernel.dtype(buf).size() as i64;
        let address = self.sum(self.bases[buf.0 as usize], at, size)?;
        let offset = at.offset.wrapping_mul(size);
        match (i32::try_from(offset), i32::try_from(offset.wrapping_add(bytes))) {
            (Ok(offset), Ok(_)) => Ok(Place { address, offset }),
            _ => Ok(Place {
                address: self.b.ins().iadd_imm_s(address, offset),
                offset: 0,
            }),
        }
    }

    /// What is known of a load.
    fn load_flags(&self, buf: Buf, at: &Affine) -> MemFlagsData {
        let flags = MemFlagsData::new().with_notrap();
        match self.kernel.params.get(buf.0 as usize) {
            Some(param) if param.access == Access::Read => {
                let flags = flags.with_readonly();
                if self.may_leave_loops(&at.terms) {
                    flags.with_can_move()
                } else {
                    flags
                }
            }
            _ => flags,
        }
    }

    /// The parts of a register loaded from consecutive elements.
    pub(crate) fn load(&mut self, dest: Reg, buf: Buf, at: &Affine) -> Result<Vec<Value>, LowerError> {
        let ty = self.kernel.ty(dest);
        let dtype = self.kernel.dtype(buf);
        let flags = self.load_flags(buf, at);
        let size = dtype.size() as i32;
        let Place { address, offset } = self.place(buf, at, i64::from(ty.lanes) * i64::from(size))?;
        let b = &mut self.b;
        let lanes = ty.lanes as i32;
        let values = match (dtype, width(ty)) {
            (DType::F32 | DType::I32, width) => {
                let ty = if dtype == DType::F32 {
                    width.float()
                } else {
                    width.int()
                };
                let stride = size * width.lanes() as i32;
                (0..lanes * size / stride)
                    .map(|i| b.ins().load(ty, flags, address, offset + i * stride))
                    .collect()
            }
            (DType::I8, Width::One) => (0..lanes)
                .map(|i| b.ins().sload8(types::I32, flags, address, offset + i))
                .collect(),
            (DType::I8, Width::Four) => (0..lanes / 4)
                .map(|i| {
                    let word = b.ins().load(types::I32, flags, address, offset + 4 * i);
                    widen_bytes(b, word)
                })
                .collect(),
            (DType::F16 | DType::BF16, Width::One) => (0..lanes)
                .map(|i| {
                    let half = b.ins().load(types::I16, flags, address, offset + i * size);
                    widen_scalar(b, dtype, half)
                })
                .collect(),
            (DType::F16 | DType::BF16, Width::Four) if lanes == 4 => {
                let half = b.ins().load(types::F64, flags, address, offset);
                let halves = b.ins().scalar_to_vector(types::F64X2, half);
                let [low, _] = widen_vector(b, dtype, halves);
                vec![low]
            }
            (DType::F16 | DType::BF16, Width::Four) => (0..lanes * size / VECTOR)
                .flat_map(|i| {
                    let halves = b.ins().load(types::I16X8, flags, address, offset + i * VECTOR);
                    widen_vector(b, dtype, halves)
                })
                .collect(),
        };
        Ok(values)
    }

    /// The parts of a register of consecutive words of 32 bits, whatever is in them.
    pub(crate) fn words(&mut self, dest: Reg, buf: Buf, at: &Affine) -> Result<Vec<Value>, LowerError> {
        let ty = self.kernel.ty(dest);
        let flags = self.load_flags(buf, at);
        let Place { address, offset } = self.place(buf, at, 4 * i64::from(ty.lanes))?;
        let width = width(ty);
        let stride = 4 * width.lanes() as i32;
        let parts = 0..4 * ty.lanes as i32 / stride;
        Ok(parts
            .map(|i| {
                self.b
                    .ins()
                    .load(width.int(), flags, address, offset + i * stride)
            })
            .collect())
    }

    /// Stores the lanes of a register to consecutive elements.
    pub(crate) fn store(&mut self, buf: Buf, at: &Affine, value: Reg) -> Result<(), LowerError> {
        let ty = self.kernel.ty(value);
        let dtype = self.kernel.dtype(buf);
        let size = dtype.size() as i32;
        let values = self.values(value)?;
        let Place { address, offset } = self.place(buf, at, i64::from(ty.lanes) * i64::from(size))?;
        let flags = MemFlagsData::new().with_notrap();
        let b = &mut self.b;
        let width = width(ty);
        let stride = size * width.lanes() as i32;
        if matches!(dtype, DType::F32 | DType::I32) {
            for (value, i) in values.into_iter().zip(0..) {
                b.ins().store(flags, value, address, offset + i * stride);
            }
            return Ok(());
        }
        if dtype == DType::I8 {
            for (value, i) in values.into_iter().zip(0..) {
                match width {
                    Width::One => b.ins().istore8(flags, value, address, offset + i),
                    Width::Four => {
                        let word = narrow_bytes(b, value);
                        b.ins().store(flags, word, address, offset + 4 * i)
                    }
                };
            }
            return Ok(());
        }
        let halves: Vec<Value> = values
            .into_iter()
            .map(|value| narrow(b, width, dtype, value))
            .collect();
        if width == Width::One {
            for (half, i) in halves.into_iter().zip(0..) {
                b.ins().istore16(flags, half, address, offset + i * stride);
            }
        } else if let [half] = halves[..] {
            let packed = pack_halves(b, half, half);
            let packed = cast(b, types::F64X2, packed);
            let packed = b.ins().extractlane(packed, 0);
            b.ins().store(flags, packed, address, offset);
        } else {
            for (pair, i) in halves.chunks_exact(2).zip(0..) {
                let packed = pack_halves(b, pair[0], pair[1]);
                b.ins().store(flags, packed, address, offset + i * VECTOR);
            }
        }
        Ok(())
    }
}
