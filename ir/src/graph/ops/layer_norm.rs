//! `layer_norm`

use super::{Eval, Infer, LayerNorm, shapes};
use crate::graph::eval::{Data, Env, EvalError, Real, total};
use crate::graph::{TensorType, TypeError};

impl Infer for LayerNorm {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        let [x, weight, bias] = shapes::exactly(operands)?;
        shapes::not_negative("eps", self.eps)?;
        shapes::rows("x", x)?;
        for (name, ty) in [("weight", weight), ("bias", bias)] {
            shapes::rows(name, ty)?;
            shapes::ensure(
                x.shape.ends_with(&ty.shape),
                name,
                ty,
                format!("the shape of the last axes of {x}"),
            )?;
        }
        Ok(vec![shapes::f32_of(x.shape.iter().copied())])
    }
}

impl Eval for LayerNorm {
    fn eval<'a, F: Real>(
        &self,
        operands: &[Data<'a, F>],
        _: &Env<'a, F>,
    ) -> Result<Vec<Data<'a, F>>, EvalError> {
        let [x, weight, bias] = operands else {
            unreachable!("three operands")
        };
        let width = x.width();
        let n = F::from_f64(width as f64);
        let eps = F::from_f64(self.eps);
        let (weight, bias) = (weight.values(), bias.values());
        let mut y = Vec::with_capacity(x.len());
        let mut buffer = vec![];
        // The weights of row after row, again from the start after the last.
        let weights = weight
            .chunks_exact(width)
            .cycle()
            .zip(bias.chunks_exact(width).cycle());
        for (r, (weight, bias)) in (0..x.rows()).zip(weights) {
            let row = x.row(r, &mut buffer);
            let mean = total(row, |x| x) / n;
            let variance = total(row, |x| (x - mean) * (x - mean)) / n;
            let scale = F::ONE / (variance + eps).sqrt();
            y.extend(
                row.iter()
                    .zip(weight)
                    .zip(bias)
                    .map(|((&x, &w), &b)| (x - mean) * scale * w + b),
            );
        }
        Ok(vec![Data::dense(x.shape().to_vec(), y)])
    }
}
