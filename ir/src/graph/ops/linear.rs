//! `linear`

use super::{Eval, Infer, Linear, shapes};
use crate::graph::eval::{Data, Env, EvalError, Real, dot};
use crate::graph::{TensorType, TypeError};

impl Infer for Linear {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        let [x, w] = shapes::exactly(operands)?;
        let (rows, inputs) = shapes::rows("x", x)?;
        let [outputs, columns] = shapes::axes("w", w)?;
        shapes::ensure(columns == inputs, "w", w, format!("rows of {inputs}, as `x` has"))?;
        Ok(vec![shapes::f32_of(rows.iter().copied().chain([outputs]))])
    }
}

impl Eval for Linear {
    fn eval<'a, F: Real>(
        &self,
        operands: &[Data<'a, F>],
        _: &Env<'a, F>,
    ) -> Result<Vec<Data<'a, F>>, EvalError> {
        let [x, w] = operands else {
            unreachable!("two operands")
        };
        let (inputs, outputs) = (x.width(), w.rows());
        let rows = x.values();
        let mut y = vec![F::ZERO; x.rows() * outputs];
        let mut buffer = vec![];
        // Each row of the matrix is decoded once and multiplied with all rows of `x`.
        for o in 0..outputs {
            let weights = w.row(o, &mut buffer);
            for (r, row) in rows.chunks_exact(inputs).enumerate() {
                y[r * outputs + o] = dot(row, weights);
            }
        }
        Ok(vec![Data::dense(x.shape_with_width(outputs), y)])
    }
}
