//! The words of the text form, one table for printing and reading.

use crate::kernel::*;

pub(crate) const UNARY: [(Unary, &str); 11] = [
    (Unary::Neg, "neg"),
    (Unary::Abs, "abs"),
    (Unary::Sqrt, "sqrt"),
    (Unary::Round, "round"),
    (Unary::Exp2, "exp2"),
    (Unary::ToI32, "to_i32"),
    (Unary::ToF32, "to_f32"),
    (Unary::ToIndex, "to_index"),
    (Unary::IndexToI32, "index_to_i32"),
    (Unary::BitsOf, "bits_of"),
    (Unary::FromBits, "from_bits"),
];

pub(crate) const BINARY: [(Binary, &str); 12] = [
    (Binary::Add, "add"),
    (Binary::Sub, "sub"),
    (Binary::Mul, "mul"),
    (Binary::Div, "div"),
    (Binary::Rem, "rem"),
    (Binary::Min, "min"),
    (Binary::Max, "max"),
    (Binary::And, "and"),
    (Binary::Or, "or"),
    (Binary::Xor, "xor"),
    (Binary::Shl, "shl"),
    (Binary::Shr, "shr"),
];

pub(crate) const COMPARE: [(Compare, &str); 4] = [
    (Compare::Eq, "eq"),
    (Compare::Ne, "ne"),
    (Compare::Lt, "lt"),
    (Compare::Le, "le"),
];

pub(crate) const REDUCTION: [(Reduction, &str); 2] =
    [(Reduction::Add, "reduce.add"), (Reduction::Max, "reduce.max")];

pub(crate) const LOOP: [(LoopKind, &str); 4] = [
    (LoopKind::Parallel, "parallel"),
    (LoopKind::Thread, "thread"),
    (LoopKind::Serial, "serial"),
    (LoopKind::Unrolled, "unrolled"),
];

pub(crate) const ACCESS: [(Access, &str); 3] = [
    (Access::Read, "read"),
    (Access::Write, "write"),
    (Access::ReadWrite, "readwrite"),
];

pub(crate) const SPACE: [(Space, &str); 2] = [(Space::Private, "private"), (Space::Shared, "shared")];

pub(crate) const SCALAR: [(Scalar, &str); 4] = [
    (Scalar::F32, "f32"),
    (Scalar::I32, "i32"),
    (Scalar::Index, "index"),
    (Scalar::Bool, "bool"),
];

/// The word of a value. Each table has a row for each value of its enum.
pub(crate) fn word<T: PartialEq>(table: &[(T, &'static str)], value: T) -> &'static str {
    table
        .iter()
        .find(|(v, _)| *v == value)
        .map_or("?", |(_, word)| word)
}

/// The value of a word.
pub(crate) fn value<T: Copy>(table: &[(T, &'static str)], word: &str) -> Option<T> {
    table.iter().find(|(_, w)| *w == word).map(|(value, _)| *value)
}

/// Whether a text is a C identifier.
pub(crate) fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
