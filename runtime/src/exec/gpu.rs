//! A GPU: a session, or a batch, whose states stay there.

use std::path::Path;

use rwkvc_abi::ProgramKind;

use super::{BatchDevice, Device, Probes, SessionError};
use crate::gpu::{GpuBatch, GpuSession};
use crate::model::StepError;
use crate::sampler::SamplerOptions;
use crate::state::State;

impl Device for GpuSession {
    fn vocab(&self) -> usize {
        self.model().vocab()
    }

    fn step(&mut self, token: u32) -> Result<&[f32], SessionError> {
        GpuSession::step(self, token)
    }

    fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32], SessionError> {
        GpuSession::prefill(self, tokens)
    }

    fn score(&mut self, tokens: &[u32], each: &mut dyn FnMut(usize, &[f32])) -> Result<(), SessionError> {
        GpuSession::score(self, tokens, each)
    }

    fn reset(&mut self) -> Result<(), SessionError> {
        GpuSession::reset(self)
    }

    fn state(&self) -> Result<State, SessionError> {
        GpuSession::state(self)
    }

    fn set_state(&mut self, state: &State) -> Result<(), SessionError> {
        GpuSession::set_state(self, state)
    }

    fn read_state(&self, path: &Path) -> Result<State, SessionError> {
        Ok(State::load_of(self.model().layout(), path)?)
    }

    fn sample_by(&mut self, options: &SamplerOptions) -> bool {
        match options.on_device() {
            Some(sampling) if self.model().has(ProgramKind::Sample) => {
                self.set_sampling(sampling);
                true
            }
            _ => false,
        }
    }

    fn choose(&mut self, n: usize) -> Result<Vec<u32>, SessionError> {
        self.generate(n)
    }

    fn profile(
        &mut self,
        program: ProgramKind,
        tokens: &[u32],
        times: &mut [u64],
    ) -> Result<(), SessionError> {
        self.profiled(program, tokens, times)
    }

    fn probes(&self) -> Result<Probes<'_>, SessionError> {
        GpuSession::probes(self)
    }
}

impl BatchDevice for GpuBatch {
    fn vocab(&self) -> usize {
        self.model().vocab()
    }

    fn members(&self) -> usize {
        GpuBatch::members(self)
    }

    fn capacity(&self) -> usize {
        GpuBatch::capacity(self)
    }

    fn join(&mut self, state: &State) -> Result<usize, SessionError> {
        GpuBatch::join(self, state)
    }

    fn leave(&mut self, member: usize) -> Result<State, SessionError> {
        GpuBatch::leave(self, member)
    }

    fn step(&mut self, tokens: &[u32]) -> Result<&[f32], SessionError> {
        GpuBatch::step(self, tokens)
    }

    fn chunk(&self) -> Result<usize, SessionError> {
        let program = self.model().manifest().program(ProgramKind::Prefill);
        let program = program.ok_or(StepError::Program(ProgramKind::Prefill))?;
        Ok(program.max_tokens)
    }

    fn prefill(&mut self, state: &mut State, tokens: &[u32]) -> Result<&[f32], SessionError> {
        GpuBatch::prefill(self, state, tokens)
    }

    fn sample_by(&mut self, member: usize, options: &SamplerOptions) -> Result<bool, SessionError> {
        self.check_member(member)?;
        match options.on_device() {
            Some(sampling) if self.model().has(ProgramKind::Sample) => {
                self.set_sampling(member, sampling)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn choose(&mut self, n: usize) -> Result<Vec<u32>, SessionError> {
        self.generate(n)
    }

    fn profile(&mut self, tokens: &[u32], times: &mut [u64]) -> Result<(), SessionError> {
        self.profiled(tokens, times)
    }
}
