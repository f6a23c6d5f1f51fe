//! `fuse-token-shift`

use rwkvc_ir::graph::ops::{Op, ShiftMix};
use rwkvc_ir::graph::{Graph, GraphError, NodeId, Value};

use crate::fuel::Fuel;

/// Gathers the interpolations of one token shift: the difference and its products never reach memory.
///
/// ```text
/// %s, %n = token_shift %x, %prev
/// %d = sub %s, %x
/// %p = mul %d, %mix_r                 %y, %z, %n = shift_mix %x, %prev, %mix_r, %mix_k
/// %y = add %x, %p               →
/// %q = mul %d, %mix_k
/// %z = add %x, %q
/// ```
pub(crate) fn run(graph: &mut Graph, fuel: &mut Fuel) -> Result<(), GraphError> {
    let order = graph.topological();
    for &node in &order {
        if !matches!(graph.op(node), Op::TokenShift(_)) {
            continue;
        }
        let Some(mut mixes) = interpolations(graph, node) else {
            continue;
        };
        // In the order of the text, whatever the history of the graph.
        mixes.sort_by_key(|m| order.iter().position(|&n| n == m.result.node));
        if !fuel.take() {
            continue;
        }
        let mut operands = graph.operands(node);
        operands.extend(mixes.iter().map(|m| m.mix));
        let fused = graph.add(Op::ShiftMix(ShiftMix {}), &operands)?;
        for (m, &y) in mixes.iter().zip(&fused) {
            graph.replace_uses(m.result, y)?;
        }
        graph.replace_uses(graph.value(node, 1), fused[mixes.len()])?;
    }
    Ok(())
}

/// One `x + (shifted - x) * mix`.
struct Interpolation {
    mix: Value,
    result: Value,
}

/// All interpolations of a token shift; `None` if the shifted value is used in another way too.
fn interpolations(graph: &Graph, shift: NodeId) -> Option<Vec<Interpolation>> {
    let x = graph.operands(shift)[0];
    let shifted = graph.value(shift, 0);
    let mut found = vec![];
    for (difference, _) in graph.users(shifted) {
        if !matches!(graph.op(difference), Op::Sub(_)) || graph.operands(difference) != [shifted, x] {
            return None;
        }
        let d = graph.value(difference, 0);
        for (product, _) in graph.users(d) {
            let mix =
                matches!(graph.op(product), Op::Mul(_)).then(|| other(&graph.operands(product), d))??;
            let product = graph.value(product, 0);
            let [(sum, _)] = graph.users(product)[..] else {
                return None;
            };
            if graph.is_output(product) {
                return None;
            }
            let base =
                matches!(graph.op(sum), Op::Add(_)).then(|| other(&graph.operands(sum), product))??;
            if base != x || graph.ty(mix).shape != graph.ty(x).shape[2..] {
                return None;
            }
            found.push(Interpolation {
                mix,
                result: graph.value(sum, 0),
            });
        }
        if graph.is_output(d) {
            return None;
        }
    }
    (!found.is_empty() && !graph.is_output(shifted)).then_some(found)
}

/// The operand of a binary op that is not `this`.
fn other(operands: &[Value], this: Value) -> Option<Value> {
    match *operands {
        [a, b] if a == this && b != this => Some(b),
        [a, b] if b == this && a != this => Some(a),
        _ => None,
    }
}
