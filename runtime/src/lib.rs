//! The tiny runtime.

pub mod manifest;
