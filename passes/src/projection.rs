//! A matrix product with what rides along, as the passes on products see it: a `linear` is a group of one.

use rwkvc_ir::graph::ops::{LinearGroup, Member, Op};
use rwkvc_ir::graph::{Graph, GraphError, NodeId, Value};

/// One member of a `linear_group` with its operands, or a `linear`.
#[derive(Clone, Debug)]
pub(crate) struct Projection {
    pub(crate) member: Member,
    pub(crate) operands: Vec<Value>,
    pub(crate) result: Value,
}

impl Projection {
    /// The activations that are multiplied.
    pub(crate) fn x(&self) -> Value {
        self.operands[0]
    }
}

/// The members of a node; none if it is not a product.
pub(crate) fn projections(graph: &Graph, node: NodeId) -> Vec<Projection> {
    let operands = graph.operands(node);
    match graph.op(node) {
        Op::Linear(_) => {
            vec![Projection {
                member: Member::PLAIN,
                operands,
                result: graph.value(node, 0),
            }]
        }
        Op::LinearGroup(group) => {
            let mut rest = operands.as_slice();
            let take = |(i, member): (usize, &Member)| {
                let (own, others) = rest.split_at(member.n_operands());
                rest = others;
                Projection {
                    member: member.clone(),
                    operands: own.to_vec(),
                    result: graph.value(node, i),
                }
            };
            group.members.iter().enumerate().map(take).collect()
        }
        _ => vec![],
    }
}

/// Puts one `linear_group` in the place of all these products.
pub(crate) fn merge(graph: &mut Graph, parts: &[Projection]) -> Result<(), GraphError> {
    let members = parts.iter().map(|p| p.member.clone()).collect();
    let operands: Vec<Value> = parts.iter().flat_map(|p| p.operands.iter().copied()).collect();
    let merged = graph.add(Op::LinearGroup(LinearGroup { members }), &operands)?;
    for (p, &y) in parts.iter().zip(&merged) {
        graph.replace_uses(p.result, y)?;
    }
    Ok(())
}

/// Whether none of the nodes depends on another, so that they can become one.
pub(crate) fn independent(graph: &Graph, nodes: &[NodeId]) -> bool {
    let mut seen = std::collections::HashSet::new();
    let mut open: Vec<NodeId> = nodes
        .iter()
        .flat_map(|&n| graph.operands(n))
        .map(|v| v.node)
        .collect();
    while let Some(node) = open.pop() {
        if nodes.contains(&node) {
            return false;
        }
        if seen.insert(node) {
            open.extend(graph.operands(node).iter().map(|v| v.node));
        }
    }
    true
}
