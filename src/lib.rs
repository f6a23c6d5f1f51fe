//! The line from a checkpoint to tokens, as a library: what the `rwkvc` command line is made of.
//!
//! [`compile::compile`] is the compiler in one function; [`engine`] runs its result, or the reference evaluator.

pub mod backends;
pub mod choose;
pub mod compile;
pub mod engine;
pub mod golden;
mod manifest;
pub mod measure;
pub mod roof;
pub mod tables;
pub mod tune;
pub mod values;
pub mod weights;
