//! The Cranelift backend as a whole: objects, number formats, and results against the Kernel evaluator.

mod differential;
mod formats;
mod generated;
mod kernels;
mod loaded;
mod objects;
