//! Runs a plan launch by launch, on any [`Machine`]: the evaluator of kernels, or code of a backend.
//!
//! Every launch gets copies of exactly its buffers, so an access beyond the end of one is found even where other values
//! lie there. What a kernel is to write holds NaN before.
//!
//! ```text
//! let mut run = Interpreter::new(&plan, &params)?;
//! run.set_state("blocks.0.att.wkv", &values);
//! run.call(0, &[5, 1, 3], &Evaluator)?;
//! for (name, values) in run.outputs(0) { … }
//! ```

use rwkvc_abi::{Arg, Launch};
use rwkvc_ir::DType;
use rwkvc_ir::graph::eval::{ParamSource, eval_const};
use rwkvc_ir::kernel::{Access, Kernel, Param};
use rwkvc_passes::plan::{Plan, Source, Weight};
use rwkvc_passes::storage::Layout;

/// A launch as a machine sees it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'p> {
    /// Index of the kernel in the plan.
    pub index: usize,
    /// The kernel.
    pub kernel: &'p Kernel,
    /// What it computes, for people.
    pub label: &'p str,
    /// Tokens of the call.
    pub tokens: i64,
}

/// What runs kernels.
pub trait Machine {
    /// Runs all iterations of a kernel. A buffer has exactly the bytes of its parameter.
    ///
    /// # Errors
    /// What went wrong.
    fn launch(&self, call: &Call<'_>, buffers: &mut [Vec<u8>]) -> Result<(), String>;
}

/// The reference evaluator of kernels.
#[derive(Clone, Copy, Debug)]
pub struct Evaluator;

impl Machine for Evaluator {
    fn launch(&self, call: &Call<'_>, buffers: &mut [Vec<u8>]) -> Result<(), String> {
        rwkvc_ir::kernel::eval::run(call.kernel, buffers, call.tokens).map_err(|e| e.to_string())
    }
}

/// The memory of one caller of a plan.
#[derive(Clone, Debug)]
pub struct Interpreter<'p> {
    plan: &'p Plan,
    /// How many states the memory has room for: each part of the state has a row for each.
    states: usize,
    weights: Vec<Vec<u8>>,
    state: Vec<u8>,
    arena: Vec<u8>,
    tokens: Vec<u8>,
    logits: Vec<u8>,
}

/// Bytes that are NaN as f32, and far from any table as i32.
const UNDEFINED: u8 = 0xff;

impl<'p> Interpreter<'p> {
    /// A fresh state, with weights from `params`.
    ///
    /// # Errors
    /// If a weight is missing or cannot be computed.
    pub fn new(plan: &'p Plan, params: &dyn ParamSource) -> Result<Self, String> {
        Self::of_batch(plan, params, 1)
    }

    /// Fresh states of a batch of at most `states`: the most tokens of the batched program.
    ///
    /// # Errors
    /// If a weight is missing or cannot be computed.
    pub fn of_batch(plan: &'p Plan, params: &dyn ParamSource, states: usize) -> Result<Self, String> {
        let weights = plan
            .weights
            .iter()
            .map(|w| bytes_of(w, params).map_err(|e| format!("weight `{}`: {e}", w.name)))
            .collect::<Result<Vec<_>, _>>()?;
        let mut state = vec![];
        for slot in &plan.state {
            match slot.init {
                Some(weight) => state.extend(weights[weight].repeat(states)),
                None => state.resize(state.len() + 4 * states * slot.shape.iter().product::<usize>(), 0),
            }
        }
        Ok(Interpreter {
            plan,
            states,
            weights,
            state,
            arena: vec![UNDEFINED; plan.arena_bytes as usize],
            tokens: vec![],
            logits: vec![],
        })
    }

    /// Sets a part of the state, of the first members of a batch.
    ///
    /// # Panics
    /// If there is no such part, or it has another size.
    pub fn set_state(&mut self, name: &str, values: &[f64]) {
        let range = self.state_range(name, self.states).expect("a part of the state");
        let slot = self
            .plan
            .state
            .iter()
            .find(|s| s.name == name)
            .expect("a part of the state");
        let len = slot.shape.iter().product();
        assert!(
            range.len() >= 4 * values.len() && values.len().is_multiple_of(len),
            "elements of `{name}`"
        );
        let range = range.start..range.start + 4 * values.len();
        let part = self.state[range].as_chunks_mut::<4>().0;
        for (bytes, value) in part.iter_mut().zip(values) {
            *bytes = (*value as f32).to_le_bytes();
        }
    }

    /// The bytes of a part of the first `members` states.
    fn state_range(&self, name: &str, members: usize) -> Option<std::ops::Range<usize>> {
        let slot = self.plan.state.iter().find(|s| s.name == name)?;
        let start = 4 * slot.offset as usize * self.states;
        Some(start..start + 4 * members * slot.shape.iter().product::<usize>())
    }

    /// Runs one program of the plan.
    ///
    /// # Errors
    /// If a launch fails, or its buffers overlap where it writes.
    pub fn call(&mut self, program: usize, tokens: &[u32], machine: &dyn Machine) -> Result<(), String> {
        let program = &self.plan.programs[program];
        self.tokens = tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
        self.logits.clear();
        self.arena.fill(UNDEFINED);
        let tokens = tokens.len() as i64;
        for launch in &program.launches {
            self.launch(launch, tokens, machine)
                .map_err(|e| format!("`{}`: {e}", launch.label))?;
        }
        Ok(())
    }

    fn launch(&mut self, launch: &Launch, tokens: i64, machine: &dyn Machine) -> Result<(), String> {
        let kernel: &'p Kernel = &self.plan.kernels[launch.kernel];
        if launch.args.len() != kernel.params.len() {
            return Err(format!("the launch does not fit kernel `{}`", kernel.name));
        }
        check_overlaps(launch, &kernel.params, tokens)?;
        let mut buffers = vec![];
        for (place, param) in launch.args.iter().zip(&kernel.params) {
            let bytes = self.bytes(place, param, tokens)?;
            buffers.push(match param.access {
                Access::Write => vec![UNDEFINED; bytes.len()],
                Access::Read | Access::ReadWrite => bytes.to_vec(),
            });
        }
        let call = Call {
            index: launch.kernel,
            kernel,
            label: &launch.label,
            tokens,
        };
        machine.launch(&call, &mut buffers)?;
        for ((place, param), buffer) in launch.args.iter().zip(&kernel.params).zip(buffers) {
            if param.access != Access::Read {
                self.bytes(place, param, tokens)?.copy_from_slice(&buffer);
            }
        }
        Ok(())
    }

    /// The bytes of an argument.
    fn bytes(&mut self, place: &Arg, param: &Param, tokens: i64) -> Result<&mut [u8], String> {
        let len = length(param, tokens);
        let (memory, offset) = match *place {
            Arg::Weight(index) => (&mut self.weights[index], 0),
            Arg::State(offset) => (&mut self.state, offset as usize),
            Arg::Arena(offset) => (&mut self.arena, offset as usize),
            Arg::Tokens => (&mut self.tokens, 0),
            Arg::Logits => {
                if self.logits.len() < len {
                    self.logits.resize(len, UNDEFINED);
                }
                (&mut self.logits, 0)
            }
            Arg::Sampler | Arg::Counts => return Err("choosing tokens is not interpreted".into()),
        };
        let has = memory.len();
        memory
            .get_mut(offset..offset + len)
            .ok_or_else(|| format!("`{}` is {len} bytes at {place:?}, which has {has}", param.name))
    }

    /// What the last call of this program left: logits, the state and the probes, by name.
    pub fn outputs(&self, program: usize) -> Vec<(String, Vec<f64>)> {
        let floats = |bytes: &[u8]| {
            let values = bytes.as_chunks::<4>().0.iter();
            values.map(|b| f64::from(f32::from_le_bytes(*b))).collect()
        };
        let mut outputs = vec![("logits".to_owned(), floats(&self.logits))];
        let members = if self.states == 1 {
            1
        } else {
            self.tokens.len() / 4
        };
        for slot in &self.plan.state {
            let range = self.state_range(&slot.name, members).expect("it is there");
            outputs.push((slot.name.clone(), floats(&self.state[range])));
        }
        let tokens = self.tokens.len() / 4;
        for probe in &self.plan.programs[program].probes {
            let elements = probe.elements.at(tokens).unwrap_or(0) as usize;
            let start = probe.offset as usize;
            outputs.push((
                probe.name.clone(),
                floats(&self.arena[start..start + 4 * elements]),
            ));
        }
        outputs
    }
}

fn length(param: &Param, tokens: i64) -> usize {
    param.len.at(tokens) as usize * param.dtype.size()
}

/// What is written overlaps nothing else that the launch touches.
fn check_overlaps(launch: &Launch, params: &[Param], tokens: i64) -> Result<(), String> {
    let range = |i: usize| match launch.args[i] {
        Arg::State(offset) | Arg::Arena(offset) => offset..offset + length(&params[i], tokens) as u64,
        _ => 0..1,
    };
    let same_memory = |i: usize, j: usize| match (launch.args[i], launch.args[j]) {
        (Arg::State(_), Arg::State(_)) | (Arg::Arena(_), Arg::Arena(_)) => true,
        (a, b) => a == b,
    };
    for i in (0..params.len()).filter(|&i| params[i].access != Access::Read) {
        for j in (0..params.len()).filter(|&j| j != i && same_memory(i, j)) {
            let (a, b) = (range(i), range(j));
            if a.start < b.end && b.start < a.end {
                let (a, b) = (&params[i].name, &params[j].name);
                return Err(format!("`{a}` is written and overlaps `{b}`"));
            }
        }
    }
    Ok(())
}

/// The elements of a weight buffer.
fn bytes_of(weight: &Weight, params: &dyn ParamSource) -> Result<Vec<u8>, String> {
    let is_packed = matches!(weight.layout, Layout::Packed { .. });
    let (dtype, stored) = match &weight.source {
        Source::Stored(name) => {
            let view = params.param(name).ok_or("there is no such weight")?;
            (view.dtype, view.bytes.to_vec())
        }
        Source::Computed(graph) => {
            let (_, value) = graph.outputs().first().ok_or("its graph has no output")?;
            let tensor = eval_const(graph, *value, params).map_err(|e| e.to_string())?;
            let dtype = if is_packed { DType::F32 } else { weight.dtype };
            let mut bytes = vec![0; tensor.values().len() * dtype.size()];
            for (i, &x) in tensor.values().iter().enumerate() {
                dtype.write(&mut bytes, i, x.into());
            }
            (dtype, bytes)
        }
    };
    if let Layout::Packed {
        packing,
        matrix,
        part,
    } = weight.layout
    {
        let mut packed = packing.pack(matrix, dtype, &stored);
        return Ok(std::mem::take(packed.part(part)));
    }
    let mut bytes = vec![0; weight.bytes() as usize];
    weight.arrange(&stored, &mut bytes);
    Ok(bytes)
}
