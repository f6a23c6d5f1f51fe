//! `transpose`

use super::{Eval, Infer, Transpose, shapes};
use crate::graph::eval::{Data, Env, EvalError, Real};
use crate::graph::{TensorType, TypeError};

impl Infer for Transpose {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        let [w] = shapes::exactly(operands)?;
        let [a, b] = shapes::axes("w", w)?;
        Ok(vec![TensorType::new(w.dtype, [b, a])])
    }
}

impl Eval for Transpose {
    fn eval<'a, F: Real>(
        &self,
        operands: &[Data<'a, F>],
        _: &Env<'a, F>,
    ) -> Result<Vec<Data<'a, F>>, EvalError> {
        let w = &operands[0];
        let (rows, columns) = (w.rows(), w.width());
        let values = w.values();
        let mut y = Vec::with_capacity(values.len());
        for c in 0..columns {
            y.extend((0..rows).map(|r| values[r * columns + c]));
        }
        Ok(vec![Data::dense(vec![columns, rows], y)])
    }
}
