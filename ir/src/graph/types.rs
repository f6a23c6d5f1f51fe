//! Types of tensor values.

use std::fmt;

use crate::DType;

/// The length of one axis: known, or known only when the step is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// A known length.
    Fixed(usize),
    /// The number of sequences, `B` in text.
    Batch,
    /// The number of tokens of each sequence in this call, `T` in text.
    Time,
}

impl Dim {
    /// The length, if it is known.
    pub const fn as_fixed(self) -> Option<usize> {
        match self {
            Dim::Fixed(n) => Some(n),
            Dim::Batch | Dim::Time => None,
        }
    }

    /// This axis where the given symbolic lengths are known.
    pub(crate) const fn specialise(self, batch: Option<usize>, time: Option<usize>) -> Self {
        match (self, batch, time) {
            (Dim::Batch, Some(n), _) | (Dim::Time, _, Some(n)) => Dim::Fixed(n),
            _ => self,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Batch => f.write_str("B"),
            Dim::Time => f.write_str("T"),
        }
    }
}

/// The type of a value: `f32[B,T,256]` in text, `f32[]` for a scalar. Elements are in row-major order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorType {
    /// How elements are stored: f32 for activations and state, i32 for tokens, any float format for weights.
    pub dtype: DType,
    /// The axes, slowest first.
    pub shape: Vec<Dim>,
}

impl TensorType {
    /// The most axes of a value.
    pub const MAX_RANK: usize = 8;

    /// A type of these axes, slowest first.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = Dim>) -> Self {
        Self {
            dtype,
            shape: shape.into_iter().collect(),
        }
    }

    /// Whether it can be the type of a value: no empty axis, each symbolic length at most once, at most
    /// [`MAX_RANK`](Self::MAX_RANK) axes.
    pub fn is_valid(&self) -> bool {
        let count = |dim| self.shape.iter().filter(|&&d| d == dim).count();
        self.shape.len() <= Self::MAX_RANK
            && count(Dim::Batch) <= 1
            && count(Dim::Time) <= 1
            && count(Dim::Fixed(0)) == 0
    }

    /// The number of elements, if every axis is known and the product fits.
    pub fn elements(&self) -> Option<usize> {
        self.shape
            .iter()
            .try_fold(1usize, |n, d| n.checked_mul(d.as_fixed()?))
    }

    /// This type where the given symbolic lengths are known.
    pub(crate) fn specialise(&self, batch: Option<usize>, time: Option<usize>) -> Self {
        Self::new(self.dtype, self.shape.iter().map(|d| d.specialise(batch, time)))
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, Shape(&self.shape))
    }
}

/// A shape in text: `[B,T,256]`.
pub(crate) struct Shape<'a>(pub(crate) &'a [Dim]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            dim.fmt(f)?;
        }
        f.write_str("]")
    }
}
