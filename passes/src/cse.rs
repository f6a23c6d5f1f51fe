//! Common subexpressions.

use std::collections::HashMap;

use rwkvc_ir::graph::ops::Op;
use rwkvc_ir::graph::{Graph, GraphError, Value};

use crate::fuel::Fuel;

/// `cse`: of equal ops on equal operands, only the first is computed.
///
/// ```text
/// %a = exp %x              %a = exp %x
/// %b = exp %x        →     %y = add %a, %a
/// %y = add %a, %b
/// ```
pub(crate) fn cse(graph: &mut Graph, fuel: &mut Fuel) -> Result<(), GraphError> {
    let mut seen: HashMap<(String, Vec<Value>), rwkvc_ir::graph::NodeId> = HashMap::new();
    for node in graph.topological() {
        if matches!(graph.op(node), Op::Input(_)) {
            continue;
        }
        let types: Vec<String> = (0..graph.results(node))
            .map(|i| graph.ty(graph.value(node, i)).to_string())
            .collect();
        let key = (
            format!("{:?} {}", graph.op(node), types.join(" ")),
            graph.operands(node),
        );
        match seen.get(&key) {
            None => {
                seen.insert(key, node);
            }
            Some(&first) if fuel.take() => {
                for i in 0..graph.results(node) {
                    graph.replace_uses(graph.value(node, i), graph.value(first, i))?;
                }
            }
            Some(_) => {}
        }
    }
    Ok(())
}
