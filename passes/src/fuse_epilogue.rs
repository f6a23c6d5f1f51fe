//! `fuse-epilogue`

use rwkvc_ir::graph::ops::{Activation, Op};
use rwkvc_ir::graph::{Graph, GraphError, Value};

use crate::fuel::Fuel;
use crate::projection::{Projection, merge, projections};

/// What follows a matrix product element by element joins it, in the order bias, activation, scale, residual.
///
/// ```text
/// %h = linear %x, %w
/// %r = relu %h           →     %y = linear_group %x, %w {members=[relu2]}
/// %y = mul %r, %r
/// ```
pub(crate) fn run(graph: &mut Graph, fuel: &mut Fuel) -> Result<(), GraphError> {
    for node in graph.topological() {
        let [projection] = &projections(graph, node)[..] else {
            continue;
        };
        let mut grown = projection.clone();
        let mut steps = 0;
        while let Some(next) = absorb(graph, &grown) {
            if !fuel.take() {
                break;
            }
            grown = next;
            steps += 1;
        }
        if steps > 0 {
            merge(graph, &[grown])?;
        }
    }
    Ok(())
}

/// The projection with the op that follows it, if it is the only one and fits.
fn absorb(graph: &Graph, p: &Projection) -> Option<Projection> {
    let y = p.result;
    if graph.is_output(y) {
        return None;
    }
    let users = graph.users(y);
    let user = users.first()?.0;
    if users.iter().any(|(n, _)| *n != user) {
        return None;
    }
    let operands = graph.operands(user);
    let mut grown = Projection {
        result: graph.value(user, 0),
        ..p.clone()
    };
    let m = &mut grown.member;
    let shape = |v: Value| &graph.ty(v).shape;
    let plain = !m.scale && !m.residual;
    match graph.op(user) {
        Op::Relu(_) if plain && m.activation == Activation::None => m.activation = Activation::Relu,
        Op::Tanh(_) if plain && m.activation == Activation::None => m.activation = Activation::Tanh,
        Op::Sigmoid(_) if plain && m.activation == Activation::None => m.activation = Activation::Sigmoid,
        Op::Mul(_) if plain && m.activation == Activation::Relu && operands == [y, y] => {
            m.activation = Activation::Relu2;
        }
        Op::Mul(_) | Op::Add(_) if operands[0] != operands[1] => {
            let other = if operands[0] == y {
                operands[1]
            } else {
                operands[0]
            };
            let same_shape = shape(other) == shape(y) && shape(grown.result) == shape(y);
            let row = graph.is_constant(other) && shape(other)[..] == shape(y)[shape(y).len() - 1..];
            match graph.op(user) {
                Op::Add(_) if row && plain && !m.bias && m.activation == Activation::None => m.bias = true,
                Op::Add(_) if same_shape && !m.residual => m.residual = true,
                Op::Mul(_) if same_shape && plain => m.scale = true,
                _ => return None,
            }
            grown.operands.push(other);
        }
        _ => return None,
    }
    Some(grown)
}
