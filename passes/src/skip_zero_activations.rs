//! `skip-zero-activations`

use rwkvc_ir::graph::ops::{Activation, LinearGroup, Op};
use rwkvc_ir::graph::{Graph, GraphError, Value};

use crate::fuel::Fuel;
use crate::projection::projections;

/// A product whose input comes out of `relu` or `relu2` is told so: most of its activations are zero, and their columns of the
/// matrix need not be read.
///
/// ```text
/// %h = linear_group %x, %k {members=[relu2]}      %h = linear_group %x, %k {members=[relu2]}
/// %y = linear_group %h, %v {members=[plain]}   →  %y = linear_group %h, %v {members=[skip_zeros]}
/// ```
pub(crate) fn run(graph: &mut Graph, fuel: &mut Fuel) -> Result<(), GraphError> {
    for node in graph.topological() {
        let parts = projections(graph, node);
        if !parts
            .iter()
            .any(|p| has_zeros(graph, p.x()) && !p.member.skip_zeros)
            || !fuel.take()
        {
            continue;
        }
        let members = parts.iter().map(|p| {
            let mut member = p.member.clone();
            member.skip_zeros |= has_zeros(graph, p.x());
            member
        });
        let group = LinearGroup {
            members: members.collect(),
        };
        let operands = graph.operands(node);
        let results = graph.add(Op::LinearGroup(group), &operands)?;
        for (i, y) in results.into_iter().enumerate() {
            graph.replace_uses(graph.value(node, i), y)?;
        }
    }
    Ok(())
}

/// Whether a value is a product with a rectified activation and nothing after it.
fn has_zeros(graph: &Graph, value: Value) -> bool {
    let parts = projections(graph, value.node);
    parts.iter().any(|p| {
        let rectified = matches!(p.member.activation, Activation::Relu | Activation::Relu2);
        p.result == value && rectified && !p.member.scale && !p.member.residual
    })
}
