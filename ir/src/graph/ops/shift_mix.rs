//! `shift_mix`

use super::{Add, Decompose, Infer, Mul, ShiftMix, Sub, TokenShift, shapes};
use crate::graph::{Graph, GraphError, TensorType, TypeError, Value};

impl Infer for ShiftMix {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        let [x, prev, mixes @ ..] = operands else {
            return Err(TypeError::OperandCount {
                expected: "2 and the mixes".into(),
                found: operands.len(),
            });
        };
        let [batch, _, width] = shapes::axes("x", x)?;
        shapes::has_shape("prev", prev, &[batch, width])?;
        for (i, mix) in mixes.iter().enumerate() {
            shapes::has_shape(&format!("mix[{i}]"), mix, &[width])?;
        }
        let mut results = vec![shapes::f32_of(x.shape.iter().copied()); mixes.len()];
        results.push(shapes::f32_of([batch, width]));
        Ok(results)
    }
}

impl Decompose for ShiftMix {
    fn expand(&self, graph: &mut Graph, operands: &[Value]) -> Result<Vec<Value>, GraphError> {
        let x = operands[0];
        let shift = graph.add(TokenShift {}, &operands[..2])?;
        let difference = graph.add(Sub {}, &[shift[0], x])?[0];
        let mut results = vec![];
        for &mix in &operands[2..] {
            let part = graph.add(Mul {}, &[difference, mix])?[0];
            results.extend(graph.add(Add {}, &[x, part])?);
        }
        results.push(shift[1]);
        Ok(results)
    }
}
