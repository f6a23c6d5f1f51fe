//! Where the values of a program live: state in place, the rest in one arena.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rwkvc_abi::{Arg, StateSlot};
use rwkvc_ir::graph::ops::Op;
use rwkvc_ir::graph::{Graph, NodeId, Value};

use super::arena::Arena;
use super::error::GraphFault;
use super::names::label;
use super::steps::Step;
use super::types::Shape;
use super::values::{keeps_format, root, tensor};
use super::weights::Weights;
use crate::schedule::Slot;
use crate::storage::{Layout, Part};

/// Where everything is that the kernels of a program touch, but panels and parts of weights.
pub(super) struct Memory {
    pub(super) places: HashMap<Value, Arg>,
    /// Arena offsets of scratch memory, by op and number.
    pub(super) scratch: HashMap<(NodeId, usize), u64>,
    pub(super) arena_bytes: u64,
}

impl Memory {
    /// Gives every value that a step touches its place.
    pub(super) fn of(
        shape: &Shape<'_>,
        steps: &[Step],
        state: &[StateSlot],
        weights: &mut Weights,
    ) -> Result<Self, GraphFault> {
        let graph = shape.graph;
        let mut places = fixed_places(shape, state);
        let mut scratch = HashMap::new();
        let carried: HashMap<Value, Value> = steps.iter().filter_map(Step::carried).collect();
        let last_use = last_uses(graph, steps, &carried);
        let mut arena = Arena::default();
        for (i, step) in steps.iter().enumerate() {
            let slots = || step.scheduled.iter().flat_map(|s| &s.args);
            for (number, &v) in step.operands.iter().enumerate() {
                let v = root(graph, v);
                let is_read = || slots().any(|slot| *slot == Slot::Operand(number));
                if graph.is_constant(v) && !places.contains_key(&v) && is_read() {
                    let index = weights.whole(graph, v, keeps_format(graph, v), Layout::RowMajor)?;
                    places.insert(v, Arg::Weight(index));
                }
            }
            for (r, &value) in step.results.iter().enumerate() {
                if let Some((operand, _)) = step.in_place.filter(|&(_, result)| result == r) {
                    let state = root(graph, step.operands[operand]);
                    check_in_place(graph, steps, i, state, value)?;
                    places.insert(value, places[&state]);
                } else if let Entry::Vacant(place) = places.entry(value) {
                    place.insert(Arg::Arena(arena.take(bytes(shape, value)?)));
                }
            }
            let mut own = vec![];
            for slot in slots() {
                if let Slot::Scratch { number, bytes } = *slot
                    && let Entry::Vacant(place) = scratch.entry((step.node, number))
                {
                    own.push(*place.insert(arena.take(bytes)));
                }
            }
            own.into_iter().for_each(|offset| arena.give_back(offset));
            // Results that nobody reads are free again at once.
            let ends = |v: &Value| last_use.get(v).copied().unwrap_or(i) == i;
            let mut dead: Vec<Value> = step.operands.iter().map(|&v| root(graph, v)).collect();
            dead.extend(&step.results);
            dead.sort();
            dead.dedup();
            for v in dead.iter().filter(|v| ends(v)) {
                if let Some(&Arg::Arena(offset)) = places.get(v) {
                    arena.give_back(offset);
                }
            }
        }
        check_next_state(shape, state, &places, &carried)?;
        Ok(Memory {
            places,
            scratch,
            arena_bytes: arena.size(),
        })
    }

    /// Where a part of quantised activations is.
    pub(super) fn part(&self, shape: &Shape<'_>, value: Value, part: Part) -> Result<Arg, GraphFault> {
        let elements = tensor(shape.graph, value)?.len();
        Ok(match self.places[&value] {
            Arg::Arena(offset) => Arg::Arena(offset + part.place(elements, shape.max_tokens as i64).0),
            other => other,
        })
    }
}

/// The places of inputs and logits.
fn fixed_places(shape: &Shape<'_>, state: &[StateSlot]) -> HashMap<Value, Arg> {
    let graph = shape.graph;
    let mut places = HashMap::new();
    for node in graph.topological() {
        if let Op::Input(input) = graph.op(node) {
            let slot = state.iter().find(|s| s.name == input.name);
            let place = slot.map_or(Arg::Tokens, |s| Arg::State(4 * s.offset * shape.states()));
            places.insert(graph.value(node, 0), place);
        }
    }
    if let Some(logits) = graph.output("logits") {
        places.insert(root(graph, logits), Arg::Logits);
    }
    places
}

/// The step that reads each value last; no step for outputs.
fn last_uses(graph: &Graph, steps: &[Step], carried: &HashMap<Value, Value>) -> HashMap<Value, usize> {
    let mut last = HashMap::new();
    for (i, step) in steps.iter().enumerate() {
        for &v in &step.operands {
            last.insert(root(graph, v), i);
        }
    }
    for (_, value) in graph.outputs() {
        if !carried.contains_key(value) {
            last.insert(root(graph, *value), usize::MAX);
        }
    }
    last
}

/// What a value takes of the arena.
fn bytes(shape: &Shape<'_>, value: Value) -> Result<u64, GraphFault> {
    let tensor = tensor(shape.graph, value)?;
    let tokens = shape.max_tokens as i64;
    Ok(match tensor.quantized {
        Some(_) => Part::Codes.place(tensor.len(), tokens).1,
        None => tensor.len().at(tokens) as u64 * tensor.dtype.size() as u64,
    })
}

/// The next value of each part of the state must be where the part is, or be carried there.
fn check_next_state(
    shape: &Shape<'_>,
    state: &[StateSlot],
    places: &HashMap<Value, Arg>,
    carried: &HashMap<Value, Value>,
) -> Result<(), GraphFault> {
    let graph = shape.graph;
    for slot in state {
        let next = graph.output(&slot.name).map(|v| root(graph, v));
        let next = next.map(|v| carried.get(&v).copied().unwrap_or(v));
        let stays = Arg::State(4 * slot.offset * shape.states());
        if next.is_some_and(|v| places.get(&v) != Some(&stays)) {
            return Err(GraphFault::NotInPlace(slot.name.clone()));
        }
    }
    Ok(())
}

/// Updating a state in place is right if no later step reads the state and the result is its next value.
fn check_in_place(
    graph: &Graph,
    steps: &[Step],
    i: usize,
    state: Value,
    next: Value,
) -> Result<(), GraphFault> {
    let Op::Input(input) = graph.op(state.node) else {
        return Err(GraphFault::UpdatesNoInput(label(graph, steps[i].node)));
    };
    let reads = |step: &&Step| step.operands.iter().any(|&v| root(graph, v) == state);
    if let Some(late) = steps[i + 1..].iter().find(reads) {
        return Err(GraphFault::ReadAfterUpdate {
            reader: label(graph, late.node),
            state: input.name.clone(),
        });
    }
    let is_next = |(name, v): &(String, Value)| *name == input.name && root(graph, *v) == next;
    match graph.outputs().iter().any(is_next) {
        true => Ok(()),
        false => Err(GraphFault::NotTheOutput(input.name.clone())),
    }
}
