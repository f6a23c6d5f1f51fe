//! The tiny runtime.

mod memory;

pub mod manifest;
pub mod object;
