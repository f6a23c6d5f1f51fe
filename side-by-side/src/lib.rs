//! rwkvc and llama.cpp side by side: the same checkpoint, the same tokens, in turn.
//!
//! ```text
//! MODEL ── files ──> GGUF files and compiled files ── measure ──> Report ── tables, chart ──> text, Markdown, SVG
//! ```
//!
//! **Invariant:** what is measured of one engine is measured of the other in the same way, one right after the other.

pub mod args;
pub mod chart;
pub mod files;
pub mod measure;
pub mod report;
pub mod tables;
