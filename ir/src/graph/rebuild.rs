//! Graphs made of other graphs.

use std::collections::HashMap;

use super::{Graph, Node, NodeId, Op, Use, Value};

impl Graph {
    /// What computes one value, as a graph `value` with the one output `value`, without labels. Equal computations give
    /// equal text.
    pub fn extract(&self, value: Value) -> Graph {
        let mut part = Graph::new("value");
        let mut copies: HashMap<NodeId, NodeId> = HashMap::new();
        for node in self.needed_by(&[value]).0 {
            let Node { op, types, .. } = &self.nodes[node.index()];
            let copy = part.nodes.add_node(Node {
                op: op.clone(),
                types: types.clone(),
                label: None,
            });
            for (operand, v) in (0..).zip(self.operands(node)) {
                part.nodes.add_edge(
                    copies[&v.node].index(),
                    copy,
                    Use {
                        result: v.result,
                        operand,
                    },
                );
            }
            copies.insert(node, copy.into());
        }
        part.inputs = self
            .inputs
            .iter()
            .filter_map(|node| copies.get(node))
            .copied()
            .collect();
        part.set_output(
            "value",
            Value {
                node: copies[&value.node],
                ..value
            },
        );
        part
    }

    /// This graph for a known number of sequences, of tokens, or both. The axes stay.
    pub fn specialise(mut self, batch: Option<usize>, time: Option<usize>) -> Graph {
        for node in self.nodes.node_weights_mut() {
            for ty in &mut node.types {
                *ty = ty.specialise(batch, time);
            }
            match &mut node.op {
                Op::Input(op) => op.ty = op.ty.specialise(batch, time),
                Op::Reshape(op) => op.shape.iter_mut().for_each(|d| *d = d.specialise(batch, time)),
                _ => {}
            }
        }
        self
    }
}
