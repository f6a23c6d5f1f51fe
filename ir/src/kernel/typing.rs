//! Which type an instruction computes.

use super::{Buf, Inst, Kernel, Reg, Scalar, Type};
use crate::DType;

impl Type {
    /// One lane.
    pub const fn scalar(scalar: Scalar) -> Self {
        Type { scalar, lanes: 1 }
    }
}

impl Kernel {
    /// The number format of a buffer, if there is such a buffer.
    pub(crate) fn dtype_of(&self, buf: Buf) -> Option<DType> {
        let i = buf.0 as usize;
        match i.checked_sub(self.params.len()) {
            None => Some(self.params[i].dtype),
            Some(local) => self.locals.get(local).map(|l| l.dtype),
        }
    }

    /// The type of a register, if there is such a register.
    pub(crate) fn type_of(&self, reg: Reg) -> Option<Type> {
        self.registers.get(reg.0 as usize).map(|r| r.ty)
    }

    /// The type that an instruction computes, judged by the operand that decides it. Other operands may still be
    /// wrong; `None` if the operand that decides does not exist.
    pub(crate) fn result_of(&self, inst: &Inst) -> Option<Type> {
        let with = |reg: Reg, scalar| {
            self.type_of(reg).map(|ty| Type {
                scalar,
                lanes: ty.lanes,
            })
        };
        match *inst {
            Inst::Float(_) => Some(Type::scalar(Scalar::F32)),
            Inst::Int(_) => Some(Type::scalar(Scalar::I32)),
            Inst::Index(_) | Inst::Tokens | Inst::Address(_) => Some(Type::scalar(Scalar::Index)),
            Inst::Copy(a)
            | Inst::Binary(_, a, _)
            | Inst::Fma(a, ..)
            | Inst::Dot4(a, ..)
            | Inst::Zip(_, a, _)
            | Inst::Select(_, a, _)
            | Inst::Shuffle(a, _) => self.type_of(a),
            Inst::Unary(op, a) => with(a, op.types().1),
            Inst::Compare(_, a, _) => with(a, Scalar::Bool),
            Inst::Splat(a, lanes) => self.type_of(a).map(|ty| Type { lanes, ..ty }),
            Inst::Extract(a, _) | Inst::Reduce(_, a) => self.type_of(a).map(|ty| Type::scalar(ty.scalar)),
            Inst::Join(ref lanes) => lanes.first().and_then(|a| self.type_of(*a)).map(|ty| Type {
                lanes: lanes.len() as u32,
                ..ty
            }),
            Inst::Sums(ref of) => of.first().and_then(|a| self.type_of(*a)).map(|ty| Type {
                lanes: of.len() as u32,
                ..ty
            }),
            Inst::Words { lanes, .. } => Some(Type {
                scalar: Scalar::I32,
                lanes,
            }),
            // A single lane cannot be packed, whatever its result would be.
            Inst::Pack(_, a) => self.type_of(a).map(|ty| Type {
                scalar: Scalar::I32,
                lanes: (ty.lanes / 2).max(1),
            }),
            Inst::Mma { .. } => Some(Type {
                scalar: Scalar::F32,
                lanes: 4,
            }),
            Inst::Load { buf, lanes, .. } => self.dtype_of(buf).map(|dtype| Type {
                scalar: match dtype {
                    DType::I32 | DType::I8 => Scalar::I32,
                    DType::F32 | DType::F16 | DType::BF16 => Scalar::F32,
                },
                lanes,
            }),
        }
    }
}
