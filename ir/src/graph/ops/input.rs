//! `input`

use super::{Eval, Infer, Input, shapes};
use crate::graph::eval::{Data, Env, EvalError, Real};
use crate::graph::{TensorType, TypeError};

impl Infer for Input {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        let [] = shapes::exactly(operands)?;
        Ok(vec![self.ty.clone()])
    }
}

impl Eval for Input {
    fn eval<'a, F: Real>(&self, _: &[Data<'a, F>], env: &Env<'a, F>) -> Result<Vec<Data<'a, F>>, EvalError> {
        Ok(vec![env.input(&self.name)?])
    }
}
