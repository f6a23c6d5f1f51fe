//! `wkv7`

use super::{Eval, Infer, Wkv7, shapes};
use crate::graph::eval::{Data, Env, EvalError, Real, dot};
use crate::graph::{TensorType, TypeError};

impl Infer for Wkv7 {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        let [state, r, w, k, v, a, b] = shapes::exactly(operands)?;
        let [batch, time, heads, size] = shapes::axes("r", r)?;
        shapes::has_shape("state", state, &[batch, heads, size, size])?;
        for (name, ty) in [("w", w), ("k", k), ("v", v), ("a", a), ("b", b)] {
            shapes::has_shape(name, ty, &[batch, time, heads, size])?;
        }
        Ok(vec![
            shapes::f32_of(state.shape.iter().copied()),
            shapes::f32_of(r.shape.iter().copied()),
        ])
    }
}

impl Eval for Wkv7 {
    fn eval<'a, F: Real>(
        &self,
        operands: &[Data<'a, F>],
        _: &Env<'a, F>,
    ) -> Result<Vec<Data<'a, F>>, EvalError> {
        let &[batch, tokens, heads, size] = operands[1].shape() else {
            unreachable!("r has four axes")
        };
        let [state, r, w, k, v, a, b] = operands else {
            unreachable!("seven operands")
        };
        let mut next = state.values().into_owned();
        let [r, w, k, v, a, b] = [r, w, k, v, a, b].map(Data::values);
        let mut y = vec![F::ZERO; r.len()];
        for sequence in 0..batch {
            for head in 0..heads {
                let matrix = &mut next[(sequence * heads + head) * size * size..][..size * size];
                for token in 0..tokens {
                    let at = ((sequence * tokens + token) * heads + head) * size;
                    let [r, w, k, v, a, b] = [&r, &w, &k, &v, &a, &b].map(|x| &x[at..at + size]);
                    for (i, row) in matrix.chunks_exact_mut(size).enumerate() {
                        let removed = dot(row, a);
                        for (j, s) in row.iter_mut().enumerate() {
                            *s = *s * w[j] + removed * b[j] + v[i] * k[j];
                        }
                        y[at + i] = dot(row, r);
                    }
                }
            }
        }
        Ok(vec![
            Data::dense(state.shape().to_vec(), next),
            Data::dense(operands[1].shape().to_vec(), y),
        ])
    }
}
