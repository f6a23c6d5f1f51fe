//! The one file that a compiled model is.
//!
//! ```text
//! header     136 bytes   magic, version, lengths and SHA-256 of the three parts
//! manifest   JSON        what the code expects: see [`rwkvc_abi::Manifest`]
//! code       ELF object  from the next multiple of 64 on
//! weights    raw         from the next multiple of 4096 on, to the end of the file; each weight at a multiple of 64
//! ```
//!
//! Manifest and code are verified whenever an artifact is opened. The weights are mapped, and verified on request: that
//! reads all of them.

mod header;
mod writer;

use crate::weights::WeightData;
use header::{Header, Ranges};
use memmap2::{Advice, Mmap};
use rwkvc_abi::{Manifest, ManifestError};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use writer::ArtifactWriter;

/// Why an artifact cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The file system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It does not begin like an artifact.
    #[error("{} is not a compiled model", path.display())]
    NotAnArtifact {
        /// The file.
        path: PathBuf,
    },
    /// Written by another version.
    #[error(
        "{} has format version {found}, this program reads version {}: compile the model again",
        path.display(), rwkvc_abi::FORMAT_VERSION
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A part is cut off or was changed.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How that shows.
        reason: String,
    },
    /// The manifest is not consistent.
    #[error("{}: {source}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ManifestError,
    },
    /// The writer was given other weights than the manifest says.
    #[error("weight `{name}` has {found} bytes, expected {expected}")]
    WeightLength {
        /// The weight.
        name: String,
        /// Bytes given.
        found: u64,
        /// Bytes by its dtype and shape.
        expected: u64,
    },
    /// The writer was given more or fewer weights than the manifest has.
    #[error("{found} weights were written, expected {expected}")]
    WeightCount {
        /// Weights given.
        found: usize,
        /// Weights in the manifest.
        expected: usize,
    },
}

/// An open artifact: a checked manifest, code and mapped weights.
///
/// **Invariant:** [`Manifest::check`] succeeded, and all weights lie within the file.
#[derive(Debug)]
pub struct Artifact {
    path: PathBuf,
    bytes: Bytes,
    manifest: Manifest,
    header: Header,
    ranges: Ranges,
}

/// Where the bytes of an artifact are.
#[derive(Debug)]
enum Bytes {
    /// In a file.
    Mapped(Arc<Mmap>),
    /// In the program.
    Static(&'static [u8]),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
        }
    }
}

impl Artifact {
    /// Opens and checks an artifact, for any machine. The file must not change while it is open.
    ///
    /// # Errors
    /// If the file cannot be read, is not an artifact of this version, or is damaged anywhere but in the weights.
    pub fn open(path: &Path) -> Result<Self, ArtifactError> {
        let io = |source| ArtifactError::Io {
            path: path.into(),
            source,
        };
        // Opening something that is no file, like a pipe, could wait forever.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(ArtifactError::NotAnArtifact { path: path.into() });
        }
        let file = File::open(path).map_err(io)?;
        // SAFETY: the bytes are only read, and all that is concluded from them (manifest, code) is copied out before it is
        // used. That nobody changes the file meanwhile is the documented condition.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Artifact::of(Bytes::Mapped(Arc::new(map)), path)
    }

    /// Checks an artifact that is a part of this program, such as by `include_bytes!`. Its weights are used where they are, so it
    /// must start at a multiple of 64 bytes.
    ///
    /// # Errors
    /// If it is not an artifact of this version, or is damaged anywhere but in the weights.
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, ArtifactError> {
        Artifact::of(Bytes::Static(bytes), Path::new("the built-in artifact"))
    }

    /// `path` is what errors name it.
    fn of(bytes: Bytes, path: &Path) -> Result<Self, ArtifactError> {
        let damaged = |reason: String| ArtifactError::Damaged {
            path: path.into(),
            reason,
        };
        let header = Header::parse(&bytes, path)?;
        let ranges = header.ranges(bytes.len() as u64).map_err(damaged)?;
        for (what, range, expected) in [
            ("manifest", &ranges.manifest, &header.manifest.sha256),
            ("code", &ranges.code, &header.code.sha256),
        ] {
            if Sha256::digest(&bytes[range.clone()]).as_slice() != expected {
                return Err(damaged(format!("its {what} was changed")));
            }
        }
        let manifest: Manifest = serde_json::from_slice(&bytes[ranges.manifest.clone()])
            .map_err(|error| damaged(format!("its manifest cannot be read: {error}")))?;
        manifest.check().map_err(|source| ArtifactError::Manifest {
            path: path.into(),
            source,
        })?;
        for weight in &manifest.weights {
            if weight
                .offset
                .checked_add(weight.bytes)
                .is_none_or(|end| end > header.weights.len)
            {
                return Err(damaged(format!("weight `{}` is not in the file", weight.name)));
            }
        }
        Ok(Artifact {
            path: path.into(),
            bytes,
            manifest,
            header,
            ranges,
        })
    }

    /// Whether a file begins like an artifact, whatever its version.
    pub fn is_artifact(start: &[u8]) -> bool {
        start.starts_with(&header::MAGIC)
    }

    /// What the artifact says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The relocatable object with the kernels.
    pub fn code(&self) -> &[u8] {
        &self.bytes[self.ranges.code.clone()]
    }

    /// The bytes of a weight; `None` if there are fewer.
    pub fn weight(&self, index: usize) -> Option<&[u8]> {
        Some(&self.bytes[self.weight_range(index)?])
    }

    /// Reads all weights and compares them with their hash.
    ///
    /// # Errors
    /// If they were changed.
    pub fn verify(&self) -> Result<(), ArtifactError> {
        if Sha256::digest(&self.bytes[self.ranges.weights.clone()]).as_slice() == self.header.weights.sha256 {
            return Ok(());
        }
        Err(ArtifactError::Damaged {
            path: self.path.clone(),
            reason: "its weights were changed".into(),
        })
    }

    fn weight_range(&self, index: usize) -> Option<std::ops::Range<usize>> {
        let weight = self.manifest.weights.get(index)?;
        // Within the file, so it fits.
        let start = self.ranges.weights.start + weight.offset as usize;
        Some(start..start + weight.bytes as usize)
    }

    /// The manifest and the weights, which are about to be used.
    pub fn into_weights(self) -> (Manifest, Vec<WeightData>) {
        let count = self.manifest.weights.len();
        let ranges = (0..count).filter_map(|i| self.weight_range(i));
        let weights = match &self.bytes {
            Bytes::Mapped(map) => {
                self.advise(map);
                ranges
                    .map(|range| WeightData::mapped(Arc::clone(map), range))
                    .collect()
            }
            Bytes::Static(bytes) => ranges.map(|range| WeightData::of_static(bytes, range)).collect(),
        };
        (self.manifest, weights)
    }

    /// Hints only: without them, the first tokens wait for the disk more often.
    fn advise(&self, map: &Mmap) {
        let Range { start, end } = self.ranges.weights;
        let _ = map.advise_range(Advice::WillNeed, start, end - start);
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(Advice::HugePage, start, end - start);
    }
}
