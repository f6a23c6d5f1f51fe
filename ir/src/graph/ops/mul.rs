//! `mul`

use super::{Eval, Infer, Mul, shapes};
use crate::graph::eval::{Data, Env, EvalError, Real, elementwise};
use crate::graph::{TensorType, TypeError};

impl Infer for Mul {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        shapes::broadcast(operands)
    }
}

impl Eval for Mul {
    fn eval<'a, F: Real>(
        &self,
        operands: &[Data<'a, F>],
        _: &Env<'a, F>,
    ) -> Result<Vec<Data<'a, F>>, EvalError> {
        Ok(vec![elementwise::binary(&operands[0], &operands[1], |x, y| {
            x * y
        })])
    }
}
