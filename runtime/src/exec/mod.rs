//! What advances a state by tokens: a [`Device`], the CPU or a GPU here, the reference evaluator in the compiler.
//! What advances many states together: a [`BatchDevice`].

mod batch;
mod cpu;
mod cpu_batch;
mod error;
#[cfg(feature = "gpu")]
mod gpu;

use std::path::Path;

use rwkvc_abi::ProgramKind;

use crate::sampler::SamplerOptions;
use crate::state::State;

pub use batch::BatchDevice;
pub use cpu::Cpu;
pub use cpu_batch::CpuBatch;
pub use error::SessionError;

/// Values that a call left besides the logits, by name.
pub type Probes<'d> = Vec<(&'d str, Vec<f32>)>;

/// Runs the programs of one model for one caller, on a state of its own.
///
/// A method that fails before it has done anything leaves the state as it was.
pub trait Device {
    /// Rows of the vocabulary: logits of a token.
    fn vocab(&self) -> usize;

    /// One token in, the logits of the next one out, `[vocab]`.
    ///
    /// # Errors
    /// If the model does not know the token or has no decode program, or the device fails.
    fn step(&mut self, token: u32) -> Result<&[f32], SessionError>;

    /// Any number of tokens in, the logits after the last one out, `[vocab]`.
    ///
    /// # Errors
    /// If there are no tokens, the model does not know one or has no prefill program, or the device fails.
    fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32], SessionError>;

    /// Any number of tokens in; `each` gets the position of each and the logits after it, `[vocab]`.
    ///
    /// # Errors
    /// If the model does not know a token or has no score program, or the device fails.
    fn score(&mut self, tokens: &[u32], each: &mut dyn FnMut(usize, &[f32])) -> Result<(), SessionError>;

    /// Starts afresh.
    ///
    /// # Errors
    /// If there is no memory, or the device fails.
    fn reset(&mut self) -> Result<(), SessionError>;

    /// A copy of the state.
    ///
    /// # Errors
    /// If there is no memory for it, the device fails, or its states have no such form.
    fn state(&self) -> Result<State, SessionError>;

    /// Continues from a state of the same model.
    ///
    /// # Errors
    /// If it is of another model, the device fails, or its states have no such form.
    fn set_state(&mut self, state: &State) -> Result<(), SessionError>;

    /// Reads a state of this model from a file.
    ///
    /// # Errors
    /// If the file cannot be read, is no state of this model, or the device's states have no such form.
    fn read_state(&self, path: &Path) -> Result<State, SessionError>;

    /// Begins to choose tokens where the logits are, as these options say; whether the device can.
    fn sample_by(&mut self, _: &SamplerOptions) -> bool {
        false
    }

    /// Chooses the next `n` tokens where the logits are, the first one from those of the call that came last. The state reads
    /// all but the last of them, which the next call of this reads first; a token that is given to another method is read
    /// in place of it.
    ///
    /// # Errors
    /// If [`sample_by`](Self::sample_by) said that the device cannot, no call came before, or the device fails.
    fn choose(&mut self, _n: usize) -> Result<Vec<u32>, SessionError> {
        Err(SessionError::Unsupported("this device chooses no tokens"))
    }

    /// Runs a program over tokens, adding the nanoseconds of each launch to its place in `times`.
    ///
    /// # Errors
    /// As the methods above; if there is not one place for each launch; and if the device does not measure launches.
    fn profile(
        &mut self,
        _program: ProgramKind,
        _tokens: &[u32],
        _times: &mut [u64],
    ) -> Result<(), SessionError> {
        Err(SessionError::Unsupported("this device measures no launches"))
    }

    /// The extra results of the call that came last (of its last chunk). Only models compiled with probes have any.
    ///
    /// # Errors
    /// If the device fails.
    fn probes(&self) -> Result<Probes<'_>, SessionError> {
        Ok(vec![])
    }
}
