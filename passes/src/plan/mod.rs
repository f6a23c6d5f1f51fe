//! The plan: what is launched in which order, and where every value lives.
//!
//! ```text
//! Graph ── steps (what is launched) ── memory (where values live) ── weights, kernels ──> Plan
//! ```
//!
//! Values that depend only on weights are computed when the weights are packed; the rest gets a place in one arena,
//! which values share whose lives do not overlap. State is updated in place: a state input and the output of the same
//! name are one buffer. On a GPU some launches leave the next state in the arena, and a later launch writes it to its place:
//! a deferred state write (`prologue`).

mod arena;
mod decompose;
mod error;
mod kernels;
mod memory;
mod names;
mod prologue;
mod sampler;
mod steps;
mod types;
mod values;
mod weights;

pub use error::{GraphFault, PlanError};
pub use kernels::kernel_info;
pub use types::{Plan, Shape, Source, Weight};

use rwkvc_abi::{Arg, Launch, Probe, Program, StateSlot};
use rwkvc_backend_api::Features;
use rwkvc_ir::DType;
use rwkvc_ir::graph::ops::Op;
use rwkvc_ir::graph::{Graph, NodeId, verify};

use crate::schedule::{ScheduleError, Slot};
use crate::storage::Layout;
use decompose::decomposed;
use kernels::Kernels;
use memory::Memory;
use steps::Step;
use values::{is_narrow, root, tensor};
use weights::Weights;

/// Plans all shapes of one model for one target.
///
/// # Errors
/// If a graph is not a step that the target has schedules for: [`PlanError`] says why.
pub fn plan(shapes: &[Shape<'_>], features: &Features) -> Result<Plan, PlanError> {
    let mut planner = Planner {
        features,
        state: vec![],
        arena_bytes: 0,
        programs: vec![],
        kernels: Kernels::default(),
        weights: Weights::default(),
    };
    for shape in shapes {
        planner.program(shape)?;
    }
    Ok(Plan {
        kernels: planner.kernels.into_all(),
        weights: planner.weights.into_all(),
        state: planner.state,
        arena_bytes: planner.arena_bytes,
        programs: planner.programs,
    })
}

/// What the programs of a plan share.
struct Planner<'f> {
    features: &'f Features,
    state: Vec<StateSlot>,
    arena_bytes: u64,
    programs: Vec<Program>,
    kernels: Kernels,
    weights: Weights,
}

impl Planner<'_> {
    /// Plans a shape. Fused ops without a schedule are decomposed first.
    fn program(&mut self, shape: &Shape<'_>) -> Result<(), PlanError> {
        let fail = |reason: GraphFault| PlanError::Graph {
            graph: shape.graph.name().into(),
            reason,
        };
        match Step::all(shape, self.features) {
            Ok(steps) => self.launches(shape, steps),
            Err(GraphFault::Schedule(error @ ScheduleError::None(op))) => {
                let lowered = decomposed(shape.graph, op).map_err(|e| fail(e.into()))?;
                let graph = lowered.ok_or_else(|| fail(error.into()))?;
                let graph = verify(graph).map_err(|e| fail(e.into()))?;
                self.program(&Shape {
                    graph: &graph,
                    ..*shape
                })
            }
            Err(reason) => Err(fail(reason)),
        }
    }

    fn launches(&mut self, shape: &Shape<'_>, steps: Vec<Step>) -> Result<(), PlanError> {
        let graph = shape.graph;
        let fail = |reason: GraphFault| PlanError::Graph {
            graph: graph.name().into(),
            reason,
        };
        self.state(graph).map_err(fail)?;
        if let Some((name, _)) = graph.outputs().iter().find(|(_, v)| is_narrow(graph, *v)) {
            return Err(fail(GraphFault::NarrowOutput(name.clone())));
        }
        let memory = Memory::of(shape, &steps, &self.state, &mut self.weights).map_err(fail)?;
        self.arena_bytes = self.arena_bytes.max(memory.arena_bytes);
        let mut launches = vec![];
        for mut step in steps {
            let scheduled = std::mem::take(&mut step.scheduled);
            let op = graph.op(step.node);
            let label = names::label(graph, step.node);
            for scheduled in scheduled {
                let args = scheduled
                    .args
                    .iter()
                    .map(|slot| self.argument(shape, &step, &memory, slot));
                let args = args.collect::<Result<Vec<_>, _>>().map_err(fail)?;
                launches.push(Launch {
                    kernel: self.kernels.add(scheduled.kernel, op)?,
                    weight_bytes: self.weight_bytes(graph, step.node, &args),
                    skips_zeros: skips_zeros(op),
                    label: label.clone(),
                    args,
                });
            }
        }
        self.programs.push(Program {
            kind: shape.kind,
            max_tokens: shape.max_tokens,
            probes: self.probes(graph, &memory),
            launches,
        });
        Ok(())
    }

    /// The state of a graph is its f32 inputs; all shapes of a step have the same.
    fn state(&mut self, graph: &Graph) -> Result<(), GraphFault> {
        let mut offset = 0;
        let mut state = vec![];
        for (name, ty) in graph.inputs() {
            if ty.dtype != DType::F32 {
                continue;
            }
            let of_one = ty.shape.iter().skip(1);
            let shape: Option<Vec<usize>> = of_one.map(|d| d.as_fixed()).collect();
            let Some(shape) = shape else {
                let ty = ty.to_string();
                return Err(GraphFault::StateShape { name, ty });
            };
            let len: usize = shape.iter().product();
            state.push(StateSlot {
                name,
                shape,
                offset,
                init: None,
            });
            offset += len as u64;
        }
        if self.state.is_empty() {
            self.state = state;
        } else if self.state != state {
            return Err(GraphFault::OtherState);
        }
        Ok(())
    }

    /// What a launch passes for a slot of its schedule.
    fn argument(
        &mut self,
        shape: &Shape<'_>,
        step: &Step,
        memory: &Memory,
        slot: &Slot,
    ) -> Result<Arg, GraphFault> {
        let graph = shape.graph;
        let operand = |i: usize| root(graph, step.operands[i]);
        Ok(match *slot {
            Slot::Operand(i) => memory.places[&operand(i)],
            Slot::Result(i) => memory.places[&step.results[i]],
            Slot::OperandPart(i, part) => memory.part(shape, operand(i), part)?,
            Slot::ResultPart(i, part) => memory.part(shape, step.results[i], part)?,
            Slot::Scratch { number, .. } => Arg::Arena(memory.scratch[&(step.node, number)]),
            Slot::Packed {
                operand: i,
                part,
                width,
            } => Arg::Weight(self.weights.packed(graph, operand(i), part, width)?),
            Slot::Panels { operand: i, width } => {
                let layout = Layout::Panels {
                    width: width as usize,
                };
                Arg::Weight(self.weights.whole(graph, operand(i), true, layout)?)
            }
        })
    }

    /// The outputs other than logits and state, which can be read after a call.
    fn probes(&self, graph: &Graph, memory: &Memory) -> Vec<Probe> {
        let is_state = |name: &str| self.state.iter().any(|part| part.name == name);
        let outputs = graph.outputs().iter().filter(|(name, _)| !is_state(name));
        let probe = |(name, value): &(String, _)| {
            let Some(&Arg::Arena(offset)) = memory.places.get(&root(graph, *value)) else {
                return None;
            };
            let elements = kernels::size(tensor(graph, *value).ok()?.len(), 1);
            Some(Probe {
                name: name.clone(),
                offset,
                elements,
            })
        };
        outputs.filter_map(probe).collect()
    }

    /// Weight bytes that a launch reads: whole buffers, but single rows of a looked-up table.
    fn weight_bytes(&self, graph: &Graph, node: NodeId, args: &[Arg]) -> u64 {
        let is_lookup = matches!(graph.op(node), Op::Embed(_));
        let bytes = |arg: &Arg| match *arg {
            Arg::Weight(i) => {
                let weight = self.weights.get(i);
                let rows = if is_lookup { weight.shape[0].max(1) } else { 1 };
                weight.bytes() / rows as u64
            }
            Arg::State(_) | Arg::Arena(_) | Arg::Tokens | Arg::Logits | Arg::Sampler | Arg::Counts => 0,
        };
        args.iter().map(bytes).sum()
    }
}

/// Whether an op leaves out weights of activations that are zero.
fn skips_zeros(op: &Op) -> bool {
    matches!(op, Op::LinearGroup(group) if group.members.iter().any(|m| m.skip_zeros))
}
