//! A GPU: a session whose state stays there.

use std::path::Path;

use rwkvc_abi::ProgramKind;

use super::{Device, Probes, SessionError};
use crate::gpu::GpuSession;
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
