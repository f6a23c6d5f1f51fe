//! Ops that the target has no schedule for: they become the core ops that they stand for.

use rwkvc_ir::graph::ops::Kind;
use rwkvc_ir::graph::{Graph, GraphError};

/// The graph with what every op of this mnemonic stands for in its place; `None` if it stands for no others.
pub(super) fn decomposed(graph: &Graph, mnemonic: &str) -> Result<Option<Graph>, GraphError> {
    let mut lowered = graph.clone();
    for node in graph.topological() {
        let op = graph.op(node);
        if op.mnemonic() != mnemonic {
            continue;
        }
        if op.kind() != Kind::Fused {
            return Ok(None);
        }
        let operands = lowered.operands(node);
        let Some(results) = op.decompose(&mut lowered, &operands) else {
            return Ok(None);
        };
        for (i, result) in results?.into_iter().enumerate() {
            lowered.replace_uses(lowered.value(node, i), result)?;
        }
    }
    lowered.remove_dead();
    Ok(Some(lowered))
}

#[cfg(test)]
mod tests {
    use rwkvc_ir::graph::{parse, verify};

    use super::*;

    #[test]
    fn fused_ops_become_core_ops_and_core_ops_stay() {
        let text = "\
func @f(%x: f32[B,T,8], %w: f32[8], %b: f32[8], %p: f32[B,8], %m: f32[8]) -> (y: %y, n: %n) {
  %y, %n = norm_shift_mix %x, %w, %b, %p, %m {eps=1e-5} : f32[B,T,8], f32[B,8]
}";
        let graph = parse(text).expect("a graph");
        let lowered = decomposed(&graph, "norm_shift_mix").expect("a decomposition");
        let lowered = verify(lowered.expect("a fused op")).expect("a sound graph");
        let kinds = lowered
            .topological()
            .into_iter()
            .map(|node| lowered.op(node).kind());
        assert!(kinds.into_iter().all(|kind| kind != Kind::Fused));
        let again = decomposed(&lowered, "layer_norm").expect("no error");
        assert!(again.is_none());
    }
}
