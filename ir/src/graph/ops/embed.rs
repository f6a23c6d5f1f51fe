//! `embed`

use super::{Embed, Eval, Infer, shapes};
use crate::DType;
use crate::graph::eval::{Data, Env, EvalError, Real};
use crate::graph::{TensorType, TypeError};

impl Infer for Embed {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        let [table, tokens] = shapes::exactly(operands)?;
        let [_, width] = shapes::axes("table", table)?;
        shapes::ensure(tokens.dtype == DType::I32, "tokens", tokens, "i32")?;
        Ok(vec![shapes::f32_of(tokens.shape.iter().copied().chain([width]))])
    }
}

impl Eval for Embed {
    fn eval<'a, F: Real>(
        &self,
        operands: &[Data<'a, F>],
        _: &Env<'a, F>,
    ) -> Result<Vec<Data<'a, F>>, EvalError> {
        let [table, tokens] = operands else {
            unreachable!("two operands")
        };
        let mut rows = Vec::with_capacity(tokens.len() * table.width());
        let mut buffer = vec![];
        for &token in tokens.values().iter() {
            let token = token.to_f64();
            let row = token as usize;
            if row as f64 != token || row >= table.rows() {
                return Err(EvalError::Token {
                    token,
                    rows: table.rows(),
                });
            }
            rows.extend_from_slice(table.row(row, &mut buffer));
        }
        let shape = tokens.shape().iter().copied().chain([table.width()]).collect();
        Ok(vec![Data::dense(shape, rows)])
    }
}
