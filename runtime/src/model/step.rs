//! Advancing a state by tokens.

use super::Model;
use crate::state::{State, StateError};
use crate::workspace::{Wanted, Workspace};
use rwkvc_abi::ProgramKind;

/// Why a step was not taken. The state is as it was before the call.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A token that the model does not know.
    #[error("token {token} at position {position} is not in the vocabulary of {vocab}")]
    Token {
        /// The token.
        token: u32,
        /// Where it is in the input.
        position: usize,
        /// Tokens that the model knows.
        vocab: usize,
    },
    /// There are no logits of nothing.
    #[error("no tokens were given")]
    NoTokens,
    /// This shape of the step was not compiled.
    #[error("the model was compiled without a {0} program")]
    Program(ProgramKind),
    /// The state is of another model.
    #[error(transparent)]
    State(#[from] StateError),
    /// The workspace is of another model.
    #[error("the workspace was made for another loaded model")]
    Workspace,
    /// There must be one place for the time of each launch.
    #[error("places for the times of {found} launches, expected {expected}")]
    Times {
        /// Places given.
        found: usize,
        /// Launches of the program.
        expected: usize,
    },
}

impl StepError {
    /// Checks that a model with this vocabulary knows all tokens.
    pub(crate) fn check_tokens(tokens: &[u32], vocab: usize) -> Result<(), StepError> {
        match tokens.iter().position(|t| *t as usize >= vocab) {
            Some(position) => Err(StepError::Token {
                token: tokens[position],
                position,
                vocab,
            }),
            None => Ok(()),
        }
    }
}

impl Model {
    /// One token in, the logits of the next one out: f32, as many as the vocabulary. Allocates nothing.
    ///
    /// # Errors
    /// Before anything is done; the state is unchanged.
    pub fn step<'w>(
        &self,
        workspace: &'w mut Workspace,
        state: &mut State,
        token: u32,
    ) -> Result<&'w [f32], StepError> {
        self.last(ProgramKind::Decode, workspace, state, &[token], None)
    }

    /// Any number of tokens in, the logits after the last one out, in chunks of the prefill program's size.
    ///
    /// # Errors
    /// Before anything is done; the state is unchanged.
    pub fn prefill<'w>(
        &self,
        workspace: &'w mut Workspace,
        state: &mut State,
        tokens: &[u32],
    ) -> Result<&'w [f32], StepError> {
        self.last(ProgramKind::Prefill, workspace, state, tokens, None)
    }

    /// [`Self::step`], adding the nanoseconds that each launch of the decode program took to its place in `times`.
    ///
    /// # Errors
    /// As [`Self::step`], and if there is not one place for each launch.
    pub fn step_profiled<'w>(
        &self,
        workspace: &'w mut Workspace,
        state: &mut State,
        token: u32,
        times: &mut [u64],
    ) -> Result<&'w [f32], StepError> {
        self.last(ProgramKind::Decode, workspace, state, &[token], Some(times))
    }

    /// [`Self::prefill`], adding the nanoseconds that each launch of the prefill program took, over all chunks.
    ///
    /// # Errors
    /// As [`Self::prefill`], and if there is not one place for each launch.
    pub fn prefill_profiled<'w>(
        &self,
        workspace: &'w mut Workspace,
        state: &mut State,
        tokens: &[u32],
        times: &mut [u64],
    ) -> Result<&'w [f32], StepError> {
        self.last(ProgramKind::Prefill, workspace, state, tokens, Some(times))
    }

    /// Any number of tokens in; `each` gets the position of each and the logits after it.
    ///
    /// # Errors
    /// Before anything is done; the state is unchanged.
    pub fn score(
        &self,
        workspace: &mut Workspace,
        state: &mut State,
        tokens: &[u32],
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), StepError> {
        let (program, chunk) = self.check(ProgramKind::Score, workspace, state, tokens)?;
        for (i, tokens) in tokens.chunks(chunk).enumerate() {
            workspace.run(program, state.buffer_mut(), tokens, Wanted::All, None);
            for (j, logits) in workspace.logits(tokens.len()).chunks(self.vocab()).enumerate() {
                each(i * chunk + j, logits);
            }
        }
        Ok(())
    }

    fn last<'w>(
        &self,
        kind: ProgramKind,
        workspace: &'w mut Workspace,
        state: &mut State,
        tokens: &[u32],
        mut times: Option<&mut [u64]>,
    ) -> Result<&'w [f32], StepError> {
        let (program, chunk) = self.check(kind, workspace, state, tokens)?;
        if tokens.is_empty() {
            return Err(StepError::NoTokens);
        }
        self.check_times(program, times.as_deref())?;
        let parts = tokens.len().div_ceil(chunk);
        for (i, tokens) in tokens.chunks(chunk).enumerate() {
            let wanted = if i + 1 == parts {
                Wanted::All
            } else {
                Wanted::State
            };
            workspace.run(program, state.buffer_mut(), tokens, wanted, times.as_deref_mut());
        }
        Ok(workspace.logits(1))
    }

    /// Checks a call; returns the program's index and the most tokens it takes at once.
    fn check(
        &self,
        kind: ProgramKind,
        workspace: &Workspace,
        state: &State,
        tokens: &[u32],
    ) -> Result<(usize, usize), StepError> {
        if !self.is(workspace.model()) {
            return Err(StepError::Workspace);
        }
        state.belongs_to(self.layout())?;
        let program = self.program(kind)?;
        StepError::check_tokens(tokens, self.vocab())?;
        Ok(program)
    }

    /// The index of a program, and the most tokens it takes at once.
    pub(crate) fn program(&self, kind: ProgramKind) -> Result<(usize, usize), StepError> {
        let programs = &self.manifest().programs;
        let program = programs
            .iter()
            .position(|p| p.kind == kind)
            .ok_or(StepError::Program(kind))?;
        Ok((program, programs[program].max_tokens))
    }

    /// Checks that there is one place for each launch of a program.
    pub(crate) fn check_times(&self, program: usize, times: Option<&[u64]>) -> Result<(), StepError> {
        let expected = self.manifest().programs[program].launches.len();
        match times.map(<[u64]>::len) {
            Some(found) if found != expected => Err(StepError::Times { found, expected }),
            _ => Ok(()),
        }
    }
}
