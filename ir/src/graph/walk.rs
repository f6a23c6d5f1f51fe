//! Orders and reachability.

use std::collections::HashSet;

use super::{Graph, NodeId, Op, Value};

/// A node on the way to itself.
pub(crate) struct Cycle(pub(crate) NodeId);

impl Graph {
    /// The nodes that the outputs need, operands before users: depth first from the outputs in order, operands in order.
    pub fn topological(&self) -> Vec<NodeId> {
        let roots: Vec<Value> = self.outputs.iter().map(|(_, v)| *v).collect();
        self.needed_by(&roots).0
    }

    /// The nodes that `roots` need, operands before users, and a node that is computed from itself, if there is one.
    pub(crate) fn needed_by(&self, roots: &[Value]) -> (Vec<NodeId>, Option<Cycle>) {
        let mut order = vec![];
        let mut cycle = None;
        let mut done = HashSet::new();
        // Nodes being expanded, each with the operands left to visit, last first.
        let mut open: Vec<(NodeId, Vec<Value>)> = vec![];
        let mut is_open = HashSet::new();
        for root in roots {
            let mut next = Some(root.node);
            loop {
                if let Some(node) = next.take() {
                    if is_open.contains(&node) {
                        cycle.get_or_insert(Cycle(node));
                    } else if !done.contains(&node) {
                        let mut operands = self.operands(node);
                        operands.reverse();
                        open.push((node, operands));
                        is_open.insert(node);
                    }
                }
                let Some((node, operands)) = open.last_mut() else {
                    break;
                };
                let node = *node;
                next = operands.pop().map(|v| v.node);
                if next.is_none() {
                    open.pop();
                    is_open.remove(&node);
                    done.insert(node);
                    order.push(node);
                }
            }
        }
        (order, cycle)
    }

    /// The nodes of one kind that the outputs need, by mnemonic, in the order of [`topological`](Self::topological).
    pub fn nodes_of(&self, mnemonic: &str) -> Vec<NodeId> {
        let mut nodes = self.topological();
        nodes.retain(|&node| self.op(node).mnemonic() == mnemonic);
        nodes
    }

    /// Whether a value depends on weights and constants only, so that it can be computed at compile time.
    pub fn is_constant(&self, value: Value) -> bool {
        let mut seen = HashSet::new();
        let mut open = vec![value.node];
        while let Some(node) = open.pop() {
            if matches!(self.op(node), Op::Input(_)) {
                return false;
            }
            if seen.insert(node) {
                open.extend(self.operands(node).iter().map(|v| v.node));
            }
        }
        true
    }

    /// The nodes that the outputs need and that depend on weights and constants only.
    pub fn const_stage(&self) -> HashSet<NodeId> {
        let mut known = HashSet::new();
        for node in self.topological() {
            let is_input = matches!(self.op(node), Op::Input(_));
            if !is_input && self.operands(node).iter().all(|v| known.contains(&v.node)) {
                known.insert(node);
            }
        }
        known
    }

    /// Removes the nodes that no output needs, except inputs, and gives their number. Nodes added later may
    /// get the ids of removed ones.
    pub fn remove_dead(&mut self) -> usize {
        let mut live: HashSet<NodeId> = self.topological().into_iter().collect();
        live.extend(&self.inputs);
        let before = self.nodes.node_count();
        self.nodes.retain_nodes(|_, node| live.contains(&node.into()));
        before - self.nodes.node_count()
    }
}
