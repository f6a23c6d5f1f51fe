//! Tensors of the evaluator.

use std::borrow::Cow;
use std::rc::Rc;

use super::Real;
use crate::DType;
use crate::graph::{Dim, TensorType};

/// A dense tensor in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<F> {
    shape: Vec<usize>,
    values: Vec<F>,
}

impl<F: Real> Tensor<F> {
    /// A tensor of these elements.
    ///
    /// # Panics
    /// If there are not as many elements as the shape has.
    pub fn new(shape: impl Into<Vec<usize>>, values: Vec<F>) -> Self {
        let shape = shape.into();
        assert_eq!(
            shape.iter().product::<usize>(),
            values.len(),
            "elements of a tensor of shape {shape:?}"
        );
        Tensor { shape, values }
    }

    /// A tensor of zeros, such as the state before the first token.
    pub fn zeros(shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        let values = vec![F::ZERO; shape.iter().product()];
        Tensor { shape, values }
    }

    /// Token ids.
    ///
    /// # Panics
    /// If there are not as many tokens as the shape has elements.
    pub fn tokens(shape: impl Into<Vec<usize>>, tokens: &[u32]) -> Self {
        Tensor::new(shape, tokens.iter().map(|&t| F::from_f64(f64::from(t))).collect())
    }

    /// The axes, slowest first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    pub fn values(&self) -> &[F] {
        &self.values
    }

    /// The elements, without a copy.
    pub fn into_values(self) -> Vec<F> {
        self.values
    }
}

/// A value during evaluation: computed, or a weight where it lies.
#[derive(Clone)]
pub(crate) struct Data<'a, F> {
    shape: Vec<usize>,
    storage: Storage<'a, F>,
}

#[derive(Clone)]
enum Storage<'a, F> {
    Dense(Rc<Vec<F>>),
    Stored(DType, &'a [u8]),
}

impl<'a, F: Real> Data<'a, F> {
    /// A computed value.
    pub(crate) fn dense(shape: Vec<usize>, values: Vec<F>) -> Self {
        Data {
            shape,
            storage: Storage::Dense(Rc::new(values)),
        }
    }

    /// A weight where it lies.
    pub(crate) fn stored(shape: Vec<usize>, dtype: DType, bytes: &'a [u8]) -> Self {
        Data {
            shape,
            storage: Storage::Stored(dtype, bytes),
        }
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The length of a row; 1 for a scalar.
    pub(crate) fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.len() / self.width()
    }

    /// The shape with rows of another length.
    pub(crate) fn shape_with_width(&self, width: usize) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = width;
        }
        shape
    }

    /// The same elements under another shape.
    pub(crate) fn with_shape(&self, shape: Vec<usize>) -> Self {
        Data {
            shape,
            storage: self.storage.clone(),
        }
    }

    /// The type of a graph input that stands for this.
    pub(crate) fn ty(&self) -> TensorType {
        let dtype = match self.storage {
            Storage::Dense(_) => DType::F32,
            Storage::Stored(dtype, _) => dtype,
        };
        TensorType::new(dtype, self.shape.iter().map(|&n| Dim::Fixed(n)))
    }

    /// One row; `buffer` holds it if it has to be converted.
    pub(crate) fn row<'b>(&'b self, row: usize, buffer: &'b mut Vec<F>) -> &'b [F] {
        let width = self.width();
        match &self.storage {
            Storage::Dense(values) => &values[row * width..(row + 1) * width],
            Storage::Stored(dtype, bytes) => {
                let size = width * dtype.size();
                buffer.resize(width, F::ZERO);
                F::decode(*dtype, &bytes[row * size..(row + 1) * size], buffer);
                buffer
            }
        }
    }

    /// All elements.
    pub(crate) fn values(&self) -> Cow<'_, [F]> {
        match &self.storage {
            Storage::Dense(values) => Cow::Borrowed(values),
            Storage::Stored(dtype, bytes) => {
                let mut values = vec![F::ZERO; self.len()];
                F::decode(*dtype, bytes, &mut values);
                Cow::Owned(values)
            }
        }
    }

    pub(crate) fn into_tensor(self) -> Tensor<F> {
        let values = match self.storage {
            Storage::Dense(values) => Rc::unwrap_or_clone(values),
            Storage::Stored(..) => self.values().into_owned(),
        };
        Tensor {
            shape: self.shape,
            values,
        }
    }
}
