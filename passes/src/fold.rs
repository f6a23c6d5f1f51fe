//! Folding: what is known at compile time is computed at compile time.

use rwkvc_ir::DType;
use rwkvc_ir::graph::ops::{Const, Embed, Op};
use rwkvc_ir::graph::{Graph, GraphError, Value};

use crate::fuel::Fuel;

/// `fold-constants`: arithmetic on scalar constants, and the identities `x * 1`, `x + 0`, `x - 0`.
///
/// ```text
/// %a = const 0.5            %c = const 1.5
/// %b = const 3.0      →     %y = mul %x, %c
/// %c = mul %a, %b
/// %y = mul %x, %c
/// ```
pub(crate) fn constants(graph: &mut Graph, fuel: &mut Fuel) -> Result<(), GraphError> {
    for node in graph.topological() {
        let operands = graph.operands(node);
        let known: Vec<Option<f64>> = operands.iter().map(|&v| constant(graph, v)).collect();
        let result = graph.value(node, 0);
        let all: Option<Vec<f64>> = known.iter().copied().collect();
        // A constant is a finite number; what overflows stays as it is.
        let value = all
            .and_then(|c| graph.op(node).apply(&c))
            .filter(|v| v.is_finite());
        if let (Some(value), true) = (value, !operands.is_empty()) {
            if fuel.take() {
                let folded = graph.add(Op::Const(Const { value }), &[])?[0];
                graph.replace_uses(result, folded)?;
            }
            continue;
        }
        let same = match (graph.op(node), known.as_slice()) {
            (Op::Mul(_), [_, Some(1.0)]) | (Op::Add(_) | Op::Sub(_), [_, Some(0.0)]) => Some(operands[0]),
            (Op::Mul(_), [Some(1.0), _]) | (Op::Add(_), [Some(0.0), _]) => Some(operands[1]),
            _ => None,
        };
        if let Some(same) = same.filter(|&v| graph.ty(v) == graph.ty(result))
            && fuel.take()
        {
            graph.replace_uses(result, same)?;
        }
    }
    Ok(())
}

fn constant(graph: &Graph, value: Value) -> Option<f64> {
    match graph.op(value.node) {
        Op::Const(c) => Some(c.value),
        _ => None,
    }
}

/// The largest folded table, in bytes: a norm of one row a token takes a microsecond, which is not worth a second copy of
/// a large embedding, computed at each start, in the file and in memory.
const FOLDED_BYTES: usize = 16 << 20;

/// `fold-ln0`: a norm of looked-up rows is a look-up of normalised rows, and the table is known. Only of tables whose f32
/// values fit into 16 MiB.
///
/// ```text
/// %x = embed %table, %tokens          %t = layer_norm %table, %w, %b
/// %y = layer_norm %x, %w, %b    →     %y = embed %t, %tokens
/// ```
pub(crate) fn ln0(graph: &mut Graph, fuel: &mut Fuel) -> Result<(), GraphError> {
    for node in graph.topological() {
        let Op::LayerNorm(norm) = graph.op(node) else {
            continue;
        };
        let norm = norm.clone();
        let operands = graph.operands(node);
        // Rows that something else reads too would be looked up in two tables, each as large as the vocabulary.
        if !matches!(graph.op(operands[0].node), Op::Embed(_)) || !graph.single_use(operands[0]) {
            continue;
        }
        let [table, tokens] = graph.operands(operands[0].node)[..] else {
            continue;
        };
        let known = [table, operands[1], operands[2]]
            .iter()
            .all(|&v| graph.is_constant(v));
        if known && is_small(graph, table) && fuel.take() {
            let table = graph.add(Op::LayerNorm(norm), &[table, operands[1], operands[2]])?[0];
            let folded = graph.add(Op::Embed(Embed {}), &[table, tokens])?[0];
            graph.replace_uses(graph.value(node, 0), folded)?;
        }
    }
    Ok(())
}

/// Whether the f32 values of a table fit into [`FOLDED_BYTES`].
fn is_small(graph: &Graph, table: Value) -> bool {
    let mut lens = graph.ty(table).shape.iter().map(|dim| dim.as_fixed());
    let bytes = lens.try_fold(DType::F32.size(), |bytes, len| bytes.checked_mul(len?));
    bytes.is_some_and(|bytes| bytes <= FOLDED_BYTES)
}

/// `dce`: every pass removes what it left dead; this one also removes what was dead before.
///
/// ```text
/// %a = exp %x
/// %y = neg %x     →     %y = neg %x
/// return y=%y           return y=%y
/// ```
pub(crate) fn dead(graph: &mut Graph, _: &mut Fuel) -> Result<(), GraphError> {
    graph.remove_dead();
    Ok(())
}
