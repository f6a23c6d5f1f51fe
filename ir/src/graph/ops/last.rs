//! `last`

use super::{Eval, Infer, Last, shapes};
use crate::graph::eval::{Data, Env, EvalError, Real};
use crate::graph::{Dim, TensorType, TypeError};

impl Infer for Last {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = shapes::exactly(operands)?;
        shapes::float("x", x)?;
        shapes::ensure(
            x.shape.len() >= 2,
            "x",
            x,
            "at least 2 axes, the second for the tokens",
        )?;
        let mut shape = x.shape.clone();
        shape[1] = Dim::Fixed(1);
        Ok(vec![shapes::f32_of(shape)])
    }
}

impl Eval for Last {
    fn eval<'a, F: Real>(
        &self,
        operands: &[Data<'a, F>],
        _: &Env<'a, F>,
    ) -> Result<Vec<Data<'a, F>>, EvalError> {
        let x = &operands[0];
        let mut shape = x.shape().to_vec();
        let token: usize = shape[2..].iter().product();
        let values = x.values();
        let y = values
            .chunks_exact(shape[1] * token)
            .flat_map(|tokens| &tokens[tokens.len() - token..]);
        let y = y.copied().collect();
        shape[1] = 1;
        Ok(vec![Data::dense(shape, y)])
    }
}
