//! What an artifact says about itself: everything the runtime needs to run the code, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Arch, ManifestError, WEIGHT_ALIGN};

/// The format version this runtime reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// The contents of an artifact except the code and the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the writer.
    pub format: u32,
    /// The program that wrote it, with its version.
    pub producer: String,
    /// The model.
    pub model: ModelInfo,
    /// The machine the code needs.
    pub target: TargetInfo,
    /// The code generator: `llvm` or `cranelift`.
    pub backend: String,
    /// The passes that ran, in order.
    pub passes: Vec<String>,
    /// What schedules chose on a CPU, of what can be measured: fields and their values, for people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub schedule: BTreeMap<String, String>,
    /// The kernels in the code object.
    pub kernels: Vec<KernelInfo>,
    /// The weight buffers, in the order that [`Arg::Weight`] counts.
    pub weights: Vec<WeightInfo>,
    /// The parts of a state, back to back f32 values in this order.
    pub state: Vec<StateSlot>,
    /// Bytes of scratch memory that any program needs.
    pub arena_bytes: u64,
    /// The compiled shapes of the step.
    pub programs: Vec<Program>,
}

impl Manifest {
    /// Sets [`WeightInfo::bytes`] and [`WeightInfo::offset`] of all weights: one after the other, aligned.
    ///
    /// # Errors
    /// If a weight has an unknown dtype or impossible shape.
    pub fn place_weights(&mut self) -> Result<(), ManifestError> {
        let mut offset = 0u64;
        for weight in &mut self.weights {
            weight.bytes = weight.expected_bytes()?;
            weight.offset = offset;
            let end = offset
                .checked_add(weight.bytes)
                .and_then(|n| n.checked_next_multiple_of(WEIGHT_ALIGN));
            offset = end.ok_or_else(|| weight.error("ends beyond any file".into()))?;
        }
        Ok(())
    }

    /// Of each weight, whether some launch reads all of it: not of tables, of which a token needs a row.
    pub fn weights_read_whole(&self) -> Vec<bool> {
        let mut whole = vec![false; self.weights.len()];
        for launch in self.programs.iter().flat_map(|program| &program.launches) {
            let weights = launch.args.iter().filter_map(|arg| match *arg {
                Arg::Weight(i) => Some(i),
                _ => None,
            });
            let bytes: u64 = weights.clone().map(|i| self.weights[i].bytes).sum();
            if launch.weight_bytes >= bytes {
                weights.for_each(|i| whole[i] = true);
            }
        }
        whole
    }

    /// f32 values in a state.
    pub fn state_len(&self) -> u64 {
        let end = |slot: &StateSlot| slot.elements().and_then(|n| n.checked_add(slot.offset));
        self.state.last().and_then(end).unwrap_or(0)
    }

    /// Bytes of the state that a program advances.
    pub fn state_bytes(&self, program: &Program) -> u64 {
        let states = match program.kind {
            ProgramKind::Batch => program.max_tokens as u64,
            ProgramKind::Decode | ProgramKind::Prefill | ProgramKind::Score => 1,
            ProgramKind::Sample => 0,
        };
        // Checked: at most 2^34 values and 2^20 states.
        self.state_len() * 4 * states
    }

    /// Bytes of the logits that a program gives.
    pub fn logits_bytes(&self, program: &Program) -> u64 {
        let rows = if program.kind.has_all_logits() {
            program.max_tokens as u64
        } else {
            1
        };
        // Checked: at most 2^31 logits and 2^20 tokens.
        rows * self.model.vocab as u64 * 4
    }

    /// Whether the code runs on GPUs.
    pub fn is_for_gpus(&self) -> bool {
        self.target.arch == Arch::Cuda.name()
    }

    /// The program of a kind.
    pub fn program(&self, kind: ProgramKind) -> Option<&Program> {
        self.programs.iter().find(|p| p.kind == kind)
    }
}

/// Facts about the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// A name for people: the file it came from.
    pub name: String,
    /// Blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Channels of one head.
    pub head_size: usize,
    /// Rows of the embedding and of the head.
    pub vocab: usize,
    /// Hidden units of the channel mix.
    pub ffn: usize,
    /// Trained parameters in use.
    pub parameters: u64,
    /// Stored format of the matrices: `bf16`, `f16` or `f32`.
    pub dtype: String,
    /// What activations are rounded to in products of many tokens; `f32` if they are not.
    #[serde(default = "not_rounded")]
    pub activations: String,
    /// Bytes of weights that one decode step reads.
    pub bytes_per_token: u64,
    /// Ties state files and tunings to a model: SHA-256 of the names and shapes of its weights and of samples of their values as f32,
    /// whatever the layout and the format of the checkpoint.
    pub fingerprint: String,
}

/// Of manifests that say nothing about it.
fn not_rounded() -> String {
    "f32".into()
}

/// The machine that the code was compiled for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetInfo {
    /// `x86_64`, `aarch64` or `cuda`.
    pub arch: String,
    /// Required instruction set extensions, by LLVM's names (`avx2`, `avx512f` …); for GPUs the architectures whose
    /// instructions are used (`sm_80`, `sm_90` …), of which the highest is needed.
    pub extensions: Vec<String>,
}

/// A count that may depend on `tokens`, the number of tokens of a call: `fixed + per_token * tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// The part that does not depend on the number of tokens.
    pub fixed: u64,
    /// How much each token adds.
    pub per_token: u64,
}

impl Size {
    /// The value for some tokens; `None` if it does not fit.
    pub fn at(self, tokens: usize) -> Option<u64> {
        self.per_token.checked_mul(tokens as u64)?.checked_add(self.fixed)
    }
}

/// One function of the code object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelInfo {
    /// Its symbol name.
    pub symbol: String,
    /// Iterations of its parallel loop: blocks, on a GPU.
    pub grid: Size,
    /// Threads of a block on a GPU; 0 on CPUs.
    #[serde(default)]
    pub threads: u32,
    /// The buffers it takes, in order.
    pub params: Vec<ParamInfo>,
}

/// One buffer that a kernel takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamInfo {
    /// The bytes that the kernel may touch.
    pub bytes: Size,
    /// What it does with them.
    pub access: Access,
}

/// What a kernel does with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Only loads; no other buffer of the launch overlaps it for writing.
    Read,
    /// Only stores.
    Write,
    /// Loads and stores.
    ReadWrite,
}

/// One weight buffer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightInfo {
    /// Where it comes from: an official tensor name, or several joined by ` + `.
    pub name: String,
    /// `f32`, `f16`, `bf16` or `i32`.
    pub dtype: String,
    /// Its shape, row major.
    pub shape: Vec<usize>,
    /// Where it starts in the weight section of the artifact; a multiple of 64.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
}

/// One part of the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateSlot {
    /// `blocks.3.att.x_prev`, `blocks.3.att.wkv`, `blocks.3.ffn.x_prev`.
    pub name: String,
    /// Its shape, row major; `wkv` is [heads, value, key].
    pub shape: Vec<usize>,
    /// Index of the first f32 in the state.
    pub offset: u64,
    /// The f32 weight buffer with its value in a fresh state; zeros if none.
    pub init: Option<usize>,
}

/// A sequence of launches that advances a state by some tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// What it computes.
    pub kind: ProgramKind,
    /// The most tokens of one call; a decode program takes exactly 1.
    pub max_tokens: usize,
    /// Extra results; only programs built to be verified have any.
    pub probes: Vec<Probe>,
    /// The launches, in order. Each starts when the one before is complete.
    pub launches: Vec<Launch>,
}

/// A value in the arena that can be read after a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What it is: the name of a graph output.
    pub name: String,
    /// Byte offset into the arena.
    pub offset: u64,
    /// Its length in f32 values.
    pub elements: Size,
}

/// What a program takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgramKind {
    /// One token in, its logits out.
    Decode,
    /// Up to `max_tokens` tokens in, the logits of the last one out.
    Prefill,
    /// Up to `max_tokens` tokens in, the logits of every one out, `[tokens, vocab]`.
    Score,
    /// One token of each of up to `max_tokens` independent states in, the logits of every one out, `[tokens, vocab]`.
    ///
    /// [`Arg::State`] is an offset into a batch state. The part that starts at float `o` of one state starts at float
    /// `o * max_tokens` of the batch state, and has a row for each state there; so a batch state has
    /// `state_len * max_tokens` floats.
    Batch,
    /// The logits `[tokens, vocab]` of up to `max_tokens` states in, the next token of each out, to where the tokens are.
    /// Only for GPUs. All its buffers have a part for each state, and nothing else.
    Sample,
}

impl ProgramKind {
    /// Its name: `decode`, `prefill`, `score`, `batch` or `sample`.
    pub const fn name(self) -> &'static str {
        match self {
            ProgramKind::Decode => "decode",
            ProgramKind::Prefill => "prefill",
            ProgramKind::Score => "score",
            ProgramKind::Batch => "batch",
            ProgramKind::Sample => "sample",
        }
    }

    /// Whether each token of a call has logits, not only the last one.
    pub fn has_all_logits(self) -> bool {
        match self {
            ProgramKind::Decode | ProgramKind::Prefill => false,
            ProgramKind::Score | ProgramKind::Batch | ProgramKind::Sample => true,
        }
    }
}

impl std::fmt::Display for ProgramKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One call of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// Index into [`Manifest::kernels`].
    pub kernel: usize,
    /// One per parameter of the kernel.
    pub args: Vec<Arg>,
    /// Weight bytes that the launch reads, for the bench.
    pub weight_bytes: u64,
    /// Whether it leaves out the weights of activations that are zero: which ones it reads is not known before.
    #[serde(default)]
    pub skips_zeros: bool,
    /// What the launch computes, for people: `blocks.3.ffn.key`.
    pub label: String,
}

/// Where a parameter of a kernel points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arg {
    /// The start of a weight buffer.
    Weight(usize),
    /// Byte offset into the state, or the batch state of a [`ProgramKind::Batch`] program.
    State(u64),
    /// Byte offset into the arena.
    Arena(u64),
    /// The i32 token ids of this call.
    Tokens,
    /// The f32 logits, `[vocab]` or `[tokens, vocab]`.
    Logits,
    /// A [`SampleOptions`](crate::SampleOptions) for each state, which only a [`ProgramKind::Sample`] program reads.
    Sampler,
    /// A u32 for each state, which only a [`ProgramKind::Sample`] program counts on.
    Counts,
}
