//! Writing an artifact, one weight after the other.

use super::ArtifactError;
use super::header::{Header, Part};
use crate::pending::PendingFile;
use rwkvc_abi::Manifest;
use sha2::{Digest, Sha256};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Writes an artifact without ever holding more than a piece of a weight.
///
/// The file appears under its name when it is complete. If the writer is dropped before, nothing is left;
/// an interrupted program calls [`crate::remove_pending_files`].
pub struct ArtifactWriter {
    out: Hashed,
    path: PathBuf,
    manifest: Manifest,
    header: Header,
    written: usize,
}

impl ArtifactWriter {
    /// Starts an artifact: writes the manifest and the code. The weights' offsets and lengths are set here.
    ///
    /// # Errors
    /// If the manifest is inconsistent, or the file cannot be written.
    pub fn create(path: &Path, mut manifest: Manifest, code: &[u8]) -> Result<Self, ArtifactError> {
        let invalid = |source| ArtifactError::Manifest {
            path: path.into(),
            source,
        };
        manifest.place_weights().map_err(invalid)?;
        manifest.check().map_err(invalid)?;
        let io = |source| ArtifactError::Io {
            path: path.into(),
            source,
        };
        let json = serde_json::to_vec(&manifest).map_err(|error| io(error.into()))?;
        let part = |bytes: &[u8]| Part {
            len: bytes.len() as u64,
            sha256: Sha256::digest(bytes).into(),
        };
        let header = Header {
            manifest: part(&json),
            code: part(code),
            weights: Part::default(),
        };
        let too_large = || io(io::Error::other("the file would be too large"));
        let code_start = header.code_start().ok_or_else(too_large)?;
        let weights_start = header.weights_start().ok_or_else(too_large)?;

        let mut out = Hashed {
            file: PendingFile::create(path).map_err(io)?,
            position: 0,
            sha256: Sha256::new(),
        };
        let start = |out: &mut Hashed| {
            out.write_all(&header.to_bytes())?;
            out.write_all(&json)?;
            out.pad_to(code_start)?;
            out.write_all(code)?;
            out.pad_to(weights_start)
        };
        start(&mut out).map_err(io)?;
        // From here on, positions count from the start of the weights.
        (out.position, out.sha256) = (0, Sha256::new());
        Ok(ArtifactWriter {
            out,
            path: path.into(),
            manifest,
            header,
            written: 0,
        })
    }

    /// The manifest as it was written.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Writes the next weight's bytes, in the order of [`Manifest::weights`].
    ///
    /// # Errors
    /// If there is no further weight, its length is another, or the file cannot be written.
    pub fn weight(&mut self, bytes: &[u8]) -> Result<(), ArtifactError> {
        self.weight_with(|out| out.write_all(bytes))
    }

    /// Writes the next weight in as many pieces as `write` likes.
    ///
    /// # Errors
    /// As [`Self::weight`], and whatever `write` returns.
    pub fn weight_with(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), ArtifactError> {
        let count = self.manifest.weights.len();
        let Some(weight) = self.manifest.weights.get(self.written) else {
            return Err(ArtifactError::WeightCount {
                found: self.written + 1,
                expected: count,
            });
        };
        let io = |source| ArtifactError::Io {
            path: self.path.clone(),
            source,
        };
        self.out.pad_to(weight.offset).map_err(io)?;
        write(&mut self.out).map_err(io)?;
        let (found, expected) = (self.out.position - weight.offset, weight.bytes);
        if found != expected {
            return Err(ArtifactError::WeightLength {
                name: weight.name.clone(),
                found,
                expected,
            });
        }
        self.written += 1;
        Ok(())
    }

    /// Completes the file and gives it its name, replacing what has it.
    ///
    /// # Errors
    /// If weights are missing, or the file cannot be written.
    pub fn finish(self) -> Result<(), ArtifactError> {
        let ArtifactWriter {
            out,
            path,
            manifest,
            mut header,
            written,
        } = self;
        if written != manifest.weights.len() {
            return Err(ArtifactError::WeightCount {
                found: written,
                expected: manifest.weights.len(),
            });
        }
        let Hashed {
            file: mut pending,
            position,
            sha256,
        } = out;
        header.weights = Part {
            len: position,
            sha256: sha256.finalize().into(),
        };
        let end = |pending: &mut PendingFile| {
            let file = pending.file_mut()?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&header.to_bytes())
        };
        end(&mut pending)
            .and_then(|()| pending.finish())
            .map_err(|source| ArtifactError::Io { path, source })
    }
}

/// A file that knows its position and the hash of what was written.
struct Hashed {
    file: PendingFile,
    position: u64,
    sha256: Sha256,
}

impl Hashed {
    fn pad_to(&mut self, position: u64) -> io::Result<()> {
        let missing = position.saturating_sub(self.position);
        io::copy(&mut io::Read::take(io::repeat(0), missing), self).map(|_| ())
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.sha256.update(&bytes[..n]);
        self.position += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
