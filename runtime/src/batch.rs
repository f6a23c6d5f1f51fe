//! Many conversations that advance together, so that the weights are read once for all.

pub(crate) mod members;

use crate::buffer::{Buffer, OutOfMemory};
use crate::model::{Model, StepError};
use crate::state::{State, StateError};
use crate::workspace::{Wanted, Workspace, WorkspaceError, WorkspaceOptions};
pub use members::MemberError;
use members::{Members, place};
use rwkvc_abi::ProgramKind;

/// Why a batch did not do what it was told. Its members and their states are as before.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The call makes no sense.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The members are others.
    #[error(transparent)]
    Members(#[from] MemberError),
    /// No memory or threads.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
}

impl From<StateError> for BatchError {
    fn from(error: StateError) -> Self {
        StepError::from(error).into()
    }
}

impl From<OutOfMemory> for BatchError {
    fn from(error: OutOfMemory) -> Self {
        WorkspaceError::from(error).into()
    }
}

/// States that advance by one token each. Members join and leave between steps; what becomes of one does not depend on the
/// others, to the last bit while there are no more than 16. More are added up in another order.
///
/// All memory is allocated when the batch is made: that of a workspace, and [`Self::capacity`] times that of a state.
///
/// ```no_run
/// # use rwkvc_runtime::{Model, WorkspaceOptions};
/// let model = Model::open("model.rwkvc".as_ref())?;
/// let mut batch = model.batch(&WorkspaceOptions::default())?;
/// for prompt in [[510, 6], [7, 3]] {
///     let mut state = model.new_state()?;
///     model.prefill(batch.workspace(), &mut state, &prompt)?;
///     batch.join(&state)?;
/// }
/// let logits = batch.step(&[2, 11])?;     // one token of each; logits [2, vocab]
/// let first = batch.leave(0)?;            // its state; the last member is number 0 now
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Batch {
    workspace: Workspace,
    /// Index of the batch program.
    program: usize,
    states: Buffer,
    members: Members,
}

impl Batch {
    pub(crate) fn new(model: &Model, options: &WorkspaceOptions) -> Result<Self, BatchError> {
        let (program, capacity) = model.program(ProgramKind::Batch)?;
        let manifest = model.manifest();
        Ok(Batch {
            states: Buffer::zeroed(manifest.state_bytes(&manifest.programs[program]))?,
            workspace: model.workspace(options)?,
            program,
            members: Members::none_of(capacity),
        })
    }

    /// How many members there are.
    pub fn members(&self) -> usize {
        self.members.count
    }

    /// How many there may be.
    pub fn capacity(&self) -> usize {
        self.members.capacity
    }

    /// The memory and threads of the steps, for prompts of those who are to join.
    pub fn workspace(&mut self) -> &mut Workspace {
        &mut self.workspace
    }

    /// Adds a state; its number, which is the last.
    ///
    /// # Errors
    /// If the batch is full, or the state is of another model.
    pub fn join(&mut self, state: &State) -> Result<usize, BatchError> {
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

    /// Takes a member out; the last one gets its number.
    ///
    /// # Errors
    /// If there is no such member, or no memory for its state.
    pub fn leave(&mut self, member: usize) -> Result<State, BatchError> {
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

    /// One token of each member in, in their order; the logits of each out, `[members, vocab]`. Allocates nothing.
    ///
    /// # Errors
    /// If there is not one token for each member, or the model does not know one.
    pub fn step(&mut self, tokens: &[u32]) -> Result<&[f32], BatchError> {
        self.run(tokens, None)
    }

    /// [`Self::step`], adding the nanoseconds that each launch of the batch program took to its place in `times`.
    ///
    /// # Errors
    /// As [`Self::step`], and if there is not one place for each launch.
    pub fn step_profiled(&mut self, tokens: &[u32], times: &mut [u64]) -> Result<&[f32], BatchError> {
        self.run(tokens, Some(times))
    }

    fn run(&mut self, tokens: &[u32], times: Option<&mut [u64]>) -> Result<&[f32], BatchError> {
        self.members.check_tokens(tokens)?;
        if tokens.is_empty() {
            return Err(StepError::NoTokens.into());
        }
        let model = self.workspace.model();
        StepError::check_tokens(tokens, model.vocab())?;
        model.check_times(self.program, times.as_deref())?;
        self.workspace
            .run(self.program, &mut self.states, tokens, Wanted::All, times);
        Ok(self.workspace.logits(tokens.len()))
    }
}
