//! `token_shift`

use super::{Eval, Infer, TokenShift, shapes};
use crate::graph::eval::{Data, Env, EvalError, Real};
use crate::graph::{TensorType, TypeError};

impl Infer for TokenShift {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        let [x, prev] = shapes::exactly(operands)?;
        let [batch, _, width] = shapes::axes("x", x)?;
        shapes::has_shape("prev", prev, &[batch, width])?;
        Ok(vec![
            shapes::f32_of(x.shape.iter().copied()),
            shapes::f32_of([batch, width]),
        ])
    }
}

impl Eval for TokenShift {
    fn eval<'a, F: Real>(
        &self,
        operands: &[Data<'a, F>],
        _: &Env<'a, F>,
    ) -> Result<Vec<Data<'a, F>>, EvalError> {
        let [x, prev] = operands else {
            unreachable!("two operands")
        };
        let (values, width) = (x.values(), x.width());
        let (mut shifted, mut next) = (Vec::with_capacity(x.len()), Vec::with_capacity(prev.len()));
        let sequences = values.chunks_exact(x.shape()[1] * width);
        for (sequence, prev) in sequences.zip(prev.values().chunks_exact(width)) {
            let (before, last) = sequence.split_at(sequence.len() - width);
            shifted.extend_from_slice(prev);
            shifted.extend_from_slice(before);
            next.extend_from_slice(last);
        }
        Ok(vec![
            Data::dense(x.shape().to_vec(), shifted),
            Data::dense(prev.shape().to_vec(), next),
        ])
    }
}
