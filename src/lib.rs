//! The line from a checkpoint to tokens, as a library: what the `rwkvc` command line is made of.
//!
//! [`compile::compile`] is the compiler in one function; [`load`] makes its result ready to run, and
//! [`mod@reference`] is the evaluator that it is compared with.

pub mod backends;
pub mod compile;
pub mod golden;
pub mod load;
mod manifest;
pub mod measure;
pub mod reference;
pub mod roof;
pub mod tables;
pub mod tune;
pub mod values;
pub mod weights;

/// The programs in the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
