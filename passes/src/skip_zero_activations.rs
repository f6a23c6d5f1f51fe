//! `skip-zero-activations`

use rwkvc_ir::graph::ops::{Activation, LinearGroup, Member, Op};
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
        // Schedules skip in a product of its own: one list of activations that are not zero serves one matrix.
        let [part] = &projections(graph, node)[..] else {
            continue;
        };
        if part.member.skip_zeros || !has_zeros(graph, part.x()) || !fuel.take() {
            continue;
        }
        let group = LinearGroup {
            members: vec![Member {
                skip_zeros: true,
                ..part.member.clone()
            }],
        };
        let operands = graph.operands(node);
        let y = graph.add(Op::LinearGroup(group), &operands)?[0];
        graph.replace_uses(graph.value(node, 0), y)?;
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
