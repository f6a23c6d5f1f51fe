//! The two intermediate representations of rwkvc.
//!
//! [`graph`] holds pure tensor values: the RWKV-7 equations and what the passes make of them. [`kernel`] holds
//! loops over buffers: what one launch does on a CPU thread or a GPU block. Both have a text form that
//! round-trips, a verifier and a reference evaluator.
//!
//! **Invariant:** nothing here does I/O, knows a target or depends on another crate of the workspace.

pub mod dtype;
pub mod graph;
pub mod kernel;
pub mod quantized;

mod verified;

pub use dtype::DType;
pub use verified::Verified;
