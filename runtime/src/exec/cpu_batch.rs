//! The CPU: states side by side in memory, and a workspace that advances them.

use rwkvc_abi::ProgramKind;

use super::{BatchDevice, SessionError};
use crate::batch::members::{Members, place};
use crate::buffer::Buffer;
use crate::model::{Model, StepError};
use crate::sampler::SamplerOptions;
use crate::state::State;
use crate::workspace::{Wanted, Workspace, WorkspaceOptions};

/// Advances many states on this machine's CPU. All memory is allocated when it is made: that of a workspace, and
/// [`capacity`](BatchDevice::capacity) times that of a state.
#[derive(Debug)]
pub struct CpuBatch {
    workspace: Workspace,
    /// Index of the batch program.
    program: usize,
    states: Buffer,
    members: Members,
}

impl CpuBatch {
    /// Without members.
    ///
    /// # Errors
    /// If the model was compiled without a batch program, or memory or threads are not to be had.
    pub fn new(model: &Model, options: &WorkspaceOptions) -> Result<Self, SessionError> {
        let (program, capacity) = model.program(ProgramKind::Batch)?;
        let manifest = model.manifest();
        Ok(CpuBatch {
            states: Buffer::zeroed(manifest.state_bytes(&manifest.programs[program]))?,
            workspace: model.workspace(options)?,
            program,
            members: Members::none_of(capacity),
        })
    }

    fn run(&mut self, tokens: &[u32], times: Option<&mut [u64]>) -> Result<(), SessionError> {
        self.members.check_tokens(tokens)?;
        if tokens.is_empty() {
            return Err(StepError::NoTokens.into());
        }
        let model = self.workspace.model();
        StepError::check_tokens(tokens, model.vocab())?;
        model.check_times(self.program, times.as_deref())?;
        self.workspace
            .run(self.program, &mut self.states, tokens, Wanted::All, times);
        Ok(())
    }
}

impl BatchDevice for CpuBatch {
    fn vocab(&self) -> usize {
        self.workspace.model().vocab()
    }

    fn members(&self) -> usize {
        self.members.count
    }

    fn capacity(&self) -> usize {
        self.members.capacity
    }

    fn join(&mut self, state: &State) -> Result<usize, SessionError> {
        let member = self.members.next()?;
        let layout = self.workspace.model().layout();
        state.belongs_to(layout)?;
        let bytes: &[u8] = bytemuck::cast_slice(state.values());
        for slot in &layout.slots {
            let ((start, len), to) = (place(slot), self.members.row(slot, member));
            self.states.bytes_mut()[to..to + len].copy_from_slice(&bytes[start..start + len]);
        }
        self.members.count += 1;
        Ok(member)
    }

    fn leave(&mut self, member: usize) -> Result<State, SessionError> {
        let last = self.members.last(member)?;
        let layout = self.workspace.model().layout();
        let mut state = State::zeroed(layout.clone())?;
        for slot in &layout.slots {
            let (start, len) = place(slot);
            let [from, moved] = [member, last].map(|m| self.members.row(slot, m));
            let states = self.states.bytes_mut();
            state.bytes_mut()[start..start + len].copy_from_slice(&states[from..from + len]);
            states.copy_within(moved..moved + len, from);
        }
        self.members.count -= 1;
        Ok(state)
    }

    fn step(&mut self, tokens: &[u32]) -> Result<&[f32], SessionError> {
        self.run(tokens, None)?;
        Ok(self.workspace.logits(tokens.len()))
    }

    fn chunk(&self) -> Result<usize, SessionError> {
        let (_, chunk) = self.workspace.model().program(ProgramKind::Prefill)?;
        Ok(chunk)
    }

    fn prefill(&mut self, state: &mut State, tokens: &[u32]) -> Result<&[f32], SessionError> {
        let model = self.workspace.model().clone();
        Ok(model.prefill(&mut self.workspace, state, tokens)?)
    }

    fn sample_by(&mut self, member: usize, _: &SamplerOptions) -> Result<bool, SessionError> {
        self.members.last(member)?;
        Ok(false)
    }

    fn choose(&mut self, _: usize) -> Result<Vec<u32>, SessionError> {
        Err(SessionError::Unsupported("a CPU chooses no tokens of a batch"))
    }

    fn profile(&mut self, tokens: &[u32], times: &mut [u64]) -> Result<(), SessionError> {
        self.run(tokens, Some(times))
    }
}
