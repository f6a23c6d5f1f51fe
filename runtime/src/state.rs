//! What a model remembers: a value of fixed size that its owner may keep, clone, save and carry elsewhere.

mod file;

use crate::buffer::{Buffer, OutOfMemory};
use crate::weights::WeightData;
use rwkvc_abi::{Manifest, StateSlot};
use std::path::PathBuf;
use std::sync::Arc;

/// The parts of the states of one model.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StateLayout {
    /// The model's name, for messages.
    pub(crate) model: String,
    pub(crate) fingerprint: String,
    pub(crate) slots: Vec<StateSlot>,
    /// f32 values in total.
    pub(crate) len: u64,
}

impl StateLayout {
    /// Of a checked manifest.
    pub(crate) fn of(manifest: &Manifest) -> Self {
        StateLayout {
            model: manifest.model.name.clone(),
            fingerprint: manifest.model.fingerprint.clone(),
            slots: manifest.state.clone(),
            len: manifest.state_len(),
        }
    }

    /// Whether states of the two mean the same; where a fresh state comes from does not matter.
    fn agrees(&self, other: &Self) -> bool {
        let same =
            |(a, b): (&StateSlot, &StateSlot)| a.name == b.name && a.shape == b.shape && a.offset == b.offset;
        self.fingerprint == other.fingerprint
            && self.slots.len() == other.slots.len()
            && self.slots.iter().zip(&other.slots).all(same)
    }
}

/// The state of one conversation: f32 values, changed by every token.
///
/// A fresh one comes from [`crate::Model::new_state`].
#[derive(Debug)]
pub struct State {
    values: Buffer,
    layout: Arc<StateLayout>,
}

/// Why a state cannot be saved, loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It does not begin like a state.
    #[error("not a saved state")]
    NotAState,
    /// Saved by another version.
    #[error("the state has format version {found}, this program reads version {expected}")]
    Version {
        /// Its version.
        found: u32,
        /// The version this program reads and writes.
        expected: u32,
    },
    /// A part is cut off or was changed.
    #[error("the state is damaged: {0}")]
    Damaged(String),
    /// It is of another model.
    #[error(
        "the state belongs to model `{found}` ({found_fingerprint}), not to `{expected}` ({expected_fingerprint})"
    )]
    OtherModel {
        /// The name of its model.
        found: String,
        /// The start of its model's fingerprint.
        found_fingerprint: String,
        /// The name of the model at hand.
        expected: String,
        /// The start of the fingerprint of the model at hand.
        expected_fingerprint: String,
    },
    /// It is of the same model, with other parts.
    #[error("the state of model `{model}` has other parts than this program's: {reason}")]
    OtherLayout {
        /// The model.
        model: String,
        /// The first difference.
        reason: String,
    },
    /// No memory for the values.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
}

impl State {
    /// Zeros.
    pub(crate) fn zeroed(layout: Arc<StateLayout>) -> Result<Self, OutOfMemory> {
        Ok(State {
            values: Buffer::zeroed(layout.len * 4)?,
            layout,
        })
    }

    /// The state before any token: what the weights say, else zeros.
    pub(crate) fn fresh(layout: &Arc<StateLayout>, weights: &[WeightData]) -> Result<Self, OutOfMemory> {
        let mut state = Self::zeroed(Arc::clone(layout))?;
        for slot in &layout.slots {
            let init = slot.init.and_then(|i| weights.get(i)).and_then(WeightData::bytes);
            if let Some(bytes) = init {
                // The manifest's check: as many f32 values as the slot has, within the state.
                let start = slot.offset as usize * 4;
                state.bytes_mut()[start..start + bytes.len()].copy_from_slice(bytes);
            }
        }
        Ok(state)
    }

    /// All values.
    pub fn values(&self) -> &[f32] {
        self.values.floats()
    }

    /// All values, to be changed.
    pub fn values_mut(&mut self) -> &mut [f32] {
        self.values.floats_mut()
    }

    /// The parts, in order: names, shapes and offsets.
    pub fn slots(&self) -> &[StateSlot] {
        &self.layout.slots
    }

    /// The values of a part, such as `blocks.3.att.wkv`; `None` if there is no such part.
    pub fn slot(&self, name: &str) -> Option<&[f32]> {
        let slot = self.layout.slots.iter().find(|s| s.name == name)?;
        let start = usize::try_from(slot.offset).ok()?;
        self.values()
            .get(start..start.checked_add(usize::try_from(slot.elements()?).ok()?)?)
    }

    /// Becomes a copy of another state of the same model, without allocating.
    ///
    /// # Errors
    /// If it is of another model.
    pub fn copy_from(&mut self, other: &State) -> Result<(), StateError> {
        other.belongs_to(&self.layout)?;
        self.values_mut().copy_from_slice(other.values());
        Ok(())
    }

    /// A copy that goes its own way.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn fork(&self) -> Result<State, OutOfMemory> {
        Ok(State {
            values: Buffer::copy_of(self.values.bytes())?,
            layout: Arc::clone(&self.layout),
        })
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.values.bytes_mut()
    }

    /// The memory of the values, for compiled code.
    pub(crate) fn buffer_mut(&mut self) -> &mut Buffer {
        &mut self.values
    }

    /// Checks that it is a state of the model with this layout.
    pub(crate) fn belongs_to(&self, layout: &Arc<StateLayout>) -> Result<(), StateError> {
        // Comparing names is for states that came another way.
        if Arc::ptr_eq(&self.layout, layout) || self.layout.agrees(layout) {
            return Ok(());
        }
        Err(difference(&self.layout, layout))
    }
}

impl Clone for State {
    fn clone(&self) -> Self {
        // As for every other collection; `fork` is for those who want to know.
        self.fork().unwrap_or_else(|error| panic!("{error}"))
    }
}

/// How a state with layout `found` does not fit.
fn difference(found: &StateLayout, expected: &StateLayout) -> StateError {
    if found.fingerprint != expected.fingerprint {
        let short = |s: &str| s.chars().take(12).collect();
        return StateError::OtherModel {
            found: found.model.clone(),
            found_fingerprint: short(&found.fingerprint),
            expected: expected.model.clone(),
            expected_fingerprint: short(&expected.fingerprint),
        };
    }
    let mut pairs = found.slots.iter().zip(&expected.slots);
    let reason = match pairs.find(|(a, b)| a.name != b.name || a.shape != b.shape) {
        Some((a, b)) => format!(
            "`{}` {:?} where `{}` {:?} is expected",
            a.name, a.shape, b.name, b.shape
        ),
        None => format!("{} parts, expected {}", found.slots.len(), expected.slots.len()),
    };
    StateError::OtherLayout {
        model: expected.model.clone(),
        reason,
    }
}
