//! Conversions between what registers hold and the shorter formats.

use inkwell::FloatPredicate;
use inkwell::types::BasicTypeEnum;
use inkwell::values::{BasicValueEnum, InstructionOpcode};
use rwkvc_ir::DType;
use rwkvc_ir::kernel::{Scalar, Type};

use crate::emitter::{Emitter, Fault, lanes_of};

impl<'c> Emitter<'_, '_, 'c> {
    /// Elements as they lie in memory to what registers hold, exactly.
    pub(crate) fn widen(
        &self,
        dtype: DType,
        value: BasicValueEnum<'c>,
        lanes: u32,
    ) -> Result<BasicValueEnum<'c>, Fault> {
        let [float, int] = self.word_types(lanes);
        match dtype {
            DType::F32 | DType::I32 => Ok(value),
            DType::I8 => self.cast(InstructionOpcode::SExt, value, int),
            DType::F16 => self.cast(InstructionOpcode::FPExt, value, float),
            DType::BF16 => {
                let low = self.cast(InstructionOpcode::ZExt, value, int)?;
                let high = self.binop(InstructionOpcode::Shl, low, self.ints(16, lanes))?;
                self.cast(InstructionOpcode::BitCast, high, float)
            }
        }
    }

    /// What registers hold to elements as they lie in memory, rounded to nearest even.
    pub(crate) fn narrow(
        &self,
        dtype: DType,
        value: BasicValueEnum<'c>,
        lanes: u32,
    ) -> Result<BasicValueEnum<'c>, Fault> {
        match dtype {
            DType::F32 | DType::I32 => Ok(value),
            DType::I8 => {
                let byte = lanes_of(self.context.i8_type().into(), lanes);
                self.cast(InstructionOpcode::Trunc, value, byte)
            }
            DType::F16 => {
                let half = lanes_of(self.context.f16_type().into(), lanes);
                self.cast(InstructionOpcode::FPTrunc, value, half)
            }
            DType::BF16 => self.narrow_to_bf16(value, lanes),
        }
    }

    /// Adds half of a unit in the last place, less one if the last bit is even, and cuts. That would turn some NaNs
    /// into infinities; they are cut and made quiet.
    fn narrow_to_bf16(&self, value: BasicValueEnum<'c>, lanes: u32) -> Result<BasicValueEnum<'c>, Fault> {
        use InstructionOpcode::{Add, And, LShr, Or, Trunc};
        let [_, int] = self.word_types(lanes);
        let constant = |n| self.ints(n, lanes);
        let bits = self.cast(InstructionOpcode::BitCast, value, int)?;
        let cut = self.binop(LShr, bits, constant(16))?;
        let last = self.binop(And, cut, constant(1))?;
        let sum = self.binop(Add, bits, constant(0x7fff))?;
        let sum = self.binop(Add, sum, last)?;
        let rounded = self.binop(LShr, sum, constant(16))?;
        let quiet = self.binop(Or, cut, constant(0x40))?;
        let is_nan = self.float_compare(FloatPredicate::UNO, value, value)?;
        let bits = self.choose(is_nan, quiet, rounded)?;
        let half = lanes_of(self.context.i16_type().into(), lanes);
        self.cast(Trunc, bits, half)
    }

    /// F32 and I32.
    fn word_types(&self, lanes: u32) -> [BasicTypeEnum<'c>; 2] {
        [Scalar::F32, Scalar::I32].map(|scalar| self.ty(Type { scalar, lanes }))
    }
}
