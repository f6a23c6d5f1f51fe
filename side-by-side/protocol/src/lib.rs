//! What the side-by-side bench and the engines that it measures say to each other.
//!
//! ```text
//! bench ── Worker ── stdin:  a Request a line ──> serve ── Engine
//!                 <─ stdout: Ready, then an Answer a line
//! ```
//!
//! Each engine is a process of its own, so that its memory is its own too and no two of them share threads. What is
//! measured, and on which tokens, is written here once, for all engines.

mod memory;
mod serve;
mod worker;

use serde::{Deserialize, Serialize};

pub use memory::peak_memory;
pub use serve::{Engine, Opened, serve};
pub use worker::Worker;

/// What an engine says first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// Its name and version.
    pub engine: String,
    /// What it was built with.
    pub built: String,
    /// From a path to a model that can take a token, seconds.
    pub load_s: f64,
    /// From a path to the logits after one token, seconds.
    pub first_token_s: f64,
}

/// What an engine is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// So many tokens, one after the other, each with its logits; the state is carried on.
    Decode(usize),
    /// So many tokens at once, from a fresh state, with the logits after the last.
    Prefill(usize),
    /// The logits after so many tokens from a fresh state.
    Logits(usize),
    /// The most memory that the process has had.
    Peak,
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Decode`] and [`Request::Prefill`]: how long it took.
    Seconds(f64),
    /// To [`Request::Logits`].
    Logits(Vec<f32>),
    /// To [`Request::Peak`]; nothing where the system does not tell.
    Bytes(Option<u64>),
}

/// The token at a position of all texts: any of the vocabulary, all different as far as there are so many.
pub fn token(position: usize, vocab: usize) -> u32 {
    // A prime, so that it walks through all of a vocabulary that is not a multiple of it.
    (position * 7919 % vocab.max(1)) as u32
}
