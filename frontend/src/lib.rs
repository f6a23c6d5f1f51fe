//! From checkpoint bytes to the graph of a model.
//!
//! ```text
//! bytes ── checkpoint (.pth, .safetensors, Hugging Face, GGUF) ──> Checkpoint ── model ──> Model ── build ──> Graph
//! ```
//!
//! **Invariant:** file formats end at [`model::Model`]: what follows sees official names and checked shapes only.
//! **Invariant:** a checkpoint is the only untrusted input of the compiler; nothing in it is executed, and any byte string
//! gives a model or an error that names what is wrong.

pub mod build;
pub mod checkpoint;
pub mod generate;
pub mod model;
pub mod summary;
pub mod write;
