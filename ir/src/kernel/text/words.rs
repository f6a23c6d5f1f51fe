//! The words of the text form, one table for printing and reading.

use crate::kernel::*;

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
