//! Arithmetic: one instruction of the Kernel IR at a time.

use inkwell::intrinsics::Intrinsic;
use inkwell::module::Module;
use inkwell::types::{BasicTypeEnum, VectorType};
use inkwell::values::{
    AsValueRef, BasicValueEnum, CallSiteValue, FunctionValue, InstructionOpcode, VectorValue,
};
use inkwell::{FloatPredicate, IntPredicate};
use rwkvc_ir::kernel::{Binary, Compare, Inst, Reduction, Reg, Scalar, Type, Unary};

use crate::emitter::{Emitter, Fault};

impl<'c> Emitter<'_, '_, 'c> {
    /// What an instruction computes.
    pub(crate) fn compute(&self, dest: Reg, inst: &Inst) -> Result<BasicValueEnum<'c>, Fault> {
        let ty = self.kernel.ty(dest);
        match inst {
            Inst::Float(value) => Ok(self.context.f32_type().const_float(f64::from(value.get())).into()),
            Inst::Int(value) => Ok(self.ints(*value as u32, 1)),
            Inst::Index(value) => Ok(self.index(*value).into()),
            Inst::Tokens => Ok(self.tokens.into()),
            Inst::Address(at) => Ok(self.affine(at)?.into()),
            Inst::Copy(from) => self.value(*from),
            Inst::Unary(op, a) => self.unary(*op, self.value(*a)?, ty),
            Inst::Binary(op, x, y) => self.binary(*op, ty, self.value(*x)?, self.value(*y)?),
            Inst::Fma(x, y, z) => self.call("llvm.fma", &[self.value(*x)?, self.value(*y)?, self.value(*z)?]),
            Inst::Compare(op, x, y) => self.compare(*op, *x, *y),
            Inst::Select(condition, x, y) => {
                self.choose(self.value(*condition)?, self.value(*x)?, self.value(*y)?)
            }
            Inst::Splat(from, lanes) => self.splat(self.value(*from)?, Type { lanes: *lanes, ..ty }),
            Inst::Extract(from, lane) => self.lane(self.value(*from)?, *lane),
            Inst::Join(lanes) => self.join(lanes, ty),
            Inst::Sums(all) => self.sums(all, ty),
            Inst::Zip(half, a, b) => self.zip(*half, *a, *b, ty.lanes as usize),
            Inst::Reduce(op, from) => self.reduce(*op, *from),
            Inst::Load { buf, at, lanes } => self.load(*buf, at, *lanes),
            Inst::Words { buf, at, lanes } => self.words(*buf, at, *lanes),
            Inst::Pack(format, from) => {
                let halves = self.narrow(*format, self.value(*from)?, 2 * ty.lanes)?;
                self.cast(InstructionOpcode::BitCast, halves, self.ty(ty))
            }
            Inst::Dot4(a, b, c) => {
                let operands = [self.value(*a)?, self.value(*b)?, self.value(*c)?];
                self.dot4(self.form.dots(), operands, ty.lanes)
            }
            Inst::Shuffle(from, mask) => self.shuffle(*from, *mask),
            Inst::Mma { format, a, b, c } => self.mma(*format, [*a, *b, *c]),
        }
    }

    fn unary(&self, op: Unary, x: BasicValueEnum<'c>, ty: Type) -> Result<BasicValueEnum<'c>, Fault> {
        let cast = |opcode| self.cast(opcode, x, self.ty(ty));
        match op {
            Unary::Neg => match x {
                BasicValueEnum::FloatValue(x) => Ok(self.b.build_float_neg(x, "")?.into()),
                x => Ok(self.b.build_float_neg(vector(x)?, "")?.into()),
            },
            Unary::Abs => self.call("llvm.fabs", &[x]),
            Unary::Sqrt => self.call("llvm.sqrt", &[x]),
            Unary::Round => self.call("llvm.roundeven", &[x]),
            Unary::Exp2 => self.exp2(x, ty.lanes),
            Unary::ToI32 => Ok(self.freeze(cast(InstructionOpcode::FPToSI)?)),
            Unary::ToF32 => cast(InstructionOpcode::SIToFP),
            Unary::ToIndex => cast(InstructionOpcode::SExt),
            Unary::IndexToI32 => cast(InstructionOpcode::Trunc),
            Unary::BitsOf | Unary::FromBits => cast(InstructionOpcode::BitCast),
        }
    }

    /// Some value where LLVM has none: the conversion of a float out of range may give anything, but code after it
    /// must not be taken for unreachable.
    fn freeze(&self, value: BasicValueEnum<'c>) -> BasicValueEnum<'c> {
        use inkwell::llvm_sys::core::LLVMBuildFreeze;
        // SAFETY: the builder is positioned in a function, and `value` belongs to it. The name is a C string, and the
        // result has the type of `value`.
        unsafe {
            BasicValueEnum::new(LLVMBuildFreeze(
                self.b.as_mut_ptr(),
                value.as_value_ref(),
                c"".as_ptr(),
            ))
        }
    }

    pub(crate) fn binary(
        &self,
        op: Binary,
        ty: Type,
        x: BasicValueEnum<'c>,
        y: BasicValueEnum<'c>,
    ) -> Result<BasicValueEnum<'c>, Fault> {
        use InstructionOpcode as Op;
        let is_float = ty.scalar == Scalar::F32;
        let opcode = match op {
            Binary::Min | Binary::Max => {
                let (a, b) = if op == Binary::Min { (x, y) } else { (y, x) };
                let is_less = if is_float {
                    // In this form it is the minimum and maximum of x86.
                    self.float_compare(FloatPredicate::OLT, a, b)?
                } else {
                    self.int_compare(IntPredicate::SLT, a, b)?
                };
                return self.choose(is_less, x, y);
            }
            Binary::Shl | Binary::Shr => {
                // LLVM leaves larger counts undefined.
                let count = self.binop(Op::And, y, self.ints(31, ty.lanes))?;
                let opcode = if op == Binary::Shl { Op::Shl } else { Op::AShr };
                return self.binop(opcode, x, count);
            }
            Binary::Add if is_float => Op::FAdd,
            Binary::Sub if is_float => Op::FSub,
            Binary::Mul if is_float => Op::FMul,
            Binary::Div if is_float => Op::FDiv,
            Binary::Add => Op::Add,
            Binary::Sub => Op::Sub,
            Binary::Mul => Op::Mul,
            Binary::Div => Op::SDiv,
            // Neither operand is negative, and the unsigned remainder is the cheaper one.
            Binary::Rem => Op::URem,
            Binary::And => Op::And,
            Binary::Or => Op::Or,
            Binary::Xor => Op::Xor,
        };
        self.binop(opcode, x, y)
    }

    fn compare(&self, op: Compare, x: Reg, y: Reg) -> Result<BasicValueEnum<'c>, Fault> {
        let is_float = self.kernel.ty(x).scalar == Scalar::F32;
        let (x, y) = (self.value(x)?, self.value(y)?);
        let (float, int) = match op {
            Compare::Eq => (FloatPredicate::OEQ, IntPredicate::EQ),
            Compare::Ne => (FloatPredicate::UNE, IntPredicate::NE),
            Compare::Lt => (FloatPredicate::OLT, IntPredicate::SLT),
            Compare::Le => (FloatPredicate::OLE, IntPredicate::SLE),
        };
        if is_float {
            self.float_compare(float, x, y)
        } else {
            self.int_compare(int, x, y)
        }
    }

    fn splat(&self, value: BasicValueEnum<'c>, ty: Type) -> Result<BasicValueEnum<'c>, Fault> {
        let BasicTypeEnum::VectorType(vector_type) = self.ty(ty) else {
            return Ok(value);
        };
        let first = self.context.i32_type().const_zero();
        let nothing = vector_type.get_poison();
        let one = self.b.build_insert_element(nothing, value, first, "")?;
        let mask = self.context.i32_type().vec_type(ty.lanes).const_zero();
        Ok(self.b.build_shuffle_vector(one, nothing, mask, "")?.into())
    }

    /// Scalars as lanes.
    pub(crate) fn join(&self, lanes: &[Reg], ty: Type) -> Result<BasicValueEnum<'c>, Fault> {
        let BasicTypeEnum::VectorType(vector_type) = self.ty(ty) else {
            return self.value(lanes[0]);
        };
        let mut joined = vector_type.get_poison();
        for (lane, i) in lanes.iter().zip(0..) {
            let place = self.context.i32_type().const_int(i, false);
            joined = self
                .b
                .build_insert_element(joined, self.value(*lane)?, place, "")?;
        }
        Ok(joined.into())
    }

    /// One lane as a scalar.
    pub(crate) fn lane(&self, value: BasicValueEnum<'c>, lane: u32) -> Result<BasicValueEnum<'c>, Fault> {
        match value {
            BasicValueEnum::VectorValue(value) => {
                let lane = self.context.i32_type().const_int(u64::from(lane), false);
                Ok(self.b.build_extract_element(value, lane, "")?)
            }
            scalar => Ok(scalar),
        }
    }

    /// The upper half with the lower, until one lane is left.
    pub(crate) fn reduce(&self, op: Reduction, from: Reg) -> Result<BasicValueEnum<'c>, Fault> {
        let mut ty = self.kernel.ty(from);
        let op = match op {
            Reduction::Add => Binary::Add,
            Reduction::Max => Binary::Max,
        };
        let mut value = self.value(from)?;
        while ty.lanes > 1 {
            ty.lanes /= 2;
            let low = self.part(value, 0, ty.lanes)?;
            let high = self.part(value, ty.lanes, ty.lanes)?;
            value = self.binary(op, ty, low, high)?;
        }
        Ok(value)
    }

    /// Lanes from `first` on.
    pub(crate) fn part(
        &self,
        value: BasicValueEnum<'c>,
        first: u32,
        lanes: u32,
    ) -> Result<BasicValueEnum<'c>, Fault> {
        if lanes == 1 {
            return self.lane(value, first);
        }
        let value = vector(value)?;
        let int = self.context.i32_type();
        let mask: Vec<_> = (first..first + lanes)
            .map(|lane| int.const_int(u64::from(lane), false))
            .collect();
        let nothing = value.get_type().get_poison();
        let mask = VectorType::const_vector(&mask);
        Ok(self.b.build_shuffle_vector(value, nothing, mask, "")?.into())
    }

    /// An I32 constant in each lane.
    pub(crate) fn ints(&self, value: u32, lanes: u32) -> BasicValueEnum<'c> {
        let value = self.context.i32_type().const_int(u64::from(value), false);
        if lanes == 1 {
            value.into()
        } else {
            VectorType::const_vector(&vec![value; lanes as usize]).into()
        }
    }

    pub(crate) fn binop(
        &self,
        opcode: InstructionOpcode,
        x: BasicValueEnum<'c>,
        y: BasicValueEnum<'c>,
    ) -> Result<BasicValueEnum<'c>, Fault> {
        Ok(self.b.build_binop(opcode, x, y, "")?)
    }

    pub(crate) fn cast(
        &self,
        opcode: InstructionOpcode,
        value: BasicValueEnum<'c>,
        ty: BasicTypeEnum<'c>,
    ) -> Result<BasicValueEnum<'c>, Fault> {
        Ok(self.b.build_cast(opcode, value, ty, "")?)
    }

    pub(crate) fn float_compare(
        &self,
        predicate: FloatPredicate,
        x: BasicValueEnum<'c>,
        y: BasicValueEnum<'c>,
    ) -> Result<BasicValueEnum<'c>, Fault> {
        match (x, y) {
            (BasicValueEnum::FloatValue(x), BasicValueEnum::FloatValue(y)) => {
                Ok(self.b.build_float_compare(predicate, x, y, "")?.into())
            }
            (x, y) => Ok(self
                .b
                .build_float_compare(predicate, vector(x)?, vector(y)?, "")?
                .into()),
        }
    }

    fn int_compare(
        &self,
        predicate: IntPredicate,
        x: BasicValueEnum<'c>,
        y: BasicValueEnum<'c>,
    ) -> Result<BasicValueEnum<'c>, Fault> {
        match (x, y) {
            (BasicValueEnum::IntValue(x), BasicValueEnum::IntValue(y)) => {
                Ok(self.b.build_int_compare(predicate, x, y, "")?.into())
            }
            (x, y) => Ok(self
                .b
                .build_int_compare(predicate, vector(x)?, vector(y)?, "")?
                .into()),
        }
    }

    /// Lane by lane, `x` where the condition holds, else `y`.
    pub(crate) fn choose(
        &self,
        condition: BasicValueEnum<'c>,
        x: BasicValueEnum<'c>,
        y: BasicValueEnum<'c>,
    ) -> Result<BasicValueEnum<'c>, Fault> {
        match condition {
            BasicValueEnum::IntValue(condition) => Ok(self.b.build_select(condition, x, y, "")?),
            condition => Ok(self.b.build_select(vector(condition)?, x, y, "")?),
        }
    }

    /// An intrinsic function of operands of one type.
    fn call(&self, name: &str, operands: &[BasicValueEnum<'c>]) -> Result<BasicValueEnum<'c>, Fault> {
        let function = self.intrinsic(name, operands[0].get_type())?;
        let operands: Vec<_> = operands.iter().map(|&x| x.into()).collect();
        value_of(self.b.build_call(function, &operands, "")?)
    }

    /// An intrinsic function for operands of a type.
    pub(crate) fn intrinsic(&self, name: &str, ty: BasicTypeEnum<'c>) -> Result<FunctionValue<'c>, Fault> {
        intrinsic(self.module, name, &[ty])
    }
}

/// An intrinsic function. `types` are those of its types that are not fixed.
pub(crate) fn intrinsic<'c>(
    module: &Module<'c>,
    name: &str,
    types: &[BasicTypeEnum<'c>],
) -> Result<FunctionValue<'c>, Fault> {
    Intrinsic::find(name)
        .and_then(|intrinsic| intrinsic.get_declaration(module, types))
        .ok_or_else(|| Fault(format!("LLVM has no `{name}`")))
}

/// What a call gives.
pub(crate) fn value_of(call: CallSiteValue<'_>) -> Result<BasicValueEnum<'_>, Fault> {
    call.try_as_basic_value()
        .basic()
        .ok_or_else(|| Fault("a function of LLVM gives no value".to_owned()))
}

/// A register of several lanes.
pub(crate) fn vector(value: BasicValueEnum<'_>) -> Result<VectorValue<'_>, Fault> {
    match value {
        BasicValueEnum::VectorValue(value) => Ok(value),
        other => Err(Fault(format!(
            "found a value of type {}, expected a vector",
            other.get_type()
        ))),
    }
}
