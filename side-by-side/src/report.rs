//! What was measured.

use rwkvc::measure::Spread;
use serde::{Deserialize, Serialize};

/// All of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The checkpoint's name.
    pub model: String,
    /// Its trained numbers.
    pub parameters: u64,
    /// The day, if it was given.
    pub date: Option<String>,
    /// The CPU.
    pub machine: String,
    /// The engines, each by its name and version with what it was built with.
    pub engines: Vec<(String, String)>,
    /// Samples of each rate.
    pub samples: usize,
    /// Tokens of a sample of decode.
    pub decode_tokens: usize,
    /// The roofs, for each number of threads.
    pub roofs: Vec<RoofRow>,
    /// Rates: all engines of a format one after the other, for each number of threads.
    pub speeds: Vec<SpeedRow>,
    /// Loading and memory: all engines of a format one after the other.
    pub loads: Vec<LoadRow>,
    /// From the checkpoint to the first token, for each backend.
    pub starts: Vec<StartRow>,
}

/// Who runs a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Engine {
    /// llama.cpp.
    #[serde(rename = "llama.cpp")]
    Llama,
    /// rwkvc.
    #[serde(rename = "rwkvc")]
    Rwkvc,
}

impl Engine {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Llama => "llama.cpp",
            Engine::Rwkvc => "rwkvc",
        }
    }
}

/// How fast this machine can be with some threads, measured between the samples.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoofRow {
    /// Threads.
    pub threads: u16,
    /// Read bandwidth, GB/s.
    pub memory: Spread,
    /// Arithmetic of f32, GFLOP/s.
    pub arithmetic: Spread,
}

/// An engine with a format and some threads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpeedRow {
    /// Threads.
    pub threads: u16,
    /// Bits of most weights.
    pub bits: u8,
    /// Who.
    pub engine: Engine,
    /// The weights: the format of the file that both read, or one of rwkvc's own.
    pub weights: String,
    /// Weight bytes of a token: all of the file but the embedding, of which a row is read.
    pub bytes_per_token: u64,
    /// Tokens a second, one after the other.
    pub decode: Spread,
    /// Of the other engine's rate with as many bits: the median of the ratios of neighbouring samples. Absent of that
    /// engine.
    pub decode_times: Option<f64>,
    /// Bytes a second of the median decode, of the memory roof.
    pub roof_share: f64,
    /// Prompts, by their length.
    pub prefill: Vec<PrefillRow>,
    /// How far the logits after a prompt are from those of the first row: the root of the mean square of the differences,
    /// of their deviation.
    pub difference: Option<f64>,
}

/// Prompts of one length.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PrefillRow {
    /// Tokens.
    pub tokens: usize,
    /// Tokens a second.
    pub speed: Spread,
    /// As [`SpeedRow::decode_times`].
    pub times: Option<f64>,
    /// Operations a second of the products with weights, of the arithmetic roof; of weights that are floats.
    pub peak_share: Option<f64>,
}

/// An engine that opens a file which is in the system's cache, in a process of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadRow {
    /// Bits of most weights.
    pub bits: u8,
    /// Who.
    pub engine: Engine,
    /// The weights, as in [`SpeedRow::weights`].
    pub weights: String,
    /// Bytes of all weights in the file.
    pub weight_bytes: u64,
    /// Until it can take a token, milliseconds.
    pub load_ms: Spread,
    /// Until the logits after one token, milliseconds.
    pub first_token_ms: Spread,
    /// The most memory until decode has run, bytes; nothing where the system does not tell.
    pub peak_decode: Option<u64>,
    /// The most memory until a prompt has been read too.
    pub peak_prefill: Option<u64>,
}

/// `rwkvc logits` of one token, from the start of the process to its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StartRow {
    /// The code generator.
    pub backend: String,
    /// The weights of the checkpoint.
    pub weights: String,
    /// Seconds.
    pub seconds: Spread,
}

/// So many threads, in words.
pub(crate) fn threads(n: u16) -> String {
    match n {
        1 => "1 thread".into(),
        n => format!("{n} threads"),
    }
}
