//! `norm_shift_mix`

use super::{Decompose, Infer, LayerNorm, NormShiftMix, ShiftMix, shapes};
use crate::graph::{Graph, GraphError, TensorType, TypeError, Value};

impl Infer for NormShiftMix {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        let [x, weight, bias, rest @ ..] = operands else {
            return Err(TypeError::OperandCount {
                expected: "4 and the mixes".into(),
                found: operands.len(),
            });
        };
        shapes::not_negative("eps", self.eps)?;
        let (_, width) = shapes::rows("x", x)?;
        shapes::has_shape("weight", weight, &[width])?;
        shapes::has_shape("bias", bias, &[width])?;
        let mut operands = vec![x.clone()];
        operands.extend_from_slice(rest);
        ShiftMix {}.infer(&operands)
    }
}

impl Decompose for NormShiftMix {
    fn expand(&self, graph: &mut Graph, operands: &[Value]) -> Result<Vec<Value>, GraphError> {
        let mut rest = graph.add(LayerNorm { eps: self.eps }, &operands[..3])?;
        rest.extend_from_slice(&operands[3..]);
        ShiftMix {}.decompose(graph, &rest)
    }
}
