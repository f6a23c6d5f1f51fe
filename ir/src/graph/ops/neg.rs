//! `neg`

use super::{Eval, Infer, Neg, shapes};
use crate::graph::eval::{Data, Env, EvalError, Real, elementwise};
use crate::graph::{TensorType, TypeError};

impl Infer for Neg {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        shapes::same(operands)
    }
}

impl Eval for Neg {
    fn eval<'a, F: Real>(
        &self,
        operands: &[Data<'a, F>],
        _: &Env<'a, F>,
    ) -> Result<Vec<Data<'a, F>>, EvalError> {
        Ok(vec![elementwise::unary(&operands[0], |x| -x)])
    }
}
