//! Saved states.
//!
//! ```text
//! "RWKVC-ST"   8 bytes
//! version      u32
//! description  u32 length, then JSON: the model's name and fingerprint, names and shapes of the parts
//! values       f32, little endian
//! SHA-256      32 bytes, of everything before
//! ```

use super::{State, StateError, StateLayout, difference};
use crate::model::Model;
use crate::pending::write_whole;
use rwkvc_abi::StateSlot;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

const MAGIC: [u8; 8] = *b"RWKVC-ST";
const VERSION: u32 = 1;
const HASH_LEN: usize = 32;

#[derive(Serialize, Deserialize)]
struct Description {
    model: String,
    fingerprint: String,
    slots: Vec<(String, Vec<usize>)>,
}

impl State {
    /// Saves the state; the file appears under its name when it is complete.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), StateError> {
        self.to_bytes()
            .and_then(|bytes| write_whole(path, &bytes))
            .map_err(|source| StateError::Io {
                path: path.into(),
                source,
            })
    }

    /// Loads a state of `model` that [`Self::save`] wrote, on any machine.
    ///
    /// # Errors
    /// If the file cannot be read, is no state, is damaged, or belongs to another model.
    pub fn load(model: &Model, path: &Path) -> Result<Self, StateError> {
        Self::load_of(model.layout(), path)
    }

    /// A saved state of the model with this layout.
    pub(crate) fn load_of(layout: &Arc<StateLayout>, path: &Path) -> Result<Self, StateError> {
        let read = || {
            if !std::fs::metadata(path)?.is_file() {
                return Err(io::Error::other("not a file"));
            }
            // A state is at most this long; whatever is longer is not read into memory.
            let description = layout.slots.iter().map(|s| s.name.len() + 512).sum::<usize>();
            let most = (layout.len * 4).saturating_add(description as u64 + (1 << 20));
            let mut bytes = vec![];
            std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|source| StateError::Io {
            path: path.into(),
            source,
        })?;
        State::of_bytes(layout, &bytes)
    }

    /// The contents of a state file.
    ///
    /// # Errors
    /// If the description cannot be written as JSON.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let layout = &self.layout;
        let json = serde_json::to_vec(&Description {
            model: layout.model.clone(),
            fingerprint: layout.fingerprint.clone(),
            slots: layout
                .slots
                .iter()
                .map(|s| (s.name.clone(), s.shape.clone()))
                .collect(),
        })?;
        let json_len = u32::try_from(json.len()).map_err(io::Error::other)?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(json_len.to_le_bytes());
        bytes.extend(&json);
        bytes.extend(self.values.bytes());
        let hash = Sha256::digest(&bytes);
        bytes.extend(hash);
        Ok(bytes)
    }

    /// A state of `model` from the contents of a state file.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_bytes(model: &Model, bytes: &[u8]) -> Result<Self, StateError> {
        Self::of_bytes(model.layout(), bytes)
    }

    fn of_bytes(layout: &Arc<StateLayout>, bytes: &[u8]) -> Result<Self, StateError> {
        let damaged = |reason: &str| StateError::Damaged(reason.into());
        let rest = bytes.strip_prefix(&MAGIC).ok_or(StateError::NotAState)?;
        let (found, rest) = word(rest).ok_or_else(|| damaged("it is cut off"))?;
        if found != VERSION {
            return Err(StateError::Version {
                found,
                expected: VERSION,
            });
        }
        let (json_len, rest) = word(rest).ok_or_else(|| damaged("it is cut off"))?;
        let (json, rest) = rest
            .split_at_checked(json_len as usize)
            .ok_or_else(|| damaged("it is cut off"))?;
        let description: Description = serde_json::from_slice(json)
            .map_err(|error| StateError::Damaged(format!("its description cannot be read: {error}")))?;
        // Whose state it is comes first: that of another model has another length, too.
        let expected = layout;
        description.check(expected)?;
        let expected_len = expected.len as usize * 4 + HASH_LEN;
        if rest.len() != expected_len {
            return Err(StateError::Damaged(format!(
                "{} bytes of values, expected {expected_len}",
                rest.len()
            )));
        }
        let (content, hash) = bytes.split_at(bytes.len() - HASH_LEN);
        if Sha256::digest(content).as_slice() != hash {
            return Err(damaged("its contents were changed"));
        }
        let mut state = State::zeroed(expected.clone())?;
        state
            .values
            .bytes_mut()
            .copy_from_slice(&rest[..expected_len - HASH_LEN]);
        Ok(state)
    }
}

impl Description {
    fn check(self, expected: &StateLayout) -> Result<(), StateError> {
        let slots = self.slots.iter().map(|(name, shape)| (name, shape));
        let same = self.fingerprint == expected.fingerprint
            && slots.eq(expected.slots.iter().map(|s| (&s.name, &s.shape)));
        if same {
            return Ok(());
        }
        // Offsets follow from the shapes and are not compared.
        let slot = |(name, shape)| StateSlot {
            name,
            shape,
            offset: 0,
            init: None,
        };
        let slots = self.slots.into_iter().map(slot).collect();
        let found = StateLayout {
            model: self.model,
            fingerprint: self.fingerprint,
            slots,
            len: 0,
        };
        Err(difference(&found, expected))
    }
}

fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*word), rest))
}
