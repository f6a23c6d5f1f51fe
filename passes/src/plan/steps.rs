//! The steps of a program: ops with their kernels, in the order of their launches.

use rwkvc_backend_api::Features;
use rwkvc_ir::graph::ops::Op;
use rwkvc_ir::graph::{Graph, NodeId, Value};

use super::error::GraphFault;
use super::prologue::Joined;
use super::types::Shape;
use super::values::{tensor, viewed};
use crate::schedule::{self, Prologue, Scheduled, Tensor};

/// An op with its kernels, or two that are one launch.
pub(super) struct Step {
    /// The op that it is named after.
    pub(super) node: NodeId,
    pub(super) operands: Vec<Value>,
    pub(super) results: Vec<Value>,
    /// The operand that is updated in place and the result that it becomes.
    pub(super) in_place: Option<(usize, usize)>,
    /// Whether the last operand becomes what the last but one is: a deferred state write.
    carries: bool,
    pub(super) scheduled: Vec<Scheduled>,
}

impl Step {
    /// The steps of a shape: an op each, but inputs, views, and what is computed when weights are packed.
    pub(super) fn all(shape: &Shape<'_>, features: &Features) -> Result<Vec<Step>, GraphFault> {
        let graph = shape.graph;
        let joined = Joined::all(graph, features);
        let is_launched = |node: &NodeId| {
            let value = graph.value(*node, 0);
            joined.iter().all(|j| j.norm != *node)
                && !matches!(graph.op(*node), Op::Input(_))
                && viewed(graph, value).is_none()
                && !graph.is_constant(value)
        };
        let launched = graph.topological().into_iter().filter(is_launched);
        launched
            .map(|node| {
                let mut step = Step::new(graph, node, &joined);
                step.scheduled = step.schedule(graph, &joined, features, shape.max_tokens as i64)?;
                Ok(step)
            })
            .collect()
    }

    /// Without its kernels.
    fn new(graph: &Graph, node: NodeId, joined: &[Joined]) -> Self {
        let mut operands = graph.operands(node);
        let mut results: Vec<Value> = (0..graph.results(node)).map(|i| graph.value(node, i)).collect();
        let mut in_place = graph.op(node).in_place(operands.len(), results.len());
        if let Some(joined) = joined.iter().find(|j| j.group == node) {
            operands = joined.operands(graph);
            results.push(joined.next(graph)[0]);
            in_place = None;
        }
        let carried = joined.iter().find(|j| j.carrier == node);
        operands.extend(carried.iter().flat_map(|j| j.next(graph)));
        Step {
            node,
            operands,
            results,
            in_place,
            carries: carried.is_some(),
            scheduled: vec![],
        }
    }

    /// The value that a deferred state write carries to another place, and the one whose place that is.
    pub(super) fn carried(&self) -> Option<(Value, Value)> {
        match self.operands[..] {
            [.., from, to] if self.carries => Some((from, to)),
            _ => None,
        }
    }

    /// The kernels, for calls of this capacity.
    fn schedule(
        &self,
        graph: &Graph,
        joined: &[Joined],
        features: &Features,
        capacity: i64,
    ) -> Result<Vec<Scheduled>, GraphFault> {
        let tensors = |values: &[Value]| -> Result<Vec<Tensor>, GraphFault> {
            values.iter().map(|&v| tensor(graph, v)).collect()
        };
        let (operands, results) = (tensors(&self.operands)?, tensors(&self.results)?);
        let joined = joined.iter().find(|j| j.group == self.node);
        Ok(match (joined, features) {
            (Some(joined), Features::Gpu(features)) => {
                let prologue = Prologue {
                    eps: joined.eps,
                    n_mixes: graph.results(joined.norm) - 1,
                    mixes: &joined.mixes,
                };
                schedule::joined(&prologue, &joined.members, &operands, &results, features)?
            }
            (None, Features::Gpu(features)) if self.carries => {
                schedule::carrying(graph.op(self.node), &operands, &results, features, capacity)?
            }
            (Some(_) | None, Features::Cpu(_)) | (None, Features::Gpu(_)) => {
                schedule::schedule(graph.op(self.node), &operands, &results, features, capacity)?
            }
        })
    }
}
