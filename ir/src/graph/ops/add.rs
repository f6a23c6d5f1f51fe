//! `add`

use super::{Add, Eval, Infer, shapes};
use crate::graph::eval::{Data, Env, EvalError, Real, elementwise};
use crate::graph::{TensorType, TypeError};

impl Infer for Add {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        shapes::broadcast(operands)
    }
}

impl Eval for Add {
    fn eval<'a, F: Real>(
        &self,
        operands: &[Data<'a, F>],
        _: &Env<'a, F>,
    ) -> Result<Vec<Data<'a, F>>, EvalError> {
        Ok(vec![elementwise::binary(&operands[0], &operands[1], |x, y| {
            x + y
        })])
    }
}
