//! The runtime as a whole, with a toy model of committed machine code.
#![cfg(target_arch = "x86_64")]

mod artifact;
mod model;
mod state;
mod toy;
