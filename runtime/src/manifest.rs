//! What an artifact says about itself: everything the runtime needs to run the code, as JSON.

use serde::{Deserialize, Serialize};

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
    /// Symbol names of the kernels in the code object.
    pub kernels: Vec<String>,
    /// The weight buffers, in the order that [`Arg::Weight`] counts.
    pub weights: Vec<WeightInfo>,
    /// The parts of a state, back to back f32 values in this order.
    pub state: Vec<StateSlot>,
    /// Bytes of scratch memory that any program needs.
    pub arena_bytes: u64,
    /// The compiled shapes of the step.
    pub programs: Vec<Program>,
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
    /// Bytes of weights that one decode step reads.
    pub bytes_per_token: u64,
    /// SHA-256 of the checkpoint's first MiB, length and tensor table: ties state files to a model.
    pub fingerprint: String,
}

/// The machine that the code was compiled for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetInfo {
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// Required instruction set extensions, by LLVM's names (`avx2`, `avx512f` …).
    pub extensions: Vec<String>,
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
    /// Extra results: `(name, arena offset in bytes, f32 elements per token)`; only programs built to be verified have any.
    pub probes: Vec<(String, u64, usize)>,
    /// The launches, in order. Each starts when the one before is complete.
    pub launches: Vec<Launch>,
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
}

/// One call of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// Index into [`Manifest::kernels`].
    pub kernel: usize,
    /// Iterations of the parallel loop: `grid.0 + grid.1 * tokens`.
    pub grid: (u64, u64),
    /// One per parameter of the kernel.
    pub args: Vec<Arg>,
    /// Weight bytes that the launch reads, for the bench.
    pub weight_bytes: u64,
    /// What the launch computes, for people: `blocks.3.ffn.key`.
    pub label: String,
}

/// Where a parameter of a kernel points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arg {
    /// The start of a weight buffer.
    Weight(usize),
    /// Byte offset into the state.
    State(u64),
    /// Byte offset into the arena.
    Arena(u64),
    /// The i32 token ids of this call.
    Tokens,
    /// The f32 logits.
    Logits,
}
