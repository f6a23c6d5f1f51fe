//! `l2_normalize`

use super::{Eval, Infer, L2Normalize, shapes};
use crate::graph::eval::{Data, Env, EvalError, Real, total};
use crate::graph::{TensorType, TypeError};

impl Infer for L2Normalize {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        shapes::not_negative("eps", self.eps)?;
        let result = shapes::elementwise(operands, 1)?;
        shapes::rows("x", &operands[0])?;
        Ok(result)
    }
}

impl Eval for L2Normalize {
    fn eval<'a, F: Real>(
        &self,
        operands: &[Data<'a, F>],
        _: &Env<'a, F>,
    ) -> Result<Vec<Data<'a, F>>, EvalError> {
        let x = &operands[0];
        let eps = F::from_f64(self.eps);
        let mut y = Vec::with_capacity(x.len());
        for row in x.values().chunks_exact(x.width()) {
            let divisor = total(row, |x| x * x).sqrt().max(eps);
            y.extend(row.iter().map(|&x| x / divisor));
        }
        Ok(vec![Data::dense(x.shape().to_vec(), y)])
    }
}
