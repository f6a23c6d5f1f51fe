//! `fuse-norm`

use rwkvc_ir::graph::ops::{NormShiftMix, Op};
use rwkvc_ir::graph::{Graph, GraphError};

use crate::fuel::Fuel;

/// A layer norm that only a shift_mix reads joins it: the normalised activations never reach memory.
///
/// ```text
/// %n = layer_norm %x, %w, %b               %y, %next = norm_shift_mix %x, %w, %b, %prev, %mix
/// %y, %next = shift_mix %n, %prev, %mix  →
/// ```
pub(crate) fn run(graph: &mut Graph, fuel: &mut Fuel) -> Result<(), GraphError> {
    for node in graph.topological() {
        if !matches!(graph.op(node), Op::ShiftMix(_)) {
            continue;
        }
        let operands = graph.operands(node);
        let Op::LayerNorm(norm) = graph.op(operands[0].node) else {
            continue;
        };
        let eps = norm.eps;
        let mut all = graph.operands(operands[0].node);
        let one_row = all[1..].iter().all(|&v| graph.ty(v).shape.len() == 1);
        if !one_row || !graph.single_use(operands[0]) || !fuel.take() {
            continue;
        }
        all.extend(&operands[1..]);
        let fused = graph.add(Op::NormShiftMix(NormShiftMix { eps }), &all)?;
        for (i, &y) in fused.iter().enumerate() {
            graph.replace_uses(graph.value(node, i), y)?;
        }
    }
    Ok(())
}
