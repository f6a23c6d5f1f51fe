//! `fuse-lora`

use rwkvc_ir::graph::{Graph, GraphError, NodeId};

use crate::fuel::Fuel;
use crate::projection::{independent, merge, projections};

/// The low-rank chains of one token shift (decay, learning rate, value gate, gate) become two launches.
///
/// ```text
/// %h = linear_group %x_w, %w1 {members=[tanh]}
/// %w = linear_group %h, %w2, %w0 {members=[bias]}
/// %i = linear %x_a, %a1                                          %h, %i = linear_group %x_w, %w1, %x_a, %a1 {…}
/// %a = linear_group %i, %a2, %a0 {members=[bias+sigmoid]}   →    %w, %a = linear_group %h, %w2, %w0, %i, %a2, %a0 {…}
/// ```
pub(crate) fn run(graph: &mut Graph, fuel: &mut Fuel) -> Result<(), GraphError> {
    // Chains in the order found, gathered by the node that produces what they read.
    let mut groups: Vec<(NodeId, Vec<Chain>)> = vec![];
    for node in graph.topological() {
        let Some(chain) = chain(graph, node) else { continue };
        match groups.iter_mut().find(|(source, _)| *source == chain.source) {
            Some((_, chains)) => chains.push(chain),
            None => groups.push((chain.source, vec![chain])),
        }
    }
    for (_, chains) in groups.into_iter().filter(|(_, chains)| chains.len() > 1) {
        let nodes = |end: fn(&Chain) -> NodeId| chains.iter().map(end).collect::<Vec<_>>();
        let (first, second) = (nodes(|c| c.first), nodes(|c| c.second));
        if independent(graph, &first) && independent(graph, &second) && fuel.take() {
            for half in [first, second] {
                // Read again: the second halves read results of the merged first ones.
                let parts: Vec<_> = half.iter().flat_map(|&n| projections(graph, n)).collect();
                merge(graph, &parts)?;
            }
        }
    }
    Ok(())
}

/// Two products in a row, the middle narrower than both ends.
struct Chain {
    first: NodeId,
    second: NodeId,
    source: NodeId,
}

fn chain(graph: &Graph, second: NodeId) -> Option<Chain> {
    let [outer] = &projections(graph, second)[..] else {
        return None;
    };
    let first = outer.x().node;
    let [inner] = &projections(graph, first)[..] else {
        return None;
    };
    let width = |v| graph.ty(v).shape.last().and_then(|d| d.as_fixed());
    let (input, rank, output) = (width(inner.x())?, width(inner.result)?, width(outer.result)?);
    let narrow = rank < input && rank < output;
    (narrow && graph.single_use(inner.result)).then_some(Chain {
        first,
        second,
        source: inner.x().node,
    })
}
