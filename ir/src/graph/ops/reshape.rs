//! `reshape`

use super::{Eval, Infer, Reshape, shapes};
use crate::graph::eval::{Data, Env, EvalError, Real};
use crate::graph::types::Shape;
use crate::graph::{Dim, TensorType, TypeError};

impl Infer for Reshape {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = shapes::exactly(operands)?;
        let expected = || format!("as many elements as {}", Shape(&self.shape));
        shapes::ensure(size(&x.shape) == size(&self.shape), "x", x, expected())?;
        Ok(vec![TensorType::new(x.dtype, self.shape.iter().copied())])
    }
}

impl Eval for Reshape {
    fn eval<'a, F: Real>(
        &self,
        operands: &[Data<'a, F>],
        env: &Env<'a, F>,
    ) -> Result<Vec<Data<'a, F>>, EvalError> {
        Ok(vec![operands[0].with_shape(env.shape(&self.shape)?)])
    }
}

/// The symbolic axes, sorted, and the product of the others; `None` if that is too large.
fn size(shape: &[Dim]) -> Option<(Vec<Dim>, usize)> {
    let mut symbolic: Vec<Dim> = shape.iter().copied().filter(|d| d.as_fixed().is_none()).collect();
    symbolic.sort_unstable();
    let fixed = shape
        .iter()
        .filter_map(|d| d.as_fixed())
        .try_fold(1usize, usize::checked_mul)?;
    Some((symbolic, fixed))
}
