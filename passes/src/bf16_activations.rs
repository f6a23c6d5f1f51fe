//! `bf16-activations`

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use rwkvc_ir::DType;
use rwkvc_ir::graph::ops::{Op, ToBf16};
use rwkvc_ir::graph::{Graph, GraphError, Value};

use crate::fuel::Fuel;
use crate::projection::projections;
use crate::settings::Setting;

/// How activations are multiplied with bf16 matrices in products of many tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activations {
    /// As they are.
    #[default]
    F32,
    /// Rounded.
    BF16,
}

impl Activations {
    /// Both.
    pub const ALL: [Activations; 2] = [Activations::F32, Activations::BF16];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Activations::F32 => DType::F32.name(),
            Activations::BF16 => DType::BF16.name(),
        }
    }
}

impl Setting for Activations {
    const NAME: &'static str = "activations";
    const VALUE: &'static str = "FORMAT";
    const HELP: &'static str = "What a GPU's matrix units multiply with bf16 matrices, for more than one token: `f32` (activations as \
        they are) or `bf16` (rounded: a third of the work, and slightly other results). Default: f32";
}

impl fmt::Display for Activations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no format of activations.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown format of activations `{0}`, expected `f32` or `bf16`")]
pub struct ActivationsError(String);

impl FromStr for Activations {
    type Err = ActivationsError;

    fn from_str(text: &str) -> Result<Self, ActivationsError> {
        let named = Activations::ALL.into_iter().find(|a| a.name() == text);
        named.ok_or_else(|| ActivationsError(text.into()))
    }
}

/// What is multiplied with a bf16 matrix is rounded to bf16 too, which matrix units take as it is. One token is multiplied
/// without them, so it stays as it is.
///
/// ```text
/// %y = linear %x, %w     →     %r = to_bf16 %x
///                              %y = linear %r, %w
/// ```
pub(crate) fn run(graph: &mut Graph, activations: Activations, fuel: &mut Fuel) -> Result<(), GraphError> {
    if activations == Activations::F32 {
        return Ok(());
    }
    // An activation may be multiplied with several matrices.
    let mut rounded: HashMap<Value, Value> = HashMap::new();
    for node in graph.topological() {
        let mut operands = graph.operands(node);
        let mut first = 0;
        let mut changed = false;
        for part in projections(graph, node) {
            let (x, w) = (first, first + 1);
            first += part.operands.len();
            if !fits(graph, operands[x], operands[w]) || !fuel.take() {
                continue;
            }
            operands[x] = match rounded.get(&operands[x]) {
                Some(&done) => done,
                None => {
                    let done = graph.add(ToBf16 {}, &operands[x..=x])?[0];
                    rounded.insert(operands[x], done);
                    done
                }
            };
            changed = true;
        }
        if changed {
            let op: Op = graph.op(node).clone();
            let results = graph.add(op, &operands)?;
            for (i, y) in results.into_iter().enumerate() {
                let old = graph.value(node, i);
                graph.replace_uses(old, y)?;
            }
        }
    }
    Ok(())
}

/// Whether a product of many tokens is one of f32 activations with a bf16 matrix of weights.
fn fits(graph: &Graph, x: Value, w: Value) -> bool {
    let ty = graph.ty(x);
    let is_many = ty.shape.iter().any(|d| d.as_fixed().is_none());
    is_many && ty.dtype == DType::F32 && graph.is_constant(w) && graph.ty(w).dtype == DType::BF16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        for activations in Activations::ALL {
            assert_eq!(activations.to_string().parse(), Ok(activations));
        }
        assert!("f16".parse::<Activations>().is_err());
    }
}
