//! Many conversations that advance together, so that the weights are read once for all.

use super::driver::Address;
use super::model::{GpuModel, Mode};
use super::runner::Runner;
use super::session::GpuSession;
use crate::batch::MemberError;
use crate::batch::members::{Members, place};
use crate::exec::SessionError;
use crate::model::StepError;
use crate::state::State;
use rwkvc_abi::SampleOptions;
use rwkvc_abi::{ProgramKind, StateSlot};

/// States on a device that advance by one token each. Members join and leave between steps; each part of the state has a
/// row for each member.
pub struct GpuBatch {
    runner: Runner,
    program: usize,
    members: Members,
    /// Reads prompts of those who are to join; made for the first one.
    reader: Option<GpuSession>,
}

impl GpuBatch {
    pub(super) fn new(model: &GpuModel, mode: Mode) -> Result<Self, SessionError> {
        if !model.has(ProgramKind::Batch) {
            return Err(StepError::Program(ProgramKind::Batch).into());
        }
        let runner = Runner::new(model, mode, |kind| kind == ProgramKind::Batch)?;
        let (program, capacity) = runner.check(ProgramKind::Batch, &[])?;
        Ok(GpuBatch {
            runner,
            program,
            members: Members::none_of(capacity),
            reader: None,
        })
    }

    /// The model.
    pub fn model(&self) -> &GpuModel {
        self.runner.model()
    }

    /// How many members there are.
    pub fn members(&self) -> usize {
        self.members.count
    }

    /// How many there may be.
    pub fn capacity(&self) -> usize {
        self.members.capacity
    }

    /// Adds a state; its number, which is the last.
    ///
    /// # Errors
    /// If the batch is full, the state is of another model, or the device fails.
    pub fn join(&mut self, state: &State) -> Result<usize, SessionError> {
        let member = self.members.next()?;
        state.belongs_to(self.runner.model().layout())?;
        let bytes: &[u8] = bytemuck::cast_slice(state.values());
        for slot in &self.runner.model().layout().slots {
            let (start, len) = place(slot);
            let to = self.row(slot, member);
            self.runner.driver().upload(to, &bytes[start..start + len])?;
        }
        self.members.count += 1;
        self.runner.chooser().join();
        self.runner.forget();
        Ok(member)
    }

    /// Takes a member out; the last one gets its number.
    ///
    /// # Errors
    /// If there is no such member, no memory for its state, or the device fails.
    pub fn leave(&mut self, member: usize) -> Result<State, SessionError> {
        let last = self.members.last(member)?;
        let mut state = self.runner.model().new_state()?;
        for slot in &self.runner.model().layout().slots {
            let (start, len) = place(slot);
            let driver = self.runner.driver();
            driver.download(self.row(slot, member), &mut state.bytes_mut()[start..start + len])?;
            if member != last {
                driver.copy(self.row(slot, last), self.row(slot, member), len as u64)?;
            }
        }
        self.members.count -= 1;
        self.runner.chooser().leave(member);
        self.runner.forget();
        Ok(state)
    }

    /// One token of each member in, in their order; the logits of each out, `[members, vocab]`.
    ///
    /// # Errors
    /// If there is not one token for each member or the model does not know one, or the device fails.
    pub fn step(&mut self, tokens: &[u32]) -> Result<&[f32], SessionError> {
        self.advance(tokens)?;
        self.logits()
    }

    /// One token of each member in, in their order; the logits stay on the device until [`Self::logits`] asks for them.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn advance(&mut self, tokens: &[u32]) -> Result<(), SessionError> {
        self.run(tokens, None)
    }

    /// [`Self::advance`], adding the nanoseconds that each launch took to its place in `times`.
    ///
    /// # Errors
    /// As [`Self::step`], and if there is not one place for each launch.
    pub fn profiled(&mut self, tokens: &[u32], times: &mut [u64]) -> Result<(), SessionError> {
        self.run(tokens, Some(times))
    }

    fn run(&mut self, tokens: &[u32], times: Option<&mut [u64]>) -> Result<(), SessionError> {
        self.members.check_tokens(tokens)?;
        if tokens.is_empty() {
            return Err(StepError::NoTokens.into());
        }
        self.runner.check(ProgramKind::Batch, tokens)?;
        self.runner.check_times(self.program, times.as_deref())?;
        self.runner.run(self.program, tokens, times)?;
        Ok(())
    }

    /// Advances a state that is no member by tokens of its prompt; the logits after the last one. The state goes to the
    /// device and back; what the members are about to read or to choose stays.
    ///
    /// # Errors
    /// As [`GpuSession::set_state`], [`GpuSession::prefill`] and [`GpuSession::state`]; the state is then as it was.
    pub fn prefill(&mut self, state: &mut State, tokens: &[u32]) -> Result<&[f32], SessionError> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => {
                let (model, mode) = (self.runner.model(), self.runner.mode());
                none.insert(GpuSession::for_prompts(model, mode)?)
            }
        };
        reader.set_state(state)?;
        reader.feed(tokens)?;
        *state = reader.state()?;
        reader.logits()
    }

    /// The logits of the step that came last, `[members, vocab]`.
    ///
    /// # Errors
    /// If none came since a member joined or left, or the device fails.
    pub fn logits(&mut self) -> Result<&[f32], SessionError> {
        self.runner.logits()
    }

    /// Begins to choose the tokens of a member in this way. Without it, [`Self::generate`] takes the most probable ones.
    ///
    /// # Errors
    /// If there is no such member.
    pub fn set_sampling(&mut self, member: usize, sampling: SampleOptions) -> Result<(), SessionError> {
        self.check_member(member)?;
        self.runner.set_sampling(member, sampling);
        Ok(())
    }

    pub(crate) fn check_member(&self, member: usize) -> Result<(), MemberError> {
        self.members.last(member).map(|_| ())
    }

    /// Chooses `n` tokens of each member on the device, `[n, members]`, the first ones from the logits of the step that
    /// came last. Members read all but the last of them, which the next call of this reads first; tokens that are given
    /// are read in place of them.
    ///
    /// # Errors
    /// If no step came since a member joined or left, the code cannot choose tokens, logits are not finite numbers, or the
    /// device fails.
    pub fn generate(&mut self, n: usize) -> Result<Vec<u32>, SessionError> {
        self.runner.generate(n)
    }

    /// Where a member's row of a part of the state starts.
    fn row(&self, slot: &StateSlot, member: usize) -> Address {
        self.runner.state().offset(self.members.row(slot, member) as u64)
    }
}

impl std::fmt::Debug for GpuBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuBatch")
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}
