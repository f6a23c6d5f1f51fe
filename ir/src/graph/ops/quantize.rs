//! `quantize`

use super::{Eval, Infer, Quantize, shapes};
use crate::graph::eval::{Data, Env, EvalError, Real};
use crate::graph::{TensorType, TypeError};
use crate::quantized::GROUP;

impl Infer for Quantize {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        let of = |x: &TensorType| {
            let grouped = if self.columns {
                shapes::axes::<2>("x", x)?[0].as_fixed()
            } else {
                shapes::rows("x", x)?.1.as_fixed()
            };
            let is_whole = grouped.is_some_and(|n| n % GROUP == 0);
            shapes::ensure(is_whole, "x", x, format!("whole groups of {GROUP}"))?;
            Ok(shapes::f32_of(x.shape.iter().copied()))
        };
        operands.iter().map(of).collect()
    }
}

impl Eval for Quantize {
    fn eval<'a, F: Real>(
        &self,
        operands: &[Data<'a, F>],
        _: &Env<'a, F>,
    ) -> Result<Vec<Data<'a, F>>, EvalError> {
        Ok(operands.iter().map(|x| self.quantized(x)).collect())
    }
}

impl Quantize {
    fn quantized<'a, F: Real>(&self, x: &Data<'a, F>) -> Data<'a, F> {
        let values = x.values();
        // Where the elements of a group are: from the first on, so far apart.
        let (apart, width) = if self.columns {
            (x.width(), x.width())
        } else {
            (1, 1)
        };
        let mut y = vec![F::ZERO; values.len()];
        for block in (0..values.len()).step_by(GROUP * apart) {
            for first in block..block + width {
                let group: [f32; GROUP] = std::array::from_fn(|i| values[first + i * apart].to_f64() as f32);
                let group = self.format.encode(&group);
                for i in 0..GROUP {
                    y[first + i * apart] = F::from_f64(group.value(i));
                }
            }
        }
        Data::dense(x.shape().to_vec(), y)
    }
}
