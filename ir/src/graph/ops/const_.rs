//! `const`

use super::{Const, Eval, Infer, shapes};
use crate::graph::eval::{Data, Env, EvalError, Real};
use crate::graph::{TensorType, TypeError};

impl Infer for Const {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        let [] = shapes::exactly(operands)?;
        if !self.value.is_finite() {
            let (found, expected) = (self.value.to_string(), "a finite number".into());
            return Err(TypeError::Attribute {
                attribute: "value",
                found,
                expected,
            });
        }
        Ok(vec![shapes::f32_of([])])
    }
}

impl Eval for Const {
    fn eval<'a, F: Real>(&self, _: &[Data<'a, F>], _: &Env<'a, F>) -> Result<Vec<Data<'a, F>>, EvalError> {
        Ok(vec![Data::dense(vec![], vec![F::from_f64(self.value)])])
    }
}
