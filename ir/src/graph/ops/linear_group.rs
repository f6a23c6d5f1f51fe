//! `linear_group`

use super::{Add, Decompose, Infer, Linear, LinearGroup, Mul, Op, Relu, Sigmoid, Tanh, shapes};
use crate::graph::{Graph, GraphError, TensorType, TypeError, Value};

/// What is applied to a matrix product before it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Nothing.
    None,
    /// `max(x, 0)`
    Relu,
    /// `max(x, 0)²`
    Relu2,
    /// The hyperbolic tangent.
    Tanh,
    /// `1 / (1 + e^-x)`
    Sigmoid,
}

/// One product of a [`LinearGroup`]: `activation(W x + bias) * scale + residual`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Whether `x` has many zeros, so that reading only the columns of `W` that it needs is faster. Changes no result.
    pub skip_zeros: bool,
    /// Whether there is a bias.
    pub bias: bool,
    /// What follows the bias.
    pub activation: Activation,
    /// Whether there is a scale, for each element.
    pub scale: bool,
    /// Whether there is a residual.
    pub residual: bool,
}

impl Member {
    /// A matrix product alone.
    pub const PLAIN: Member = Member {
        skip_zeros: false,
        bias: false,
        activation: Activation::None,
        scale: false,
        residual: false,
    };

    /// How many operands it has.
    pub fn n_operands(&self) -> usize {
        2 + usize::from(self.bias) + usize::from(self.scale) + usize::from(self.residual)
    }
}

impl LinearGroup {
    /// The numbers of the operands that are matrices, one for each member.
    pub fn weight_operands(&self) -> impl Iterator<Item = usize> + '_ {
        self.members.iter().scan(0, |next, member| {
            let weight = *next + 1;
            *next += member.n_operands();
            Some(weight)
        })
    }
}

impl Infer for LinearGroup {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        if self.members.is_empty() {
            let (found, expected) = ("empty".into(), "at least one member".into());
            return Err(TypeError::Attribute {
                attribute: "members",
                found,
                expected,
            });
        }
        let expected: usize = self.members.iter().map(Member::n_operands).sum();
        if operands.len() != expected {
            return Err(TypeError::OperandCount {
                expected: expected.to_string(),
                found: operands.len(),
            });
        }
        let mut operands = operands.iter();
        let mut results = vec![];
        for (i, member) in self.members.iter().enumerate() {
            let mut next = || operands.next().expect("the number of operands is known");
            let (x, w) = (next(), next());
            let name = |part: &str| format!("{part} of member {i}");
            let (rows, inputs) = shapes::rows(&name("x"), x)?;
            let [outputs, columns] = shapes::axes(&name("w"), w)?;
            shapes::ensure(
                columns == inputs,
                &name("w"),
                w,
                format!("rows of {inputs}, as its `x` has"),
            )?;
            let result = shapes::f32_of(rows.iter().copied().chain([outputs]));
            if member.bias {
                shapes::has_shape(&name("bias"), next(), &[outputs])?;
            }
            if member.scale {
                shapes::has_shape(&name("scale"), next(), &result.shape)?;
            }
            if member.residual {
                shapes::has_shape(&name("residual"), next(), &result.shape)?;
            }
            results.push(result);
        }
        Ok(results)
    }
}

impl Decompose for LinearGroup {
    fn expand(&self, graph: &mut Graph, operands: &[Value]) -> Result<Vec<Value>, GraphError> {
        let mut operands = operands.iter().copied();
        let mut results = vec![];
        for member in &self.members {
            let mut next = || operands.next().expect("the number of operands is known");
            let mut y = graph.add(Linear {}, &[next(), next()])?[0];
            let then = |graph: &mut Graph, op: Op, operands: &[Value]| graph.add(op, operands).map(|v| v[0]);
            if member.bias {
                y = then(graph, Add {}.into(), &[y, next()])?;
            }
            match member.activation {
                Activation::None => {}
                Activation::Relu => y = then(graph, Relu {}.into(), &[y])?,
                Activation::Relu2 => {
                    y = then(graph, Relu {}.into(), &[y])?;
                    y = then(graph, Mul {}.into(), &[y, y])?;
                }
                Activation::Tanh => y = then(graph, Tanh {}.into(), &[y])?,
                Activation::Sigmoid => y = then(graph, Sigmoid {}.into(), &[y])?,
            }
            if member.scale {
                y = then(graph, Mul {}.into(), &[y, next()])?;
            }
            if member.residual {
                y = then(graph, Add {}.into(), &[y, next()])?;
            }
            results.push(y);
        }
        Ok(results)
    }
}
