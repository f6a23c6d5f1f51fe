//! The plan: what is launched in which order, and where every value lives.
//!
//! Values that depend only on weights are computed when the weights are packed; the rest gets a place in one arena,
//! which values share whose lives do not overlap. State is updated in place: a state input and the output of the same
//! name are one buffer. On a GPU some launches leave the next state in the arena instead, and a later one carries it to its place.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rwkvc_backend_api::{Features, GpuFeatures};
use rwkvc_ir::DType;
use rwkvc_ir::graph::ops::Op;
use rwkvc_ir::graph::{Dim, Graph, NodeId, TensorType, Value};
use rwkvc_ir::kernel::{Extent, Kernel, verify::KernelError};

use crate::schedule::{self, Prologue, SamplerBuffer, Scheduled, Slot, Tensor};

mod arena;
mod joined;
mod layout;
mod quantized;

use arena::Arena;
use joined::Joined;
pub use layout::Layout;
pub use quantized::{Packed, Packing, Part};

/// One shape of the step, to be planned.
pub struct Shape<'g> {
    /// Its name: `decode`, `prefill`, `score`.
    pub name: &'static str,
    /// The graph, with its batch or its time fixed to 1.
    pub graph: &'g Graph,
    /// The most tokens of one call: of one state, or one of each state of a batch.
    pub max_tokens: usize,
}

impl Shape<'_> {
    /// How many states one call advances at most: more than one if the batch is free.
    fn states(&self) -> u64 {
        let inputs = self.graph.inputs();
        let is_batch = inputs.iter().any(|(_, ty)| ty.shape.contains(&Dim::Batch));
        if is_batch { self.max_tokens as u64 } else { 1 }
    }
}

/// Kernels, launches and buffers of all shapes of the step.
#[derive(Debug)]
pub struct Plan {
    /// The kernels, each once, with unique names.
    pub kernels: Vec<rwkvc_ir::Verified<Kernel>>,
    /// The weight buffers.
    pub weights: Vec<Weight>,
    /// The parts of the state, in the order of the graph's inputs.
    pub state: Vec<State>,
    /// Bytes of scratch memory that any program needs.
    pub arena_bytes: u64,
    /// The programs, in the order of the shapes.
    pub programs: Vec<Program>,
}

/// A weight buffer: what the kernels read.
#[derive(Debug)]
pub struct Weight {
    /// Official names of the weights it is made of, joined by ` + `.
    pub name: String,
    /// How it is stored.
    pub dtype: DType,
    /// Its shape, as it is arranged.
    pub shape: Vec<usize>,
    /// Where its bytes come from.
    pub source: Source,
    /// How they are arranged.
    pub layout: Layout,
    /// The weight buffer with the codes of the same quantised matrix, before this one, if this is another part of it.
    pub codes: Option<usize>,
}

/// Where the bytes of a weight buffer come from.
#[derive(Debug)]
pub enum Source {
    /// A weight of the model, as it is stored.
    Stored(String),
    /// The only output of a graph over weights, computed at compile time.
    Computed(Graph),
}

/// One part of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The graph input.
    pub name: String,
    /// Its shape, without the batch.
    pub shape: Vec<usize>,
    /// First f32 in the state. In a state of `n` members of a batch, the part starts at `n * offset` and has a row for
    /// each.
    pub offset: u64,
    /// The weight buffer with its value in a fresh state; zeros if none.
    pub init: Option<usize>,
}

/// The launches of one shape.
#[derive(Debug)]
pub struct Program {
    /// The name of the shape.
    pub name: &'static str,
    /// The most tokens of one call.
    pub max_tokens: usize,
    /// Outputs other than logits and state: name, arena offset in bytes, f32 elements.
    pub probes: Vec<(String, u64, Extent)>,
    /// In order; each starts when the one before is complete.
    pub launches: Vec<Launch>,
}

/// One call of a kernel.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Index into [`Plan::kernels`].
    pub kernel: usize,
    /// Iterations of the parallel loop.
    pub grid: Extent,
    /// One per parameter.
    pub args: Vec<Place>,
    /// Weight bytes that it reads.
    pub weight_bytes: u64,
    /// Whether it leaves out the weights of activations that are zero.
    pub skips_zeros: bool,
    /// What it computes, for people.
    pub label: String,
}

/// Where a value lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A weight buffer.
    Weight(usize),
    /// Byte offset into the state.
    State(u64),
    /// Byte offset into the arena.
    Arena(u64),
    /// The token ids.
    Tokens,
    /// The logits.
    Logits,
    /// How the next token of each state is chosen.
    Sampler,
    /// How many tokens of each state were chosen.
    Counts,
}

/// Why a graph cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A graph does not have the form of a step.
    #[error("graph `{graph}`: {reason}")]
    Graph {
        /// The graph.
        graph: String,
        /// What is the matter.
        reason: String,
    },
    /// A schedule produced a kernel that does not verify: a bug of the schedule.
    #[error("the schedule of `{op}` produced an invalid kernel: {source}\n{text}")]
    Kernel {
        /// The op.
        op: String,
        /// What is wrong.
        source: KernelError,
        /// The kernel.
        text: String,
    },
}

impl Plan {
    /// Gives a part of the state its value in a fresh state: the only output of a graph over weights.
    pub fn set_initial(&mut self, state: usize, name: String, value: Graph) {
        let slot = &mut self.state[state];
        slot.init = Some(self.weights.len());
        let (shape, source) = (slot.shape.clone(), Source::Computed(value));
        self.weights.push(Weight {
            name,
            dtype: DType::F32,
            shape,
            source,
            layout: Layout::RowMajor,
            codes: None,
        });
    }
}

impl Plan {
    /// Adds a program that chooses the next token of each of up to `states` states on a GPU, where the logits are.
    pub fn add_sampler(
        &mut self,
        vocab: usize,
        states: usize,
        features: &GpuFeatures,
    ) -> Result<(), PlanError> {
        let sampler = schedule::sampler(vocab as i64, features);
        // What a step leaves in the arena is not needed any more.
        let mut arena = Arena::default();
        let scratch = sampler.scratch.iter().map(|&words| {
            let bytes = words.unsigned_abs() * states as u64 * DType::I32.size() as u64;
            Place::Arena(arena.take(bytes))
        });
        let scratch: Vec<Place> = scratch.collect();
        self.arena_bytes = self.arena_bytes.max(arena.size());
        let mut launches = vec![];
        for (kernel, buffers) in sampler.steps {
            let text = kernel.to_string();
            let kernel = rwkvc_ir::kernel::verify::verify(kernel).map_err(|source| PlanError::Kernel {
                op: "sample".into(),
                source,
                text,
            })?;
            let place = |buffer: &SamplerBuffer| match *buffer {
                SamplerBuffer::Logits => Place::Logits,
                SamplerBuffer::Options => Place::Sampler,
                SamplerBuffer::Counts => Place::Counts,
                SamplerBuffer::Tokens => Place::Tokens,
                SamplerBuffer::Scratch(part) => scratch[part],
            };
            launches.push(Launch {
                kernel: self.kernels.len(),
                grid: kernel.grid,
                args: buffers.iter().map(place).collect(),
                weight_bytes: 0,
                skips_zeros: false,
                label: "sample".into(),
            });
            self.kernels.push(kernel);
        }
        self.programs.push(Program {
            name: "sample",
            max_tokens: states,
            probes: vec![],
            launches,
        });
        Ok(())
    }
}

/// Plans all shapes of one model for one target.
pub fn plan(shapes: &[Shape<'_>], features: &Features) -> Result<Plan, PlanError> {
    let mut planner = Planner {
        features,
        plan: Plan {
            kernels: vec![],
            weights: vec![],
            state: vec![],
            arena_bytes: 0,
            programs: vec![],
        },
        kernels: HashMap::new(),
        weights: HashMap::new(),
    };
    for shape in shapes {
        planner.program(shape)?;
    }
    Ok(planner.plan)
}

struct Planner<'f> {
    features: &'f Features,
    plan: Plan,
    /// Kernels by their text without the name.
    kernels: HashMap<String, usize>,
    /// Weights by the text of what they are made of.
    weights: HashMap<String, usize>,
}

/// Where everything is that an op's kernels touch.
struct Places {
    of: HashMap<Value, Place>,
    /// Arena offsets of scratch memory, by op and number.
    scratch: HashMap<(NodeId, usize), u64>,
}

/// An op with its kernels, or two that are one launch.
struct Step {
    /// The op that it is named after.
    node: NodeId,
    operands: Vec<Value>,
    results: Vec<Value>,
    /// The operand that is updated in place and the result that it becomes.
    in_place: Option<(usize, usize)>,
    /// Whether the last operand becomes what the last but one is.
    carries: bool,
    scheduled: Vec<Scheduled>,
}

impl Step {
    /// Without its kernels.
    fn new(graph: &Graph, node: NodeId, joined: &[Joined]) -> Self {
        let mut operands = graph.operands(node);
        let mut results: Vec<Value> = (0..graph.results(node)).map(|i| graph.value(node, i)).collect();
        let mut in_place = schedule::in_place(graph.op(node), operands.len());
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

    /// The value that is carried to another place, and the one whose place that is.
    fn carried(&self) -> Option<(Value, Value)> {
        match self.operands[..] {
            [.., from, to] if self.carries => Some((from, to)),
            _ => None,
        }
    }

    /// The kernels, for up to `most` tokens of a call.
    fn schedule(
        &self,
        graph: &Graph,
        joined: &[Joined],
        features: &Features,
        most: i64,
    ) -> Result<Vec<Scheduled>, String> {
        let tensors = |values: &[Value]| -> Result<Vec<Tensor>, String> {
            values.iter().map(|&v| tensor(graph, v)).collect()
        };
        let (operands, results) = (tensors(&self.operands)?, tensors(&self.results)?);
        let joined = joined.iter().find(|j| j.group == self.node);
        match (joined, features) {
            (Some(joined), Features::Gpu(features)) => {
                let (Op::NormShiftMix(norm), Op::LinearGroup(group)) =
                    (graph.op(joined.norm), graph.op(joined.group))
                else {
                    return Err("a token shift and products were joined that are none".into());
                };
                let prologue = Prologue {
                    eps: norm.eps,
                    n_mixes: graph.results(joined.norm) - 1,
                    mixes: &joined.mixes,
                };
                schedule::joined(&prologue, group, &operands, &results, features)
            }
            (None, Features::Gpu(features)) if self.carries => {
                schedule::carrying(graph.op(self.node), &operands, &results, features, most)
            }
            _ => schedule::schedule(graph.op(self.node), &operands, &results, features, most),
        }
    }
}

impl Planner<'_> {
    fn program(&mut self, shape: &Shape<'_>) -> Result<(), PlanError> {
        let graph = shape.graph;
        let fail = |reason: String| PlanError::Graph {
            graph: graph.name().into(),
            reason,
        };
        self.state(graph).map_err(fail)?;
        if let Some((name, _)) = graph.outputs().iter().find(|(_, v)| is_narrow(graph, *v)) {
            return Err(fail(format!("output `{name}` is rounded to bf16, expected f32")));
        }

        let most = shape.max_tokens as i64;
        let joined = Joined::all(graph, self.features);
        let mut steps = vec![];
        for node in graph.topological() {
            if joined.iter().any(|j| j.norm == node)
                || matches!(graph.op(node), Op::Input(_))
                || viewed(graph, graph.value(node, 0)).is_some()
                || graph.is_constant(graph.value(node, 0))
            {
                continue;
            }
            let mut step = Step::new(graph, node, &joined);
            let scheduled = step.schedule(graph, &joined, self.features, most);
            step.scheduled = scheduled.map_err(fail)?;
            steps.push(step);
        }

        let places = self.places(shape, &steps).map_err(fail)?;
        let mut launches = vec![];
        for step in steps {
            let Step {
                node,
                operands,
                results,
                scheduled,
                ..
            } = step;
            let label = label(graph, node);
            for s in scheduled {
                let mut args = vec![];
                for slot in &s.args {
                    args.push(match *slot {
                        Slot::Operand(i) => places.of[&root(graph, operands[i])],
                        Slot::Result(i) => places.of[&results[i]],
                        Slot::Scratch { number, .. } => Place::Arena(places.scratch[&(node, number)]),
                        Slot::OperandPart(i, part) => {
                            let value = root(graph, operands[i]);
                            part_of(
                                places.of[&value],
                                part,
                                &tensor(graph, value).map_err(fail)?,
                                shape,
                            )
                        }
                        Slot::ResultPart(i, part) => {
                            let value = results[i];
                            part_of(
                                places.of[&value],
                                part,
                                &tensor(graph, value).map_err(fail)?,
                                shape,
                            )
                        }
                        Slot::Packed { operand, part, width } => {
                            let matrix = root(graph, operands[operand]);
                            Place::Weight(self.packed(graph, matrix, part, width).map_err(fail)?)
                        }
                        Slot::Panels { operand, width } => {
                            let matrix = root(graph, operands[operand]);
                            let layout = Layout::Panels {
                                width: width as usize,
                            };
                            Place::Weight(self.weight(graph, matrix, true, layout).map_err(fail)?)
                        }
                    });
                }
                let weight_bytes = self.weight_bytes(graph, node, &args);
                let grid = s.kernel.grid;
                let kernel = self.kernel(s.kernel, graph.op(node))?;
                launches.push(Launch {
                    kernel,
                    grid,
                    args,
                    weight_bytes,
                    skips_zeros: skips_zeros(graph.op(node)),
                    label: label.clone(),
                });
            }
        }
        let probes = graph
            .outputs()
            .iter()
            .filter(|(name, _)| self.plan.state.iter().all(|part| part.name != *name))
            .filter_map(|(name, value)| match places.of.get(&root(graph, *value)) {
                Some(&Place::Arena(offset)) => tensor(graph, *value)
                    .ok()
                    .map(|t| (name.clone(), offset, t.len())),
                _ => None,
            })
            .collect();
        self.plan.programs.push(Program {
            name: shape.name,
            max_tokens: shape.max_tokens,
            probes,
            launches,
        });
        Ok(())
    }

    /// The state of a graph is its f32 inputs; all shapes of a step have the same.
    fn state(&mut self, graph: &Graph) -> Result<(), String> {
        let mut offset = 0;
        let mut state = vec![];
        for (name, ty) in graph.inputs() {
            if ty.dtype != DType::F32 {
                continue;
            }
            let of_one = ty.shape.iter().skip(1);
            let shape: Option<Vec<usize>> = of_one.map(|d| d.as_fixed()).collect();
            let shape = shape.ok_or_else(|| format!("state `{name}` is {ty}, expected a fixed shape"))?;
            let len: usize = shape.iter().product();
            state.push(State {
                name,
                shape,
                offset,
                init: None,
            });
            offset += len as u64;
        }
        if self.plan.state.is_empty() {
            self.plan.state = state;
        } else if self.plan.state != state {
            return Err("its state differs from that of the shapes before it".into());
        }
        Ok(())
    }

    /// Gives every value that a kernel touches its place, but panels.
    fn places(&mut self, shape: &Shape<'_>, steps: &[Step]) -> Result<Places, String> {
        let graph = shape.graph;
        let mut places = HashMap::new();
        let mut scratch = HashMap::new();
        for node in graph.topological() {
            if let Op::Input(input) = graph.op(node) {
                let value = graph.value(node, 0);
                let slot = self.plan.state.iter().find(|s| s.name == input.name);
                let place = slot.map_or(Place::Tokens, |s| Place::State(4 * s.offset * shape.states()));
                places.insert(value, place);
            }
        }
        for (name, value) in graph.outputs() {
            if name == "logits" {
                places.insert(root(graph, *value), Place::Logits);
            }
        }
        // When each value was last read: an index into `steps`, or never freed for outputs.
        let mut last_use: HashMap<Value, usize> = HashMap::new();
        for (i, step) in steps.iter().enumerate() {
            for &v in &step.operands {
                last_use.insert(root(graph, v), i);
            }
        }
        let carried: HashMap<Value, Value> = steps.iter().filter_map(Step::carried).collect();
        for (_, value) in graph.outputs() {
            if !carried.contains_key(value) {
                last_use.insert(root(graph, *value), usize::MAX);
            }
        }
        let mut arena = Arena::default();
        for (i, step) in steps.iter().enumerate() {
            let slots = || step.scheduled.iter().flat_map(|s| &s.args);
            for (i, &v) in step.operands.iter().enumerate() {
                let v = root(graph, v);
                if graph.is_constant(v) && !places.contains_key(&v) && slots().any(|s| *s == Slot::Operand(i))
                {
                    let index = self.weight(graph, v, keeps_format(graph, v), Layout::RowMajor)?;
                    places.insert(v, Place::Weight(index));
                }
            }
            for (r, &value) in step.results.iter().enumerate() {
                if let Some((operand, _)) = step.in_place.filter(|&(_, result)| result == r) {
                    let state = root(graph, step.operands[operand]);
                    self.check_in_place(graph, steps, i, state, value)?;
                    places.insert(value, places[&state]);
                } else if let Entry::Vacant(place) = places.entry(value) {
                    let tensor = tensor(graph, value)?;
                    let tokens = shape.max_tokens as i64;
                    let bytes = match tensor.quantized {
                        Some(_) => Part::Codes.place(tensor.len(), tokens).1,
                        None => tensor.len().at(tokens) as u64 * tensor.dtype.size() as u64,
                    };
                    place.insert(Place::Arena(arena.take(bytes)));
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
                if let Some(&Place::Arena(offset)) = places.get(v) {
                    arena.give_back(offset);
                }
            }
        }
        self.plan.arena_bytes = self.plan.arena_bytes.max(arena.size());
        self.check_next_state(shape, &places, &carried)?;
        Ok(Places { of: places, scratch })
    }

    /// The next value of each part of the state must be where the part is, or be carried there.
    fn check_next_state(
        &self,
        shape: &Shape<'_>,
        places: &HashMap<Value, Place>,
        carried: &HashMap<Value, Value>,
    ) -> Result<(), String> {
        let graph = shape.graph;
        for slot in &self.plan.state {
            let next = graph.output(&slot.name).map(|v| root(graph, v));
            let next = next.map(|v| carried.get(&v).copied().unwrap_or(v));
            let stays = Place::State(4 * slot.offset * shape.states());
            if next.is_some_and(|v| places.get(&v) != Some(&stays)) {
                return Err(format!(
                    "the next value of state `{}` is not an update in place",
                    slot.name
                ));
            }
        }
        Ok(())
    }

    /// Updating a state in place is right if the state is read by nobody later and the result is its next value.
    fn check_in_place(
        &self,
        graph: &Graph,
        steps: &[Step],
        i: usize,
        state: Value,
        next: Value,
    ) -> Result<(), String> {
        let Op::Input(input) = graph.op(state.node) else {
            return Err(format!(
                "`{}` updates a value that is not an input",
                label(graph, steps[i].node)
            ));
        };
        if let Some(late) = steps[i + 1..]
            .iter()
            .find(|s| s.operands.iter().any(|&v| root(graph, v) == state))
        {
            return Err(format!(
                "`{}` reads state `{}` after it was updated",
                label(graph, late.node),
                input.name
            ));
        }
        let named = |(name, v): &(String, Value)| *name == input.name && root(graph, *v) == next;
        if graph.outputs().iter().any(named) {
            Ok(())
        } else {
            Err(format!(
                "the next value of state `{}` is not the output of that name",
                input.name
            ))
        }
    }

    /// The weight buffer of a value that depends only on weights. Matrices keep the format they are stored in; vectors
    /// become f32, which costs little and spares every kernel the conversion.
    fn weight(&mut self, graph: &Graph, value: Value, keep: bool, layout: Layout) -> Result<usize, String> {
        let part = graph.extract(value);
        let key = format!("{keep} {layout:?} {part}");
        if let Some(&index) = self.weights.get(&key) {
            return Ok(index);
        }
        let ty = graph.ty(value);
        let shape = fixed_shape(ty)?;
        let dtype = if keep { ty.dtype } else { DType::F32 };
        let source = match graph.op(value.node) {
            Op::Param(p) if dtype == ty.dtype => Source::Stored(p.name.clone()),
            _ => Source::Computed(part),
        };
        let index = self.plan.weights.len();
        self.plan.weights.push(Weight {
            name: weight_name(graph, value),
            dtype,
            shape: layout.shape(shape),
            source,
            layout,
            codes: None,
        });
        self.weights.insert(key, index);
        Ok(index)
    }

    /// The weight buffer of a part of a quantised matrix.
    fn packed(&mut self, graph: &Graph, value: Value, part: Part, width: i64) -> Result<usize, String> {
        let Op::Quantize(quantize) = graph.op(value.node) else {
            return Err(format!("`{}` is not quantised", weight_name(graph, value)));
        };
        let packing = Packing::of(quantize, width);
        let of = graph.extract(value);
        let key = |part| format!("{packing:?} {part:?} {of}");
        if let Some(&index) = self.weights.get(&key(part)) {
            return Ok(index);
        }
        let codes = match part {
            Part::Codes => None,
            _ => Some(self.packed(graph, value, Part::Codes, width)?),
        };
        let exact = graph.operands(value.node)[0];
        let ty = graph.ty(exact);
        let [rows, columns] = fixed_shape(ty)?[..] else {
            return Err(format!("a quantised weight is {ty}, expected a matrix"));
        };
        let source = match graph.op(exact.node) {
            Op::Param(p) => Source::Stored(p.name.clone()),
            _ => Source::Computed(graph.extract(exact)),
        };
        let index = self.plan.weights.len();
        self.plan.weights.push(Weight {
            name: format!(
                "{} ({} {})",
                weight_name(graph, exact),
                packing.format,
                part.name()
            ),
            dtype: part.of_weights(packing.format, 0).0,
            shape: packing.shape([rows, columns], part),
            source,
            layout: Layout::Packed {
                packing,
                matrix: [rows, columns],
                part,
            },
            codes,
        });
        self.weights.insert(key(part), index);
        Ok(index)
    }

    /// Weight bytes that a launch reads: whole buffers, but single rows of a looked-up table.
    fn weight_bytes(&self, graph: &Graph, node: NodeId, args: &[Place]) -> u64 {
        let is_lookup = matches!(graph.op(node), Op::Embed(_));
        let bytes = |place: &Place| match *place {
            Place::Weight(i) => {
                let w = &self.plan.weights[i];
                let rows = if is_lookup { w.shape[0].max(1) } else { 1 };
                (w.shape.iter().product::<usize>() / rows * w.dtype.size()) as u64
            }
            _ => 0,
        };
        args.iter().map(bytes).sum()
    }

    fn kernel(&mut self, mut kernel: Kernel, op: &Op) -> Result<usize, PlanError> {
        let name = std::mem::replace(&mut kernel.name, "k".into());
        let key = kernel.to_string();
        if let Some(&index) = self.kernels.get(&key) {
            return Ok(index);
        }
        let taken = |name: &str| self.plan.kernels.iter().any(|k| k.name == name);
        let numbered = (2..).map(|n| format!("{name}_{n}"));
        kernel.name = std::iter::once(name.clone())
            .chain(numbered)
            .find(|n| !taken(n))
            .expect("endless");
        let text = kernel.to_string();
        let kernel = rwkvc_ir::kernel::verify::verify(kernel).map_err(|source| PlanError::Kernel {
            op: format!("{op:?}"),
            source,
            text,
        })?;
        let index = self.plan.kernels.len();
        self.plan.kernels.push(kernel);
        self.kernels.insert(key, index);
        Ok(index)
    }
}

/// Whether an op leaves out weights of activations that are zero.
fn skips_zeros(op: &Op) -> bool {
    matches!(op, Op::LinearGroup(group) if group.members.iter().any(|m| m.skip_zeros))
}

/// Whether a weight is used as a matrix, which keeps its stored format.
fn keeps_format(graph: &Graph, value: Value) -> bool {
    graph
        .users(value)
        .iter()
        .any(|&(user, operand)| match graph.op(user) {
            Op::Linear(_) => operand == 1,
            Op::Embed(_) => operand == 0,
            Op::Contract(_) => operand == 1,
            Op::LinearGroup(group) => group.weight_operands().any(|i| i == operand),
            _ => false,
        })
}

/// The axes of a weight.
fn fixed_shape(ty: &TensorType) -> Result<Vec<usize>, String> {
    let shape: Option<Vec<usize>> = ty.shape.iter().map(|d| d.as_fixed()).collect();
    shape.ok_or_else(|| format!("a weight is {ty}, expected a fixed shape"))
}

/// The names of the weights that a value is computed of.
fn weight_name(graph: &Graph, value: Value) -> String {
    let params = graph.extract(value).params();
    let mut names: Vec<String> = params.into_iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    match names.is_empty() {
        true => "constant".into(),
        false => names.join(" + "),
    }
}

/// Where a part of quantised activations is.
fn part_of(place: Place, part: Part, tensor: &Tensor, shape: &Shape<'_>) -> Place {
    match place {
        Place::Arena(offset) => Place::Arena(offset + part.place(tensor.len(), shape.max_tokens as i64).0),
        other => other,
    }
}

/// The value whose buffer a value is.
fn root(graph: &Graph, mut value: Value) -> Value {
    while !graph.is_constant(value)
        && let Some(viewed) = viewed(graph, value)
    {
        value = viewed;
    }
    value
}

/// The operand of which a value is another view: of a reshape, and of a rounding that is done where the operand is stored.
fn viewed(graph: &Graph, value: Value) -> Option<Value> {
    match graph.op(value.node) {
        Op::Reshape(_) => Some(graph.operands(value.node)[0]),
        Op::ToBf16(_) => Some(graph.operands(value.node)[0]).filter(|&x| is_stored_as_bf16(graph, x)),
        _ => None,
    }
}

/// Whether a value is computed and is bf16.
fn is_narrow(graph: &Graph, value: Value) -> bool {
    !graph.is_constant(value) && graph.ty(value).dtype == DType::BF16
}

/// Whether the buffer of an f32 value has its elements as bf16: it is computed here, and read in no other form.
fn is_stored_as_bf16(graph: &Graph, mut value: Value) -> bool {
    fn is_read_as_bf16(graph: &Graph, value: Value) -> bool {
        let users = graph.users(value);
        let is_output = graph.outputs().iter().any(|(_, output)| *output == value);
        let mut reads = users.iter().map(|&(user, _)| match graph.op(user) {
            Op::ToBf16(_) => true,
            Op::Reshape(_) => is_read_as_bf16(graph, graph.value(user, 0)),
            _ => false,
        });
        !is_output && !users.is_empty() && reads.all(|r| r)
    }
    while matches!(graph.op(value.node), Op::Reshape(_)) {
        value = graph.operands(value.node)[0];
    }
    let is_computed = !matches!(graph.op(value.node), Op::Input(_)) && !graph.is_constant(value);
    is_computed && graph.ty(value).dtype == DType::F32 && is_read_as_bf16(graph, value)
}

/// The shape of a value for a schedule. Tokens of one state and members of a batch are both counted in `T`.
fn tensor(graph: &Graph, value: Value) -> Result<Tensor, String> {
    let ty: &TensorType = graph.ty(value);
    if ty.shape.contains(&Dim::Batch) && ty.shape.contains(&Dim::Time) {
        return Err(format!(
            "a value is {ty}: the batch or the time must be fixed before planning"
        ));
    }
    let dim = |d: &Dim| match d {
        Dim::Fixed(n) => Extent::fixed(*n as i64),
        Dim::Time | Dim::Batch => Extent::per_token(1),
    };
    let shape = ty.shape.iter().map(dim).collect();
    let is_weight = graph.is_constant(value);
    let quantized = match graph.op(value.node) {
        Op::Quantize(quantize) => Some(quantize.clone()),
        _ => None,
    };
    let dtype = if is_weight && !keeps_format(graph, value) {
        DType::F32
    } else if is_stored_as_bf16(graph, value) {
        DType::BF16
    } else {
        ty.dtype
    };
    Ok(Tensor {
        dtype,
        shape,
        quantized,
    })
}

/// `blocks.3.linear_group`: the block by the first weight or state that names one, and the op.
fn label(graph: &Graph, node: NodeId) -> String {
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
