//! From the equations to launches: rewrites of the graph, schedules of its ops, and the plan of buffers.
//!
//! ```text
//! Graph ── pipeline (fold, fuse: each pass by name) ──> Graph ── schedule (op → kernels) ── plan (launches, arena) ──> Plan
//! ```
//!
//! **Invariant:** a pass never changes what a graph computes, beyond rounding; every one is tested by evaluation before
//! and after.
//! **Invariant:** nothing here knows a target's name; schedules ask `Features`.

pub mod bf16_activations;
mod cse;
mod fold;
pub mod fuel;
mod fuse_epilogue;
mod fuse_lora;
mod fuse_norm;
mod fuse_token_shift;
mod fuse_wkv7;
mod matching;
mod merge_projections;
pub mod pipeline;
pub mod plan;
mod projection;
pub mod quantize;
pub mod schedule;
pub mod settings;
mod skip_zero_activations;
pub mod storage;
