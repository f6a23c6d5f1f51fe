//! One conversation on a device: what [`Cpu`](crate::exec::Cpu) is on a CPU.

use super::model::{GpuModel, Mode};
use super::runner::Runner;
use crate::exec::SessionError;
use crate::model::StepError;
use crate::state::State;
use rwkvc_abi::ProgramKind;
use rwkvc_abi::SampleOptions;
use std::path::Path;

/// A state on a device, and what it takes to advance it.
pub struct GpuSession {
    runner: Runner,
}

impl GpuSession {
    pub(super) fn new(model: &GpuModel, mode: Mode) -> Result<Self, SessionError> {
        let is_for_one = |kind| !matches!(kind, ProgramKind::Batch | ProgramKind::Sample);
        Self::of_programs(model, mode, is_for_one)
    }

    /// A session that has memory for prompts only.
    pub(super) fn for_prompts(model: &GpuModel, mode: Mode) -> Result<Self, SessionError> {
        Self::of_programs(model, mode, |kind| kind == ProgramKind::Prefill)
    }

    fn of_programs(
        model: &GpuModel,
        mode: Mode,
        wanted: impl Fn(ProgramKind) -> bool,
    ) -> Result<Self, SessionError> {
        let mut runner = Runner::new(model, mode, wanted)?;
        runner.chooser().join();
        let mut session = GpuSession { runner };
        session.reset()?;
        Ok(session)
    }

    /// The model.
    pub fn model(&self) -> &GpuModel {
        self.runner.model()
    }

    /// How programs are run.
    pub fn mode(&self) -> Mode {
        self.runner.mode()
    }

    /// Starts afresh.
    ///
    /// # Errors
    /// If the device fails.
    pub fn reset(&mut self) -> Result<(), SessionError> {
        let bytes = bytemuck::cast_slice(self.model().fresh().values());
        self.runner.driver().upload(self.runner.state(), bytes)?;
        self.runner.forget();
        Ok(())
    }

    /// The state, copied from the device.
    ///
    /// # Errors
    /// If there is no memory for it, or the device fails.
    pub fn state(&self) -> Result<State, SessionError> {
        let mut state = self.model().new_state()?;
        self.runner
            .driver()
            .download(self.runner.state(), state.bytes_mut())?;
        Ok(state)
    }

    /// Continues from a state of this model, wherever it was computed.
    ///
    /// # Errors
    /// If it is of another model, or the device fails.
    pub fn set_state(&mut self, state: &State) -> Result<(), SessionError> {
        state.belongs_to(self.model().layout())?;
        let bytes = bytemuck::cast_slice(state.values());
        self.runner.driver().upload(self.runner.state(), bytes)?;
        self.runner.forget();
        Ok(())
    }

    /// Continues from a state file, whatever machine wrote it.
    ///
    /// # Errors
    /// If the file is no state of this model, or the device fails.
    pub fn load_state(&mut self, path: &Path) -> Result<(), SessionError> {
        let state = State::load_of(self.model().layout(), path)?;
        self.set_state(&state)
    }

    /// One token in, the logits of the next one out: f32, as many as the vocabulary.
    ///
    /// # Errors
    /// If the model does not know the token, or the device fails.
    pub fn step(&mut self, token: u32) -> Result<&[f32], SessionError> {
        self.advance(token)?;
        self.logits()
    }

    /// One token in; the logits stay on the device until [`Self::logits`] asks for them.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn advance(&mut self, token: u32) -> Result<(), SessionError> {
        self.call(ProgramKind::Decode, &[token], None)
    }

    /// The logits of the call that came last.
    ///
    /// # Errors
    /// If none came since the state was set, or the device fails.
    pub fn logits(&mut self) -> Result<&[f32], SessionError> {
        self.runner.logits()
    }

    /// [`Self::step`], adding the nanoseconds that each launch took to its place in `times`.
    ///
    /// # Errors
    /// As [`Self::step`], and if there is not one place for each launch.
    pub fn step_profiled(&mut self, token: u32, times: &mut [u64]) -> Result<&[f32], SessionError> {
        self.call(ProgramKind::Decode, &[token], Some(times))?;
        self.logits()
    }

    /// Begins to choose tokens in this way. Without it, [`Self::generate`] takes the most probable ones.
    pub fn set_sampling(&mut self, sampling: SampleOptions) {
        self.runner.set_sampling(0, sampling);
    }

    /// Chooses `n` tokens on the device, the first one from the logits of the call that came last. The state reads all but
    /// the last of them, which the next call of this reads first; a token that is given is read in place of it.
    ///
    /// # Errors
    /// If no call came since the state was set or it was [`Self::score`], the code cannot choose tokens, the logits are
    /// not finite numbers, or the device fails.
    pub fn generate(&mut self, n: usize) -> Result<Vec<u32>, SessionError> {
        self.runner.generate(n)
    }

    /// Any number of tokens in, the logits after the last one out, in chunks of the prefill program's size.
    ///
    /// # Errors
    /// If there are no tokens or the model does not know one, or the device fails.
    pub fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32], SessionError> {
        self.feed(tokens)?;
        self.logits()
    }

    /// Any number of tokens in; the logits after the last one stay on the device until [`Self::logits`] asks for them.
    ///
    /// # Errors
    /// As [`Self::prefill`].
    pub fn feed(&mut self, tokens: &[u32]) -> Result<(), SessionError> {
        self.call(ProgramKind::Prefill, tokens, None)
    }

    /// Any number of tokens in; `each` gets the position of each and the logits after it.
    ///
    /// # Errors
    /// If the model does not know a token, or the device fails.
    pub fn score(&mut self, tokens: &[u32], each: &mut dyn FnMut(usize, &[f32])) -> Result<(), SessionError> {
        let (program, chunk) = self.runner.check(ProgramKind::Score, tokens)?;
        let vocab = self.model().vocab();
        for (i, tokens) in tokens.chunks(chunk).enumerate() {
            self.runner.run(program, tokens, None)?;
            for (j, logits) in self.runner.logits()?.chunks(vocab).enumerate() {
                each(i * chunk + j, logits);
            }
        }
        Ok(())
    }

    /// Runs a program over tokens, adding the nanoseconds that each launch took to its place in `times`.
    ///
    /// # Errors
    /// As [`Self::prefill`], and if there is not one place for each launch.
    pub fn profiled(
        &mut self,
        program: ProgramKind,
        tokens: &[u32],
        times: &mut [u64],
    ) -> Result<(), SessionError> {
        self.call(program, tokens, Some(times))
    }

    /// The extra results of the call that came last (of its last chunk), by name. Only models compiled with probes have
    /// any.
    ///
    /// # Errors
    /// If the device fails.
    pub fn probes(&self) -> Result<Vec<(&str, Vec<f32>)>, SessionError> {
        Ok(self.runner.probes()?)
    }

    fn call(
        &mut self,
        kind: ProgramKind,
        tokens: &[u32],
        mut times: Option<&mut [u64]>,
    ) -> Result<(), SessionError> {
        let (program, chunk) = self.runner.check(kind, tokens)?;
        if tokens.is_empty() {
            return Err(StepError::NoTokens.into());
        }
        self.runner.check_times(program, times.as_deref())?;
        for tokens in tokens.chunks(chunk) {
            self.runner.run(program, tokens, times.as_deref_mut())?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for GpuSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuSession")
            .field("mode", &self.mode())
            .finish_non_exhaustive()
    }
}
