//! Many conversations that advance together, so that the weights are read once for all.

use super::driver::Address;
use super::model::{GpuModel, Mode};
use super::runner::Runner;
use super::session::SessionError;
use crate::manifest::{ProgramKind, StateSlot};
use crate::model::StepError;
use crate::state::State;

/// States on a device that advance by one token each. Members join and leave between steps; each part of the state has a
/// row for each member.
pub struct GpuBatch {
    runner: Runner,
    program: usize,
    capacity: usize,
    members: usize,
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
            capacity,
            members: 0,
        })
    }

    /// How many members there are.
    pub fn members(&self) -> usize {
        self.members
    }

    /// How many there may be.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Adds a state; its number, which is the last.
    ///
    /// # Errors
    /// If the batch is full, the state is of another model, or the device fails.
    pub fn join(&mut self, state: &State) -> Result<usize, SessionError> {
        if self.members == self.capacity {
            return Err(SessionError::Full(self.capacity));
        }
        state.belongs_to(self.runner.model().layout())?;
        let bytes: &[u8] = bytemuck::cast_slice(state.values());
        for slot in &self.runner.model().layout().slots {
            let (start, len) = place(slot);
            let to = self.row(slot, self.members);
            self.runner.driver().upload(to, &bytes[start..start + len])?;
        }
        self.members += 1;
        self.runner.forget();
        Ok(self.members - 1)
    }

    /// Takes a member out; the last one gets its number.
    ///
    /// # Errors
    /// If there is no such member, no memory for its state, or the device fails.
    pub fn leave(&mut self, member: usize) -> Result<State, SessionError> {
        let members = self.members;
        if member >= members {
            return Err(SessionError::Member {
                slot: member,
                members,
            });
        }
        let mut state = self.runner.model().new_state()?;
        for slot in &self.runner.model().layout().slots {
            let (start, len) = place(slot);
            let driver = self.runner.driver();
            driver.download(self.row(slot, member), &mut state.bytes_mut()[start..start + len])?;
            if member != members - 1 {
                driver.copy(self.row(slot, members - 1), self.row(slot, member), len as u64)?;
            }
        }
        self.members -= 1;
        self.runner.forget();
        Ok(state)
    }

    /// One token of each member in, in their order; the logits of each out, `[members, vocab]`.
    ///
    /// # Errors
    /// If there is not one token for each member or the model does not know one, or the device fails.
    pub fn step(&mut self, tokens: &[u32]) -> Result<&[f32], SessionError> {
        let (found, members) = (tokens.len(), self.members);
        if found != members {
            return Err(SessionError::Tokens { found, members });
        }
        if tokens.is_empty() {
            return Err(StepError::NoTokens.into());
        }
        self.runner.check(ProgramKind::Batch, tokens)?;
        self.runner.run(self.program, tokens, None)?;
        self.runner.logits()
    }

    /// Where a member's row of a part of the state starts.
    fn row(&self, slot: &StateSlot, member: usize) -> Address {
        let (start, len) = place(slot);
        let offset = start as u64 * self.capacity as u64 + (member * len) as u64;
        self.runner.state().offset(offset)
    }
}

/// The bytes of a part of one state: where it starts, and how many. The manifest's check bounds both.
fn place(slot: &StateSlot) -> (usize, usize) {
    (slot.offset as usize * 4, slot.shape.iter().product::<usize>() * 4)
}

impl std::fmt::Debug for GpuBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuBatch")
            .field("members", &self.members)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}
