//! `contract`

use super::{Contract, Eval, Infer, shapes};
use crate::graph::eval::{Data, Env, EvalError, Real};
use crate::graph::{TensorType, TypeError};

impl Infer for Contract {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        let [x, m] = shapes::exactly(operands)?;
        let (rows, inputs) = shapes::rows("x", x)?;
        let (m_rows, outputs) = shapes::rows("m", m)?;
        let matches = m_rows.split_last() == Some((&inputs, rows));
        shapes::ensure(
            matches,
            "m",
            m,
            format!("the shape of `x`, {x}, and one more axis"),
        )?;
        Ok(vec![shapes::f32_of(rows.iter().copied().chain([outputs]))])
    }
}

impl Eval for Contract {
    fn eval<'a, F: Real>(
        &self,
        operands: &[Data<'a, F>],
        _: &Env<'a, F>,
    ) -> Result<Vec<Data<'a, F>>, EvalError> {
        let [x, m] = operands else {
            unreachable!("two operands")
        };
        let (inputs, outputs) = (x.width(), m.width());
        let mut y = vec![F::ZERO; x.rows() * outputs];
        let mut buffer = vec![];
        for (r, row) in x.values().chunks_exact(inputs).enumerate() {
            for (i, &x) in row.iter().enumerate() {
                let weights = m.row(r * inputs + i, &mut buffer);
                for (y, &w) in y[r * outputs..].iter_mut().zip(weights) {
                    *y = *y + x * w;
                }
            }
        }
        Ok(vec![Data::dense(x.shape_with_width(outputs), y)])
    }
}
