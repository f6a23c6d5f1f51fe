//! One text: a state, and the device that advances it.

use std::path::Path;

use rwkvc_abi::ProgramKind;

use crate::exec::{Cpu, Device, Probes, SessionError};
use crate::model::Model;
use crate::sampler::SamplerOptions;
use crate::state::State;
use crate::workspace::WorkspaceOptions;

/// A state and what it takes to advance it, on whatever device.
///
/// ```no_run
/// use rwkvc_runtime::{Model, Session};
///
/// let model = Model::open("model.rwkvc".as_ref())?;
/// let mut session = Session::new(&model, &Default::default())?;
/// let logits = session.prefill(&[510, 6, 2])?;    // [vocab], after the last token
/// let logits = session.step(11)?;                 // one token further
/// session.save_state("story.state".as_ref())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Session(Box<dyn Device>);

impl Session {
    /// A fresh state on the CPU.
    ///
    /// # Errors
    /// If memory or threads are not to be had.
    pub fn new(model: &Model, options: &WorkspaceOptions) -> Result<Self, SessionError> {
        Ok(Session::on(Cpu::new(model, options)?))
    }

    /// The state of a device.
    pub fn on(device: impl Device + 'static) -> Self {
        Session(Box::new(device))
    }

    /// Logits of a token.
    pub fn vocab(&self) -> usize {
        self.0.vocab()
    }

    /// One token in, the logits of the next one out, `[vocab]`. Allocates nothing.
    ///
    /// # Errors
    /// As [`Device::step`].
    pub fn step(&mut self, token: u32) -> Result<&[f32], SessionError> {
        self.0.step(token)
    }

    /// Any number of tokens in, the logits after the last one out, `[vocab]`.
    ///
    /// # Errors
    /// As [`Device::prefill`].
    pub fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32], SessionError> {
        self.0.prefill(tokens)
    }

    /// Any number of tokens in; `each` gets the position of each and the logits after it, `[vocab]`.
    ///
    /// # Errors
    /// As [`Device::score`].
    pub fn score(&mut self, tokens: &[u32], each: &mut dyn FnMut(usize, &[f32])) -> Result<(), SessionError> {
        self.0.score(tokens, each)
    }

    /// Starts afresh.
    ///
    /// # Errors
    /// As [`Device::reset`].
    pub fn reset(&mut self) -> Result<(), SessionError> {
        self.0.reset()
    }

    /// A copy of the state.
    ///
    /// # Errors
    /// As [`Device::state`].
    pub fn state(&self) -> Result<State, SessionError> {
        self.0.state()
    }

    /// Continues from a state of the same model, wherever it was computed.
    ///
    /// # Errors
    /// As [`Device::set_state`].
    pub fn set_state(&mut self, state: &State) -> Result<(), SessionError> {
        self.0.set_state(state)
    }

    /// Saves the state in a file that appears whole or not at all.
    ///
    /// # Errors
    /// As [`Device::state`], and if the file cannot be written.
    pub fn save_state(&self, path: &Path) -> Result<(), SessionError> {
        Ok(self.state()?.save(path)?)
    }

    /// Continues from a state file.
    ///
    /// # Errors
    /// If the file cannot be read, or is no state of this model; as [`Device::set_state`].
    pub fn load_state(&mut self, path: &Path) -> Result<(), SessionError> {
        let state = self.0.read_state(path)?;
        self.set_state(&state)
    }

    /// Runs a program over tokens, adding the nanoseconds of each launch to its place in `times`.
    ///
    /// # Errors
    /// As [`Device::profile`].
    pub fn profile(
        &mut self,
        program: ProgramKind,
        tokens: &[u32],
        times: &mut [u64],
    ) -> Result<(), SessionError> {
        self.0.profile(program, tokens, times)
    }

    /// The extra results of the call that came last. Only models compiled with probes have any.
    ///
    /// # Errors
    /// As [`Device::probes`].
    pub fn probes(&self) -> Result<Probes<'_>, SessionError> {
        self.0.probes()
    }

    /// Begins to choose tokens where the logits are; whether the device can.
    pub fn sample_by(&mut self, options: &SamplerOptions) -> bool {
        self.0.sample_by(options)
    }

    /// Chooses the next `n` tokens where the logits are.
    ///
    /// # Errors
    /// As [`Device::choose`].
    pub fn choose(&mut self, n: usize) -> Result<Vec<u32>, SessionError> {
        self.0.choose(n)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("vocab", &self.vocab())
            .finish_non_exhaustive()
    }
}
