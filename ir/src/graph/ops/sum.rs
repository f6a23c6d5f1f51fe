//! `sum`

use super::{Eval, Infer, Sum, shapes};
use crate::graph::eval::{Data, Env, EvalError, Real, total};
use crate::graph::{Dim, TensorType, TypeError};

impl Infer for Sum {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = shapes::exactly(operands)?;
        let (rows, _) = shapes::rows("x", x)?;
        Ok(vec![shapes::f32_of(rows.iter().copied().chain([Dim::Fixed(1)]))])
    }
}

impl Eval for Sum {
    fn eval<'a, F: Real>(
        &self,
        operands: &[Data<'a, F>],
        _: &Env<'a, F>,
    ) -> Result<Vec<Data<'a, F>>, EvalError> {
        let x = &operands[0];
        let y = x
            .values()
            .chunks_exact(x.width())
            .map(|row| total(row, |x| x))
            .collect();
        Ok(vec![Data::dense(x.shape_with_width(1), y)])
    }
}
