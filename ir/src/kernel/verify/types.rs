//! Types of instructions and stores.

use super::super::text::{ACCESS, word};
use super::*;

use Scalar::{Bool, F32, I32, Index};

/// Lanes of a register, at most.
const MAX_LANES: u32 = 64;

fn mismatch(what: String, found: impl ToString, expected: impl ToString) -> Fault {
    Fault::Type {
        what,
        found: found.to_string(),
        expected: expected.to_string(),
    }
}

impl Reporter<'_> {
    /// Whether every register has a type that exists.
    pub(super) fn check_registers(&self) -> Result<(), Fault> {
        for (info, number) in self.kernel.registers.iter().zip(0..) {
            let lanes = info.ty.lanes;
            if !lanes.is_power_of_two() || lanes > MAX_LANES {
                let what = format!("the lanes of `{}`", self.reg(Reg(number)));
                return Err(mismatch(what, lanes, "a power of two from 1 to 64"));
            }
        }
        Ok(())
    }

    fn ty(&self, reg: Reg) -> Result<Type, Fault> {
        self.kernel.type_of(reg).ok_or(Fault::Missing {
            what: "register",
            number: reg.0,
        })
    }

    fn dtype(&self, buf: Buf) -> Result<DType, Fault> {
        self.kernel.dtype_of(buf).ok_or(Fault::Missing {
            what: "buffer",
            number: buf.0,
        })
    }

    /// An operand whose lanes are of one of these scalars.
    fn of(&self, reg: Reg, scalars: &[Scalar]) -> Result<Type, Fault> {
        let ty = self.ty(reg)?;
        if scalars.contains(&ty.scalar) {
            return Ok(ty);
        }
        let options: Vec<String> = scalars
            .iter()
            .map(|&scalar| {
                Type {
                    scalar,
                    lanes: ty.lanes,
                }
                .to_string()
            })
            .collect();
        Err(mismatch(format!("`{}`", self.reg(reg)), ty, options.join(" or ")))
    }

    /// An operand of one type.
    fn exactly(&self, reg: Reg, expected: Type) -> Result<(), Fault> {
        match self.ty(reg)? {
            ty if ty == expected => Ok(()),
            ty => Err(mismatch(format!("`{}`", self.reg(reg)), ty, expected)),
        }
    }

    /// A register that counts or decides.
    pub(super) fn check_scalar(&self, reg: Reg, scalar: Scalar) -> Result<(), Fault> {
        self.exactly(reg, Type::scalar(scalar))
    }

    pub(super) fn check_affine(&self, at: &Affine) -> Result<(), Fault> {
        at.terms
            .iter()
            .try_for_each(|&(reg, _)| self.check_scalar(reg, Index))
    }

    pub(super) fn check_store(&self, buf: Buf, value: Reg) -> Result<(), Fault> {
        let scalar = match self.dtype(buf)? {
            DType::I32 | DType::I8 => I32,
            DType::F32 | DType::F16 | DType::BF16 => F32,
        };
        self.check_access(buf, "stored to", Access::Read)?;
        self.of(value, &[scalar]).map(|_| ())
    }

    fn check_access(&self, buf: Buf, done: &'static str, forbidden: Access) -> Result<(), Fault> {
        match self.kernel.params.get(buf.0 as usize) {
            Some(param) if param.access == forbidden => Err(Fault::Access {
                buffer: self.buf(buf),
                done,
                access: word(&ACCESS, forbidden),
            }),
            _ => Ok(()),
        }
    }

    /// Whether a format has 16 bits.
    fn check_halves(&self, what: impl FnOnce() -> String, format: DType) -> Result<(), Fault> {
        match format {
            DType::F16 | DType::BF16 => Ok(()),
            DType::F32 | DType::I32 | DType::I8 => Err(mismatch(what(), format, "f16 or bf16")),
        }
    }

    pub(super) fn check_prefetch(&self, buf: Buf, at: &Affine) -> Result<(), Fault> {
        self.dtype(buf)?;
        self.check_affine(at)
    }

    /// The operands of an instruction, and the register that it computes.
    pub(super) fn check_inst(&self, dest: Reg, inst: &Inst) -> Result<(), Fault> {
        let dest_type = self.ty(dest)?;
        match *inst {
            Inst::Float(_) | Inst::Int(_) | Inst::Index(_) | Inst::Tokens => {}
            Inst::Address(ref at) => self.check_affine(at)?,
            Inst::Copy(a) => _ = self.ty(a)?,
            Inst::Unary(op, a) => _ = self.of(a, &[op.types().0])?,
            Inst::Binary(op, a, b) => self.check_binary(op, a, b)?,
            Inst::Fma(a, b, c) => {
                let ty = self.of(a, &[F32])?;
                self.exactly(b, ty)?;
                self.exactly(c, ty)?;
            }
            Inst::Dot4(a, b, c) => {
                let ty = self.of(a, &[I32])?;
                self.exactly(b, ty)?;
                self.exactly(c, ty)?;
            }
            Inst::Compare(_, a, b) => {
                let ty = self.of(a, Compare::TYPES)?;
                self.exactly(b, ty)?;
            }
            Inst::Select(condition, a, b) => {
                let ty = self.ty(a)?;
                self.exactly(condition, Type { scalar: Bool, ..ty })?;
                self.exactly(b, ty)?;
            }
            Inst::Splat(a, _) => {
                let ty = self.ty(a)?;
                self.exactly(a, Type::scalar(ty.scalar))?;
            }
            Inst::Extract(a, lane) => {
                let ty = self.ty(a)?;
                if lane >= ty.lanes {
                    let expected = format!("less than the lanes of `{}`, {}", self.reg(a), ty.lanes);
                    return Err(mismatch("the lane".into(), lane, expected));
                }
            }
            Inst::Join(ref lanes) => {
                for &lane in lanes {
                    let scalar = self.of(lane, &[F32, I32])?.scalar;
                    self.exactly(lane, Type::scalar(scalar))?;
                    self.exactly(lane, self.ty(lanes[0])?)?;
                }
            }
            Inst::Sums(ref all) => {
                for &a in all {
                    self.of(a, &[F32])?;
                    self.exactly(a, self.ty(all[0])?)?;
                }
            }
            Inst::Zip(_, a, b) => {
                let ty = self.of(a, &[F32, I32])?;
                self.exactly(b, ty)?;
                if ty.lanes == 1 {
                    return Err(mismatch(format!("`{}`", self.reg(a)), ty, "two lanes or more"));
                }
            }
            Inst::Reduce(_, a) => _ = self.of(a, &[F32, I32])?,
            Inst::Load { buf, ref at, .. } => {
                self.dtype(buf)?;
                self.check_access(buf, "loaded from", Access::Write)?;
                self.check_affine(at)?;
            }
            Inst::Words { buf, ref at, .. } => {
                let dtype = self.dtype(buf)?;
                if dtype.in_word() == 1 {
                    return Err(mismatch(format!("`{}`", self.buf(buf)), dtype, "f16, bf16 or i8"));
                }
                self.check_access(buf, "loaded from", Access::Write)?;
                self.check_affine(at)?;
            }
            Inst::Pack(format, a) => {
                self.check_halves(|| "the format".to_owned(), format)?;
                let ty = self.of(a, &[F32])?;
                if ty.lanes == 1 {
                    return Err(mismatch(format!("`{}`", self.reg(a)), ty, "two lanes or more"));
                }
            }
            Inst::Mma { format, a, b, c } => {
                self.check_halves(|| "the format".to_owned(), format)?;
                for (reg, scalar, lanes) in [(a, I32, 4), (b, I32, 2), (c, F32, 4)] {
                    self.exactly(reg, Type { scalar, lanes })?;
                }
            }
            Inst::Shuffle(a, mask) => {
                self.of(a, &[F32, I32])?;
                if !(1..32).contains(&mask) {
                    return Err(mismatch(
                        "the mask".into(),
                        mask,
                        "1 to 31, within a warp of 32 threads",
                    ));
                }
            }
        }
        match self.kernel.result_of(inst) {
            Some(ty) if ty == dest_type => Ok(()),
            Some(ty) => Err(mismatch(format!("`{}`", self.reg(dest)), dest_type, ty)),
            None => Err(Fault::Missing {
                what: "register",
                number: dest.0,
            }),
        }
    }

    fn check_binary(&self, op: Binary, a: Reg, b: Reg) -> Result<(), Fault> {
        let ty = self.of(a, op.types())?;
        self.exactly(b, ty)?;
        if ty.scalar == Index && matches!(op, Binary::Div | Binary::Rem) {
            return self.check_scalar(a, Index);
        }
        Ok(())
    }
}
