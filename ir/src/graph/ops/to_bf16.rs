//! `to_bf16`

use half::bf16;

use super::{Eval, Infer, ToBf16, shapes};
use crate::DType;
use crate::graph::eval::{Data, Env, EvalError, Real, elementwise};
use crate::graph::{TensorType, TypeError};

impl Infer for ToBf16 {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = shapes::exactly(operands)?;
        shapes::float("x", x)?;
        Ok(vec![TensorType::new(DType::BF16, x.shape.iter().copied())])
    }
}

impl Eval for ToBf16 {
    fn eval<'a, F: Real>(
        &self,
        operands: &[Data<'a, F>],
        _: &Env<'a, F>,
    ) -> Result<Vec<Data<'a, F>>, EvalError> {
        Ok(vec![elementwise::unary(&operands[0], |x| {
            F::from_f64(bf16::from_f32(x.to_f64() as f32).to_f64())
        })])
    }
}
