//! The CPU: a model, a workspace with its threads, and a state.

use std::path::Path;

use rwkvc_abi::ProgramKind;

use super::{Device, Probes, SessionError};
use crate::model::{Model, StepError};
use crate::state::State;
use crate::workspace::{Workspace, WorkspaceOptions};

/// Runs a model on this machine's CPU.
#[derive(Debug)]
pub struct Cpu {
    model: Model,
    workspace: Workspace,
    state: State,
}

impl Cpu {
    /// With a fresh state.
    ///
    /// # Errors
    /// If memory or threads are not to be had.
    pub fn new(model: &Model, options: &WorkspaceOptions) -> Result<Self, SessionError> {
        Ok(Cpu {
            workspace: model.workspace(options)?,
            state: model.new_state()?,
            model: model.clone(),
        })
    }
}

impl Device for Cpu {
    fn vocab(&self) -> usize {
        self.model.vocab()
    }

    fn step(&mut self, token: u32) -> Result<&[f32], SessionError> {
        Ok(self.model.step(&mut self.workspace, &mut self.state, token)?)
    }

    fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32], SessionError> {
        Ok(self.model.prefill(&mut self.workspace, &mut self.state, tokens)?)
    }

    fn score(&mut self, tokens: &[u32], each: &mut dyn FnMut(usize, &[f32])) -> Result<(), SessionError> {
        Ok(self
            .model
            .score(&mut self.workspace, &mut self.state, tokens, each)?)
    }

    fn reset(&mut self) -> Result<(), SessionError> {
        self.state = self.model.new_state()?;
        Ok(())
    }

    fn state(&self) -> Result<State, SessionError> {
        Ok(self.state.fork()?)
    }

    fn set_state(&mut self, state: &State) -> Result<(), SessionError> {
        Ok(self.state.copy_from(state)?)
    }

    fn read_state(&self, path: &Path) -> Result<State, SessionError> {
        Ok(State::load(&self.model, path)?)
    }

    fn profile(
        &mut self,
        program: ProgramKind,
        tokens: &[u32],
        times: &mut [u64],
    ) -> Result<(), SessionError> {
        let Cpu {
            model,
            workspace,
            state,
        } = self;
        match (program, tokens) {
            (ProgramKind::Decode, &[token]) => model.step_profiled(workspace, state, token, times)?,
            (ProgramKind::Prefill, tokens) => model.prefill_profiled(workspace, state, tokens, times)?,
            (ProgramKind::Decode, []) => return Err(StepError::NoTokens.into()),
            (ProgramKind::Decode | ProgramKind::Score | ProgramKind::Batch | ProgramKind::Sample, _) => {
                return Err(SessionError::Unsupported(
                    "a CPU measures launches of one token and of prompts only",
                ));
            }
        };
        Ok(())
    }

    fn probes(&self) -> Result<Probes<'_>, SessionError> {
        let probes = self.workspace.probes();
        Ok(probes.map(|(name, values)| (name, values.to_vec())).collect())
    }
}
