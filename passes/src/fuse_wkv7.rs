//! `fuse-wkv7`

use rwkvc_ir::graph::ops::{Op, Wkv7Block};
use rwkvc_ir::graph::{Dim, Graph, GraphError, NodeId, Value};

use crate::fuel::Fuel;
use crate::matching::find;

/// Everything that happens to a head between the projections and the output matrix becomes one op: decay, key
/// normalisation, in-context learning rate, value residual, the WKV-7 update, group norm, bonus and gate. The state of a
/// head is read and written once, and nothing in between reaches memory.
///
/// What is searched for is the decomposition of `wkv7_block`, once with and once without the value residual.
pub(crate) fn run(graph: &mut Graph, fuel: &mut Fuel) -> Result<(), GraphError> {
    for node in graph.topological() {
        if !matches!(graph.op(node), Op::Wkv7(_)) {
            continue;
        }
        let Some((op, gated)) = parameters(graph, node) else {
            continue;
        };
        for value_residual in [true, false] {
            if fuse(
                graph,
                node,
                gated,
                Wkv7Block {
                    value_residual,
                    ..op.clone()
                },
                fuel,
            )? {
                break;
            }
        }
    }
    Ok(())
}

/// The constants of the block around a `wkv7`, and the value that leaves it.
fn parameters(graph: &Graph, wkv: NodeId) -> Option<(Wkv7Block, Value)> {
    let operands = graph.operands(wkv);
    let inner = |v: Value| graph.operands(v.node).first().copied();
    // w = reshape(exp(sigmoid * scale)), a = neg(l2_normalize)
    let scaled = inner(inner(operands[2])?)?;
    let decay_scale = graph
        .operands(scaled.node)
        .iter()
        .find_map(|v| match graph.op(v.node) {
            Op::Const(c) => Some(c.value),
            _ => None,
        })?;
    let Op::L2Normalize(kk) = graph.op(inner(operands[5])?.node) else {
        return None;
    };
    let next = |v: Value| match graph.users(v)[..] {
        [(user, _)] => Some(graph.value(user, 0)),
        _ => None,
    };
    // y → layer_norm → + bonus → reshape → * gate
    let normed = next(graph.value(wkv, 1))?;
    let Op::LayerNorm(norm) = graph.op(normed.node) else {
        return None;
    };
    let gated = next(next(next(normed)?)?)?;
    let op = Wkv7Block {
        eps: norm.eps,
        norm_eps: kk.eps,
        decay_scale,
        value_residual: false,
    };
    Some((op, gated))
}

fn fuse(
    graph: &mut Graph,
    wkv: NodeId,
    gated: Value,
    op: Wkv7Block,
    fuel: &mut Fuel,
) -> Result<bool, GraphError> {
    let (pattern, inputs) = pattern(graph, wkv, gated, &op)?;
    let [next, y] = [0, 1].map(|i| pattern.outputs()[i].1);
    let Some(found) = find(graph, gated, &pattern, y) else {
        return Ok(false);
    };
    let operands: Option<Vec<Value>> = inputs.iter().map(|&v| found.get(v)).collect();
    let (Some(operands), Some(old_next)) = (operands, found.get(next)) else {
        return Ok(false);
    };
    if !fuel.take() {
        return Ok(false);
    }
    let fused = graph.add(Op::Wkv7Block(op), &operands)?;
    graph.replace_uses(old_next, fused[0])?;
    graph.replace_uses(gated, fused[1])?;
    Ok(true)
}

/// The decomposition of the block at the shapes of this graph, and its inputs in the order of the op's operands.
fn pattern(
    graph: &Graph,
    wkv: NodeId,
    gated: Value,
    op: &Wkv7Block,
) -> Result<(Graph, Vec<Value>), GraphError> {
    let state = graph.ty(graph.operands(wkv)[0]).clone();
    let activations = graph.ty(gated).clone();
    let (heads, size) = (state.shape[1], state.shape[2]);
    let width: Dim = *activations.shape.last().expect("activations have channels");
    let vector =
        |shape: &[Dim]| rwkvc_ir::graph::TensorType::new(rwkvc_ir::DType::F32, shape.iter().copied());
    let mut types = vec![state];
    types.extend(std::iter::repeat_n(activations.clone(), 6));
    types.extend([
        vector(&[width]),
        vector(&[width]),
        vector(&[heads, size]),
        vector(&[width]),
        vector(&[width]),
    ]);
    if op.value_residual {
        types.extend([activations.clone(), activations]);
    }
    let mut pattern = Graph::new("pattern");
    let mut inputs = vec![];
    for (i, ty) in types.into_iter().enumerate() {
        inputs.push(pattern.add_input(format!("x{i}"), ty)?);
    }
    let results = Op::from(op.clone())
        .decompose(&mut pattern, &inputs)
        .expect("a fused op decomposes")?;
    pattern.set_output("next", results[0]);
    pattern.set_output("y", results[1]);
    Ok((pattern, inputs))
}
