//! Finding a pattern graph inside a graph.
//!
//! A fused op is recognised by its own decomposition: what it would decompose into is searched for in the graph. So the
//! meaning of a fused op and what is fused into it cannot drift apart.

use std::collections::HashMap;

use rwkvc_ir::graph::ops::Op;
use rwkvc_ir::graph::{Graph, NodeId, Value};

/// Where a pattern was found.
pub(crate) struct Match {
    /// The graph's value for each value of the pattern.
    values: HashMap<Value, Value>,
}

impl Match {
    /// What stands in the graph for a value of the pattern.
    pub(crate) fn get(&self, pattern: Value) -> Option<Value> {
        self.values.get(&pattern).copied()
    }
}

/// Finds `pattern` in `graph` such that the pattern's output `root` is the graph's value `at`. Inputs of the pattern stand
/// for any value of their shape, in any number format. Values inside the pattern may not be used outside the match, unless they are outputs of
/// the pattern.
pub(crate) fn find(graph: &Graph, at: Value, pattern: &Graph, root: Value) -> Option<Match> {
    let mut search = Search {
        graph,
        pattern,
        values: HashMap::new(),
        nodes: HashMap::new(),
    };
    search.value(root, at).then_some(())?;
    let outputs: Vec<Value> = pattern.outputs().iter().map(|(_, v)| *v).collect();
    let contained = search.nodes.iter().all(|(&inner, &node)| {
        (0..graph.results(node)).all(|i| {
            let exported = outputs.contains(&pattern.value(inner, i));
            let value = graph.value(node, i);
            let shared = graph.is_constant(value);
            exported
                || shared
                || (!graph.is_output(value)
                    && graph
                        .users(value)
                        .iter()
                        .all(|(n, _)| search.nodes.values().any(|m| m == n)))
        })
    });
    contained.then_some(Match {
        values: search.values,
    })
}

struct Search<'g> {
    graph: &'g Graph,
    pattern: &'g Graph,
    values: HashMap<Value, Value>,
    nodes: HashMap<NodeId, NodeId>,
}

impl Search<'_> {
    /// Matches one value and everything it is computed from. Leaves the bindings of a failed attempt behind only on the way
    /// to a failure of the whole, or restores them where an alternative is tried.
    fn value(&mut self, pattern: Value, value: Value) -> bool {
        if let Some(&bound) = self.values.get(&pattern) {
            return bound == value;
        }
        let is_input = matches!(self.pattern.op(pattern.node), Op::Input(_));
        if is_input {
            if self.pattern.ty(pattern).shape != self.graph.ty(value).shape {
                return false;
            }
            self.values.insert(pattern, value);
            return true;
        }
        if pattern.result != value.result || !self.node(pattern.node, value.node) {
            return false;
        }
        for i in 0..self.pattern.results(pattern.node) {
            self.values.insert(
                self.pattern.value(pattern.node, i),
                self.graph.value(value.node, i),
            );
        }
        true
    }

    fn node(&mut self, pattern: NodeId, node: NodeId) -> bool {
        if let Some(&bound) = self.nodes.get(&pattern) {
            return bound == node;
        }
        if self.pattern.op(pattern) != self.graph.op(node) {
            return false;
        }
        let (wanted, found) = (self.pattern.operands(pattern), self.graph.operands(node));
        if wanted.len() != found.len() {
            return false;
        }
        let before = (self.values.clone(), self.nodes.clone());
        if wanted.iter().zip(&found).all(|(&p, &v)| self.value(p, v)) {
            self.nodes.insert(pattern, node);
            return true;
        }
        let commutes = self.graph.op(node).commutes();
        (self.values, self.nodes) = before.clone();
        if commutes && self.value(wanted[0], found[1]) && self.value(wanted[1], found[0]) {
            self.nodes.insert(pattern, node);
            return true;
        }
        (self.values, self.nodes) = before;
        false
    }
}
