//! What launches and weights are called, for people.

use rwkvc_ir::graph::ops::Op;
use rwkvc_ir::graph::{Graph, NodeId, Value};

/// `blocks.3.linear_group`: the block by the first weight or state that names one, and the op.
pub(super) fn label(graph: &Graph, node: NodeId) -> String {
    let block = |v: &Value| {
        let name = graph
            .extract(*v)
            .params()
            .into_iter()
            .map(|(n, _)| n)
            .next()
            .or_else(|| match graph.op(v.node) {
                Op::Input(i) => Some(i.name.clone()),
                _ => None,
            })?;
        let mut parts = name.splitn(3, '.');
        (parts.next() == Some("blocks")).then(|| format!("blocks.{}.", parts.next().unwrap_or_default()))
    };
    let known = |v: &&Value| graph.is_constant(**v) || matches!(graph.op(v.node), Op::Input(_));
    let operands = graph.operands(node);
    let prefix = operands.iter().filter(known).find_map(block).unwrap_or_default();
    format!("{prefix}{}", graph.op(node).mnemonic())
}

/// The names of the weights that a value is computed of.
pub(super) fn weight_name(graph: &Graph, value: Value) -> String {
    let params = graph.extract(value).params();
    let mut names: Vec<String> = params.into_iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    match names.is_empty() {
        true => "constant".into(),
        false => names.join(" + "),
    }
}
