//! Arithmetic: one instruction of the Kernel IR at a time, part by part.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Opcode, Value, types};
use rwkvc_backend_api::{Arch, LowerError};
use rwkvc_ir::kernel::{Binary, Compare, Inst, Reduction, Reg, Scalar, Type, Unary};

use crate::emitter::Emitter;
use crate::formats::{cast, choose, int16};
use crate::shape::{Width, width};

impl Emitter<'_, '_> {
    /// The parts of what an instruction computes.
    pub(crate) fn compute(&mut self, dest: Reg, inst: &Inst) -> Result<Vec<Value>, LowerError> {
        let ty = self.kernel.ty(dest);
        Ok(match inst {
            Inst::Float(value) => vec![self.b.ins().f32const(value.get())],
            Inst::Int(value) => vec![self.b.ins().iconst(types::I32, i64::from(*value as u32))],
            Inst::Index(value) => vec![self.b.ins().iconst(types::I64, *value)],
            Inst::Tokens => vec![self.tokens],
            Inst::Address(at) => vec![self.affine(at)?],
            Inst::Copy(from) => self.values(*from)?,
            Inst::Unary(op, a) => self.unary(*op, *a, ty)?,
            Inst::Binary(op, a, c) => {
                let (left, right) = (self.values(*a)?, self.values(*c)?);
                left.into_iter()
                    .zip(right)
                    .map(|(x, y)| self.binary(*op, ty, x, y))
                    .collect()
            }
            Inst::Fma(a, m, c) => {
                let (a, m, c) = (self.values(*a)?, self.values(*m)?, self.values(*c)?);
                a.into_iter()
                    .zip(m)
                    .zip(c)
                    .map(|((a, m), c)| self.b.ins().fma(a, m, c))
                    .collect()
            }
            Inst::Compare(op, a, c) => self.compare(*op, *a, *c, ty)?,
            Inst::Select(condition, a, c) => self.select(*condition, *a, *c, ty)?,
            Inst::Splat(from, _) => self.splat(*from, ty)?,
            Inst::Extract(from, lane) => vec![self.lane(*from, *lane)?],
            Inst::Join(lanes) => {
                let lanes = lanes
                    .iter()
                    .map(|lane| self.scalar(*lane))
                    .collect::<Result<_, _>>()?;
                self.gather(ty, lanes)
            }
            Inst::Sums(all) => {
                let sums = all.iter().map(|from| self.reduce(Reduction::Add, *from));
                let sums = sums.collect::<Result<_, _>>()?;
                self.gather(ty, sums)
            }
            Inst::Zip(half, a, b) => self.zip(*half, *a, *b, ty)?,
            Inst::Reduce(op, from) => vec![self.reduce(*op, *from)?],
            Inst::Load { buf, at, .. } => self.load(dest, *buf, at)?,
            Inst::Words { buf, at, .. } => self.words(dest, *buf, at)?,
            Inst::Pack(..) => return Err(self.refuse("`pack` exists on GPUs only".to_owned())),
            Inst::Dot4(a, m, c) => {
                let (a, m, c) = (self.values(*a)?, self.values(*m)?, self.values(*c)?);
                let parts = a.into_iter().zip(m).zip(c);
                parts
                    .map(|((a, m), c)| match width(ty) {
                        Width::One => self.dot4_of_bytes(a, m, c),
                        Width::Four => self.dot4_of_pairs(a, m, c),
                    })
                    .collect()
            }
            Inst::Shuffle(..) | Inst::Mma { .. } => {
                unreachable!("kernels whose threads exchange values are refused as a whole")
            }
        })
    }

    fn unary(&mut self, op: Unary, a: Reg, ty: Type) -> Result<Vec<Value>, LowerError> {
        if op == Unary::Exp2 {
            return Err(self.refuse("`exp2` exists on GPUs only; it must be expanded".to_owned()));
        }
        if matches!(op, Unary::ToIndex | Unary::IndexToI32) {
            // Vectors of Index have another shape than vectors of I32.
            let lanes = self.lanes(a)?;
            let lanes = lanes
                .into_iter()
                .map(|lane| match op {
                    Unary::ToIndex => self.b.ins().sextend(types::I64, lane),
                    _ => self.b.ins().ireduce(types::I32, lane),
                })
                .collect();
            return Ok(self.gather(ty, lanes));
        }
        let values = self.values(a)?;
        Ok(values
            .into_iter()
            .map(|x| self.unary_part(op, width(ty), x))
            .collect())
    }

    fn unary_part(&mut self, op: Unary, width: Width, x: Value) -> Value {
        match op {
            Unary::Neg => self.b.ins().fneg(x),
            Unary::Abs => self.b.ins().fabs(x),
            Unary::Sqrt => self.b.ins().sqrt(x),
            Unary::Round => self.b.ins().nearest(x),
            Unary::ToI32 => self.truncate(width, x),
            Unary::ToF32 => self.b.ins().fcvt_from_sint(width.float(), x),
            Unary::BitsOf => cast(&mut self.b, width.int(), x),
            Unary::FromBits => cast(&mut self.b, width.float(), x),
            Unary::Exp2 | Unary::ToIndex | Unary::IndexToI32 => unreachable!("handled before the parts"),
        }
    }

    /// F32 lanes within the range of i32 as I32 lanes.
    fn truncate(&mut self, width: Width, x: Value) -> Value {
        match (self.arch, width) {
            (Arch::Aarch64, width) => self.b.ins().fcvt_to_sint_sat(width.int(), x),
            (Arch::X86_64 | Arch::Cuda, Width::Four) => self.b.ins().x86_cvtt2dq(types::I32X4, x),
            // The saturating conversion of a scalar branches; the vector one is a single instruction.
            (Arch::X86_64 | Arch::Cuda, Width::One) => {
                let vector = self.b.ins().scalar_to_vector(types::F32X4, x);
                let vector = self.b.ins().x86_cvtt2dq(types::I32X4, vector);
                self.b.ins().extractlane(vector, 0)
            }
        }
    }

    /// `c + Σ aᵢ bᵢ` over the unsigned bytes of `a` and the signed ones of `m`.
    fn dot4_of_bytes(&mut self, a: Value, m: Value, c: Value) -> Value {
        (0..4).fold(c, |sum, byte| {
            let a = self.b.ins().ushr_imm_u(a, 8 * byte);
            let a = self.b.ins().band_imm_u(a, 0xff);
            let m = self.b.ins().ishl_imm_u(m, 24 - 8 * byte);
            let m = self.b.ins().sshr_imm_u(m, 24);
            let product = self.b.ins().imul(a, m);
            self.b.ins().iadd(sum, product)
        })
    }

    /// The same of four lanes: bytes at even and at odd places as 16-bit numbers.
    fn dot4_of_pairs(&mut self, a: Value, m: Value, c: Value) -> Value {
        let [a, m] = [a, m].map(|x| cast(&mut self.b, types::I16X8, x));
        let low = int16(&mut self.b, 0xff);
        let m_even = self.b.ins().ishl_imm_u(m, 8);
        let pairs = [
            (self.b.ins().band(a, low), self.b.ins().sshr_imm_u(m_even, 8)),
            (self.b.ins().ushr_imm_u(a, 8), self.b.ins().sshr_imm_u(m, 8)),
        ];
        pairs.into_iter().fold(c, |sum, (a, m)| {
            let low = [a, m].map(|x| self.b.ins().swiden_low(x));
            let high = [a, m].map(|x| self.b.ins().swiden_high(x));
            let [low, high] = [low, high].map(|[a, m]| self.b.ins().imul(a, m));
            // In this form it is one instruction of x86.
            let products = self.b.ins().iadd_pairwise(low, high);
            self.b.ins().iadd(sum, products)
        })
    }

    /// An operation on one part of two registers of type `ty`.
    pub(crate) fn binary(&mut self, op: Binary, ty: Type, x: Value, y: Value) -> Value {
        if ty.scalar == Scalar::F32 {
            self.float_binary(op, width(ty), x, y)
        } else {
            self.int_binary(op, ty, x, y)
        }
    }

    fn float_binary(&mut self, op: Binary, width: Width, x: Value, y: Value) -> Value {
        match op {
            Binary::Add => self.b.ins().fadd(x, y),
            Binary::Sub => self.b.ins().fsub(x, y),
            Binary::Mul => self.b.ins().fmul(x, y),
            Binary::Div => self.b.ins().fdiv(x, y),
            Binary::Min => self.pick(width, (x, y), (x, y)),
            Binary::Max => self.pick(width, (y, x), (x, y)),
            _ => unreachable!("the verifier refuses {op:?} on f32"),
        }
    }

    /// `x` where `a < c`, else `y`: in this form Cranelift finds the target's minimum and maximum.
    fn pick(&mut self, width: Width, (a, c): (Value, Value), (x, y): (Value, Value)) -> Value {
        let less = self.b.ins().fcmp(FloatCC::LessThan, a, c);
        match width {
            Width::One => self.b.ins().select(less, x, y),
            Width::Four => {
                let less = cast(&mut self.b, types::F32X4, less);
                self.b.ins().bitselect(less, x, y)
            }
        }
    }

    fn int_binary(&mut self, op: Binary, ty: Type, x: Value, y: Value) -> Value {
        let width = width(ty);
        match op {
            Binary::Add => self.b.ins().iadd(x, y),
            Binary::Sub => self.b.ins().isub(x, y),
            Binary::Mul => self.b.ins().imul(x, y),
            Binary::Div => self.b.ins().sdiv(x, y),
            // Neither operand is negative, and the unsigned remainder is the cheaper one.
            Binary::Rem => self.b.ins().urem(x, y),
            Binary::Min => {
                let less = self.b.ins().icmp(IntCC::SignedLessThan, x, y);
                choose(&mut self.b, width, less, x, y)
            }
            Binary::Max => {
                let less = self.b.ins().icmp(IntCC::SignedLessThan, y, x);
                choose(&mut self.b, width, less, x, y)
            }
            Binary::And => self.b.ins().band(x, y),
            Binary::Or => self.b.ins().bor(x, y),
            Binary::Xor => self.b.ins().bxor(x, y),
            Binary::Shl | Binary::Shr => self.shift(op, width, x, y),
        }
    }

    /// Cranelift shifts all lanes of a vector by one scalar; that is the usual case here as well.
    fn shift(&mut self, op: Binary, width: Width, x: Value, count: Value) -> Value {
        if width == Width::One {
            return self.shift_by(op, x, count);
        }
        if let Some(count) = self.splatted(count) {
            return self.shift_by(op, x, count);
        }
        let lanes: Vec<Value> = (0..4u8)
            .map(|lane| {
                let x = self.b.ins().extractlane(x, lane);
                let count = self.b.ins().extractlane(count, lane);
                self.shift_by(op, x, count)
            })
            .collect();
        self.vector(types::I32X4, &lanes)
    }

    fn shift_by(&mut self, op: Binary, x: Value, count: Value) -> Value {
        match op {
            Binary::Shl => self.b.ins().ishl(x, count),
            _ => self.b.ins().sshr(x, count),
        }
    }

    /// The scalar that a vector repeats, if it was made by a splat.
    fn splatted(&self, vector: Value) -> Option<Value> {
        let dfg = &self.b.func.dfg;
        let inst = dfg.value_def(dfg.resolve_aliases(vector)).inst()?;
        (dfg.insts[inst].opcode() == Opcode::Splat).then(|| dfg.inst_args(inst)[0])
    }

    fn compare(&mut self, op: Compare, a: Reg, c: Reg, ty: Type) -> Result<Vec<Value>, LowerError> {
        let operand = self.kernel.ty(a);
        let (left, right) = (self.values(a)?, self.values(c)?);
        let results = left
            .into_iter()
            .zip(right)
            .map(|(x, y)| match operand.scalar {
                Scalar::F32 => self.b.ins().fcmp(float_condition(op), x, y),
                _ => self.b.ins().icmp(int_condition(op), x, y),
            })
            .collect();
        Ok(if width(operand) == width(ty) {
            results
        } else {
            self.gather(ty, results)
        })
    }

    fn select(&mut self, condition: Reg, a: Reg, c: Reg, ty: Type) -> Result<Vec<Value>, LowerError> {
        let same_shape = width(self.kernel.ty(condition)) == width(ty);
        let (conditions, lanes_width) = if same_shape {
            (self.values(condition)?, width(ty))
        } else {
            (self.lanes(condition)?, Width::One)
        };
        let (left, right) = (self.values(a)?, self.values(c)?);
        let operands = conditions.into_iter().zip(left).zip(right);
        Ok(operands
            .map(|((k, x), y)| choose(&mut self.b, lanes_width, k, x, y))
            .collect())
    }
}

fn float_condition(op: Compare) -> FloatCC {
    match op {
        Compare::Eq => FloatCC::Equal,
        Compare::Ne => FloatCC::NotEqual,
        Compare::Lt => FloatCC::LessThan,
        Compare::Le => FloatCC::LessThanOrEqual,
    }
}

fn int_condition(op: Compare) -> IntCC {
    match op {
        Compare::Eq => IntCC::Equal,
        Compare::Ne => IntCC::NotEqual,
        Compare::Lt => IntCC::SignedLessThan,
        Compare::Le => IntCC::SignedLessThanOrEqual,
    }
}
