//! How a register of the Kernel IR is spread over Cranelift values.

use cranelift_codegen::ir::{self, types};
use rwkvc_ir::kernel::{Scalar, Type};

/// What one Cranelift value holds of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// One lane, as a scalar.
    One,
    /// Four lanes, as a 128-bit vector. Truth values are masks: all bits of a lane are equal.
    Four,
}

impl Width {
    /// F32 or F32X4.
    pub(crate) fn float(self) -> ir::Type {
        match self {
            Width::One => types::F32,
            Width::Four => types::F32X4,
        }
    }

    /// I32 or I32X4.
    pub(crate) fn int(self) -> ir::Type {
        match self {
            Width::One => types::I32,
            Width::Four => types::I32X4,
        }
    }

    /// The lanes of one value.
    pub(crate) fn lanes(self) -> u32 {
        match self {
            Width::One => 1,
            Width::Four => 4,
        }
    }
}

/// The width of all parts of a register. Two lanes are two scalars; vectors of [`Scalar::Index`] are scalars as well.
pub(crate) fn width(ty: Type) -> Width {
    if ty.lanes >= 4 && ty.scalar != Scalar::Index {
        Width::Four
    } else {
        Width::One
    }
}

/// The number of values for a register.
pub(crate) fn parts(ty: Type) -> u32 {
    ty.lanes / width(ty).lanes()
}

/// The type of each value of a register.
pub(crate) fn part_type(ty: Type) -> ir::Type {
    match (ty.scalar, width(ty)) {
        (Scalar::F32, width) => width.float(),
        (Scalar::I32, width) => width.int(),
        (Scalar::Index, _) => types::I64,
        (Scalar::Bool, Width::One) => types::I8,
        (Scalar::Bool, Width::Four) => types::I32X4,
    }
}
