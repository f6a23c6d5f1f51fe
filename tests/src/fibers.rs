//! GPU kernels on this machine, where each thread of a GPU is a fiber.
//!
//! ```text
//! LLVM IR of a GPU ── text (calls what is in stand_ins) ── code (LLVM) ──► machine code ── grid, block, warp ──► buffers
//! ```
//!
//! The LLVM IR is the very one that becomes PTX. Only the target, the calling convention and the intrinsic functions of GPUs
//! are others: a fiber that comes to a barrier, a shuffle or a product of matrices waits until all fibers have come that are
//! concerned. Those of a warp run one after the other, so what they leave is the same every time.
//!
//! Found are: barriers, shuffles and products that not all threads reach, threads that wait for ever, and bytes that change
//! around a buffer. Not found are races and what PTX makes of the code.

mod block;
mod code;
mod driver;
mod grid;
mod memory;
mod model;
mod stand_ins;
mod text;
mod warp;

use std::sync::{Mutex, PoisonError};

use rwkvc::backends;
use rwkvc_backend_api::Target;
use rwkvc_ir::Verified;
use rwkvc_ir::kernel::Kernel;

use crate::interpret::{Call, Machine};

pub use driver::FiberDriver;
use grid::{Launch, Program};
use memory::Guarded;
pub use model::on_fibers;

/// Kernels of a GPU, made for this machine.
pub struct Fibers(Mutex<Program>);

impl Fibers {
    /// Compiles kernels as the backend `llvm` does it for a GPU.
    ///
    /// # Errors
    /// If the backend refuses a kernel, or its code has something for which there is no stand-in.
    pub fn compile(kernels: &[Verified<Kernel>], target: &Target) -> Result<Self, String> {
        let backend = backends::find(Some("llvm")).map_err(|error| error.to_string())?;
        let listing = backend
            .emit(kernels, target, "llvm")
            .map_err(|error| error.to_string())?;
        Self::of_listing(&String::from_utf8_lossy(&listing))
    }

    /// Compiles LLVM IR for GPUs.
    ///
    /// # Errors
    /// If it is none, or has something for which there is no stand-in.
    pub fn of_listing(text: &str) -> Result<Self, String> {
        Ok(Fibers(Mutex::new(Program::compile(text)?)))
    }

    /// Runs an entry on buffers, each of which gets guarded memory of its own at a multiple of 256 bytes, followed by a
    /// number. Blocks run one after the other, or all at the same time if they wait for each other.
    ///
    /// # Errors
    /// What a thread does that a GPU would not survive, or bytes that change around a buffer.
    pub fn run(
        &self,
        entry: &str,
        blocks: u32,
        all_at_once: bool,
        buffers: &mut [Vec<u8>],
        tokens: i64,
    ) -> Result<(), String> {
        let mut memory: Vec<Guarded> = buffers.iter().map(|bytes| Guarded::copy_of(bytes)).collect();
        let mut args: Vec<u64> = memory.iter().map(Guarded::address).collect();
        args.push(tokens as u64);
        let mut program = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let threads = program.threads(entry)?;
        let launch = Launch {
            blocks,
            threads,
            args: &args,
            all_at_once,
        };
        // SAFETY: the buffers live until the end. That the entry takes them, and touches nothing beyond them, is what the
        // caller tests; guards find most of what is wrong.
        unsafe { program.launch(entry, &launch)? };
        for (i, (buffer, memory)) in buffers.iter_mut().zip(&mut memory).enumerate() {
            if !memory.is_intact() {
                return Err(format!("kernel `{entry}`: bytes around buffer {i} have changed"));
            }
            buffer.copy_from_slice(memory.bytes());
        }
        Ok(())
    }
}

impl Machine for Fibers {
    fn launch(&self, call: &Call<'_>, buffers: &mut [Vec<u8>]) -> Result<(), String> {
        let blocks = u32::try_from(call.kernel.grid.at(call.tokens)).map_err(|e| e.to_string())?;
        self.run(&call.kernel.name, blocks, false, buffers, call.tokens)
    }
}
