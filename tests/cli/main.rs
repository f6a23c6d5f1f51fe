//! The `rwkvc` command line as scripts see it: what goes to which stream, exit codes, files.
//!
//! Everything runs the real program on the small model that comes with the project, with the Cranelift backend, so
//! that the tests are the same wherever they run.

mod checkpoints;
mod generation;
mod harness;
mod interrupts;
mod measurements;
mod refusals;
mod stages;
mod tokens;
mod tuning;
mod usage;
