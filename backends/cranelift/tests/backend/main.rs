//! The Cranelift backend as a whole: objects, number formats, and results against the Kernel evaluator.

mod formats;
mod kernels;
mod loaded;
mod objects;
