//! `merge-projections`

use rwkvc_ir::graph::{Graph, GraphError, NodeId};

use crate::fuel::Fuel;
use crate::projection::{independent, merge, projections};

/// Products whose inputs come from one op share a launch: receptance, key, value and the first low-rank halves read the
/// mixes of one token shift.
///
/// ```text
/// %x_r, %x_k, %n = shift_mix %x, %prev, %mix_r, %mix_k          %x_r, %x_k, %n = shift_mix %x, %prev, %mix_r, %mix_k
/// %r = linear %x_r, %w_r                                   →    %r, %k = linear_group %x_r, %w_r, %x_k, %w_k {members=[plain, plain]}
/// %k = linear %x_k, %w_k
/// ```
pub(crate) fn run(graph: &mut Graph, fuel: &mut Fuel) -> Result<(), GraphError> {
    let mut groups: Vec<(NodeId, Vec<NodeId>)> = vec![];
    for node in graph.topological() {
        let parts = projections(graph, node);
        let Some(source) = parts.first().map(|p| p.x().node) else {
            continue;
        };
        // What a merged product reads must be ready when its first member starts, so members that wait for something
        // else (a residual, a gate) keep their own launch.
        let waits = parts
            .iter()
            .any(|p| p.x().node != source || p.member.scale || p.member.residual);
        if waits {
            continue;
        }
        match groups.iter_mut().find(|(s, _)| *s == source) {
            Some((_, nodes)) => nodes.push(node),
            None => groups.push((source, vec![node])),
        }
    }
    for (_, nodes) in groups.into_iter().filter(|(_, nodes)| nodes.len() > 1) {
        if independent(graph, &nodes) && fuel.take() {
            let parts: Vec<_> = nodes.iter().flat_map(|&n| projections(graph, n)).collect();
            merge(graph, &parts)?;
        }
    }
    Ok(())
}
