//! Graph IR: pure tensor values.
//!
//! ```text
//! func @cmix(%x: f32[B,T,4]) -> (y: %2) {
//!   %key = param "key" : bf16[8,4]
//!   %0 = linear %x, %key : f32[B,T,8]
//!   %1 = relu %0 : f32[B,T,8]
//!   %2 = mul %1, %1 : f32[B,T,8]
//! }
//! ```
//!
//! State enters as an input and leaves as an output; that it is updated in place is for the planner to prove. Activations
//! and state are f32, weights have the number format they are stored in. The ops are the rows of one table, [`ops`].
//!
//! **Invariant:** a node's result types are those that [`Op::infer`] gives for its operands; [`verify`] proves it.
//! **Invariant:** text, [`Graph::topological`] and everything made of them depend on the values of a graph and the order
//! of its inputs and outputs only, never on the order of edits. petgraph is not visible outside this module.

mod dot;
mod error;
pub mod eval;
pub mod ops;
mod rebuild;
mod reference;
pub mod text;
mod types;
mod verify;
mod walk;

#[cfg(test)]
mod tests;

use std::fmt;

use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;

pub use crate::verified::Verified;
pub use error::{GraphError, TypeError};
pub use ops::Op;
pub use reference::reference;
pub use text::{ParseError, parse};
pub use types::{Dim, TensorType};
pub use verify::verify;

/// A node of one graph: an op with its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl NodeId {
    fn index(self) -> NodeIndex {
        NodeIndex::new(self.0 as usize)
    }
}

impl From<NodeIndex> for NodeId {
    fn from(index: NodeIndex) -> Self {
        // petgraph's default index type is u32.
        NodeId(index.index() as u32)
    }
}

/// One result of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// The node that computes it.
    pub node: NodeId,
    /// Which of its results.
    pub result: u32,
}

#[derive(Clone, Debug)]
struct Node {
    op: Op,
    types: Vec<TensorType>,
    label: Option<String>,
}

/// An edge from the node that computes a value to a node that reads it.
#[derive(Clone, Copy, Debug)]
struct Use {
    result: u32,
    operand: u32,
}

/// A pure function on tensors, as a graph of ops.
#[derive(Clone, Debug)]
pub struct Graph {
    name: String,
    nodes: StableDiGraph<Node, Use>,
    inputs: Vec<NodeId>,
    outputs: Vec<(String, Value)>,
}

impl Graph {
    /// A graph without inputs, nodes and outputs.
    pub fn new(name: impl Into<String>) -> Self {
        Graph {
            name: name.into(),
            nodes: StableDiGraph::new(),
            inputs: vec![],
            outputs: vec![],
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds an op on values of this graph and gives its results, whose types are inferred.
    ///
    /// # Errors
    /// If an operand is not a value of this graph, if the op does not fit its operands, or if an input of that name
    /// exists.
    pub fn add(&mut self, op: impl Into<Op>, operands: &[Value]) -> Result<Vec<Value>, GraphError> {
        let op = op.into();
        let types = operands
            .iter()
            .map(|&v| self.get(v).cloned())
            .collect::<Result<Vec<_>, _>>()?;
        let types = op.infer(&types).map_err(|error| GraphError::Type {
            op: op.mnemonic(),
            error,
        })?;
        if let Op::Input(input) = &op
            && self.input(&input.name).is_some()
        {
            return Err(GraphError::DuplicateInput(input.name.clone()));
        }
        let is_input = matches!(op, Op::Input(_));
        let n_results = types.len();
        let node: NodeId = self
            .nodes
            .add_node(Node {
                op,
                types,
                label: None,
            })
            .into();
        for (operand, value) in (0..).zip(operands) {
            self.nodes.add_edge(
                value.node.index(),
                node.index(),
                Use {
                    result: value.result,
                    operand,
                },
            );
        }
        if is_input {
            self.inputs.push(node);
        }
        Ok((0..n_results).map(|i| self.value(node, i)).collect())
    }

    /// Adds an input after those that exist.
    ///
    /// # Errors
    /// If there is an input of that name.
    pub fn add_input(&mut self, name: impl Into<String>, ty: TensorType) -> Result<Value, GraphError> {
        Ok(self.add(
            ops::Input {
                name: name.into(),
                ty,
            },
            &[],
        )?[0])
    }

    /// Adds a weight by its official name. A weight may be added many times, always with the same type.
    ///
    /// # Errors
    /// If no value can have that type.
    pub fn add_param(&mut self, name: impl Into<String>, ty: TensorType) -> Result<Value, GraphError> {
        Ok(self.add(
            ops::Param {
                name: name.into(),
                ty,
            },
            &[],
        )?[0])
    }

    /// Names a value as an output, after those that exist, or in the place of the output of that name.
    pub fn set_output(&mut self, name: impl Into<String>, value: Value) {
        let name = name.into();
        match self.outputs.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value,
            None => self.outputs.push((name, value)),
        }
    }

    /// Names and types of the inputs, in order.
    pub fn inputs(&self) -> Vec<(String, TensorType)> {
        let describe = |&node: &NodeId| match self.op(node) {
            Op::Input(input) => (input.name.clone(), input.ty.clone()),
            _ => unreachable!("only inputs are listed"),
        };
        self.inputs.iter().map(describe).collect()
    }

    /// The input of this name.
    pub fn input(&self, name: &str) -> Option<Value> {
        let named = |node: &NodeId| matches!(self.op(*node), Op::Input(input) if input.name == name);
        self.inputs
            .iter()
            .copied()
            .find(named)
            .map(|node| self.value(node, 0))
    }

    /// Names and values of the outputs, in order.
    pub fn outputs(&self) -> &[(String, Value)] {
        &self.outputs
    }

    /// The output of this name.
    pub fn output(&self, name: &str) -> Option<Value> {
        self.outputs.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }

    /// Whether a value is an output.
    pub fn is_output(&self, value: Value) -> bool {
        self.outputs.iter().any(|(_, v)| *v == value)
    }

    /// Names and types of the weights that the outputs need, each once, in the order of [`topological`](Self::topological).
    pub fn params(&self) -> Vec<(String, TensorType)> {
        let mut params: Vec<(String, TensorType)> = vec![];
        let mut seen = std::collections::HashSet::new();
        for node in self.topological() {
            if let Op::Param(param) = self.op(node)
                && seen.insert(param.name.as_str())
            {
                params.push((param.name.clone(), param.ty.clone()));
            }
        }
        params
    }

    /// Result `index` of a node.
    pub fn value(&self, node: NodeId, index: usize) -> Value {
        Value {
            node,
            result: index as u32,
        }
    }

    /// The op of a node.
    ///
    /// # Panics
    /// If the node is not of this graph, or was removed. So do the other questions about a node or value.
    pub fn op(&self, node: NodeId) -> &Op {
        &self.nodes[node.index()].op
    }

    /// The values that a node reads, in order.
    pub fn operands(&self, node: NodeId) -> Vec<Value> {
        let uses = self.nodes.edges_directed(node.index(), Direction::Incoming);
        let mut uses: Vec<(u32, Value)> = uses
            .map(|e| {
                (
                    e.weight().operand,
                    Value {
                        node: e.source().into(),
                        result: e.weight().result,
                    },
                )
            })
            .collect();
        uses.sort_unstable();
        uses.into_iter().map(|(_, value)| value).collect()
    }

    /// How many results a node has.
    pub fn results(&self, node: NodeId) -> usize {
        self.nodes[node.index()].types.len()
    }

    /// The type of a value.
    pub fn ty(&self, value: Value) -> &TensorType {
        &self.nodes[value.node.index()].types[value.result as usize]
    }

    /// Where a value is read: node and operand number, ascending. Nodes that no output needs count until
    /// [`remove_dead`](Self::remove_dead).
    pub fn users(&self, value: Value) -> Vec<(NodeId, usize)> {
        let uses = self.nodes.edges_directed(value.node.index(), Direction::Outgoing);
        let mut users: Vec<(NodeId, usize)> = uses
            .filter(|e| e.weight().result == value.result)
            .map(|e| (e.target().into(), e.weight().operand as usize))
            .collect();
        users.sort_unstable();
        users
    }

    /// Whether a value is read in one place only and is not an output.
    pub fn single_use(&self, value: Value) -> bool {
        self.users(value).len() == 1 && !self.is_output(value)
    }

    /// Makes everything that reads `old`, outputs included, read `new`.
    ///
    /// # Errors
    /// If the types differ, or a value is not of this graph.
    pub fn replace_uses(&mut self, old: Value, new: Value) -> Result<(), GraphError> {
        let (old_type, new_type) = (self.get(old)?, self.get(new)?);
        if old_type != new_type {
            return Err(GraphError::Replacement {
                old: old_type.clone(),
                new: new_type.clone(),
            });
        }
        let uses = self.nodes.edges_directed(old.node.index(), Direction::Outgoing);
        let uses: Vec<_> = uses
            .filter(|e| e.weight().result == old.result)
            .map(|e| (e.id(), e.target(), e.weight().operand))
            .collect();
        for (edge, user, operand) in uses {
            self.nodes.remove_edge(edge);
            self.nodes.add_edge(
                new.node.index(),
                user,
                Use {
                    result: new.result,
                    operand,
                },
            );
        }
        for (_, value) in self.outputs.iter_mut().filter(|(_, v)| *v == old) {
            *value = new;
        }
        Ok(())
    }

    /// How many nodes there are, inputs and unneeded ones included.
    pub fn node_count(&self) -> usize {
        self.nodes.node_count()
    }

    /// What a node is for, for people: `blocks.3.att.key`.
    pub fn label(&self, node: NodeId) -> Option<&str> {
        self.nodes[node.index()].label.as_deref()
    }

    /// Labels a node.
    pub fn set_label(&mut self, node: NodeId, label: Option<String>) {
        self.nodes[node.index()].label = label;
    }

    /// The type of a value that may not exist.
    fn get(&self, value: Value) -> Result<&TensorType, GraphError> {
        self.nodes
            .node_weight(value.node.index())
            .and_then(|node| node.types.get(value.result as usize))
            .ok_or(GraphError::NoSuchValue(value))
    }
}
