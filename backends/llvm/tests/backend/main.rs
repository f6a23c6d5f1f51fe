//! The LLVM backend as a whole: objects, and the kernels of the Cranelift backend's tests, so that both are held to the
//! same.

#[path = "../../../cranelift/tests/backend/differential.rs"]
mod differential;
#[path = "../../../cranelift/tests/backend/formats.rs"]
mod formats;
#[path = "../../../cranelift/tests/backend/generated.rs"]
mod generated;
#[path = "../../../cranelift/tests/backend/kernels.rs"]
mod kernels;
mod loaded;
mod objects;
