//! The first bytes of an artifact.

use super::ArtifactError;
use rwkvc_abi::FORMAT_VERSION;
use std::ops::Range;
use std::path::Path;

/// Ends in a line break of two bytes, which transfers as text would change.
pub(super) const MAGIC: [u8; 8] = *b"RWKVC\0\r\n";
pub(super) const LEN: u64 = 136;
/// Where the code starts, and the weights.
const CODE_ALIGN: u64 = 64;
const WEIGHTS_ALIGN: u64 = 4096;
/// A manifest of a model with a thousand layers is far smaller.
const MAX_MANIFEST: u64 = 256 << 20;

/// Length and hash of a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) len: u64,
    pub(super) sha256: [u8; 32],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) manifest: Part,
    pub(super) code: Part,
    pub(super) weights: Part,
}

/// Where the parts are in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ranges {
    pub(super) manifest: Range<usize>,
    pub(super) code: Range<usize>,
    pub(super) weights: Range<usize>,
}

impl Header {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(FORMAT_VERSION.to_le_bytes());
        bytes.extend([0; 4]);
        let parts = [self.manifest, self.code, self.weights];
        parts.iter().for_each(|p| bytes.extend(p.len.to_le_bytes()));
        parts.iter().for_each(|p| bytes.extend(p.sha256));
        bytes
    }

    pub(super) fn parse(file: &[u8], path: &Path) -> Result<Self, ArtifactError> {
        let rest = file
            .strip_prefix(&MAGIC)
            .ok_or_else(|| ArtifactError::NotAnArtifact { path: path.into() })?;
        let damaged = |reason: &str| ArtifactError::Damaged {
            path: path.into(),
            reason: reason.into(),
        };
        let (version, rest) = rest
            .split_first_chunk::<4>()
            .ok_or_else(|| damaged("its header is cut off"))?;
        let found = u32::from_le_bytes(*version);
        if found != FORMAT_VERSION {
            return Err(ArtifactError::Version {
                path: path.into(),
                found,
            });
        }
        let rest = rest
            .get(..LEN as usize - 12)
            .ok_or_else(|| damaged("its header is cut off"))?;
        let (reserved, rest) = rest.split_at(4);
        if reserved != [0; 4] {
            return Err(damaged("its header was changed"));
        }
        let (lens, hashes) = rest.split_at(24);
        let part = |i: usize| {
            let mut part = Part::default();
            let mut len = [0; 8];
            len.copy_from_slice(&lens[8 * i..8 * i + 8]);
            part.len = u64::from_le_bytes(len);
            part.sha256.copy_from_slice(&hashes[32 * i..32 * i + 32]);
            part
        };
        Ok(Header {
            manifest: part(0),
            code: part(1),
            weights: part(2),
        })
    }

    /// Where the code starts.
    pub(super) fn code_start(&self) -> Option<u64> {
        LEN.checked_add(self.manifest.len)?
            .checked_next_multiple_of(CODE_ALIGN)
    }

    /// Where the weights start.
    pub(super) fn weights_start(&self) -> Option<u64> {
        self.code_start()?
            .checked_add(self.code.len)?
            .checked_next_multiple_of(WEIGHTS_ALIGN)
    }

    /// Where the parts are in a file of some length, which they must fill.
    pub(super) fn ranges(&self, file: u64) -> Result<Ranges, String> {
        if self.manifest.len > MAX_MANIFEST {
            return Err(format!("its manifest would have {} bytes", self.manifest.len));
        }
        let end = self
            .weights_start()
            .and_then(|start| start.checked_add(self.weights.len));
        let (Some(code), Some(weights), Some(end)) = (self.code_start(), self.weights_start(), end) else {
            return Err("its parts would be larger than any file".into());
        };
        if end != file {
            return Err(format!("it has {file} bytes, expected {end}"));
        }
        // All within a mapped file, so they fit.
        let range = |start: u64, len: u64| start as usize..(start + len) as usize;
        Ok(Ranges {
            manifest: range(LEN, self.manifest.len),
            code: range(code, self.code.len),
            weights: range(weights, self.weights.len),
        })
    }
}
