//! Named, typed views of the tensors in a checkpoint file.

mod blocks;
pub(crate) mod gguf;
mod huggingface;
mod legacy;
mod pickle;
mod pth;
mod quantised;
mod safetensors;
mod tensor;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use serde::Serialize;

pub use blocks::BlockFormat;
pub use pickle::PickleError;
pub use quantised::Quantised;
pub use safetensors::parse as parse_safetensors;
pub use tensor::{Storage, Tensor};

/// The layout of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointFormat {
    /// `torch.save` as a zip file.
    Pth,
    /// `torch.save` before version 1.6, without zip.
    PthLegacy,
    /// Safetensors with official names.
    Safetensors,
    /// Safetensors in the Hugging Face / flash-linear-attention layout.
    HuggingFace,
    /// GGUF, as llama.cpp writes it.
    Gguf,
}

/// Why a checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system said no.
    #[error("`{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// The file is none of the known formats.
    #[error(
        "`{path}` is no checkpoint: it {}, expected a zip (.pth), a pickle (older .pth), a safetensors header or GGUF",
        beginning(start)
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Its first bytes.
        start: Vec<u8>,
    },
    /// The file is damaged, or holds something that is not supported.
    #[error("`{path}`: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is the matter.
        reason: String,
    },
    /// A tensor does not fit the file or is of an unsupported kind.
    #[error("`{path}`: tensor `{tensor}` {reason}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is the matter.
        reason: String,
    },
}

/// An open checkpoint: the tensors in the order of the file, under official names.
#[derive(Debug)]
pub struct Checkpoint {
    format: CheckpointFormat,
    tensors: Vec<Tensor>,
    /// Epsilon of the group norm where the layout says one.
    group_norm_eps: Option<f64>,
    /// Epsilon of the layer norms where the layout says one.
    layer_norm_eps: Option<f64>,
    /// What a user should know.
    notes: Vec<String>,
}

impl Checkpoint {
    /// Opens a file of any supported format, or a Hugging Face folder. The tensors stay in the mapped file.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or is no checkpoint.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        if path.is_dir() {
            return huggingface::open_folder(path);
        }
        let map = map(path)?;
        // No header is longer: a longer one is the beginning of some other file.
        let header = |n: u64| (2..=100_000_000).contains(&n);
        match map.get(..9) {
            Some([b'P', b'K', 3 | 5, 4 | 6, ..]) => pth::open(path, map),
            _ if map.starts_with(gguf::MAGIC) => gguf::open(path, map),
            Some([0x80, protocol, ..]) if (2..=5).contains(protocol) => legacy::open(path, map),
            Some([length @ .., b'{']) if length.try_into().is_ok_and(|l| header(u64::from_le_bytes(l))) => {
                huggingface::open_file(path, map)
            }
            _ => {
                let start = map[..map.len().min(8)].to_vec();
                Err(CheckpointError::UnknownFormat {
                    path: path.into(),
                    start,
                })
            }
        }
    }

    /// The layout of the file.
    pub fn format(&self) -> CheckpointFormat {
        self.format
    }

    /// The tensors, in the order of the file.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Epsilon of the group norm, where the layout says one.
    pub fn group_norm_eps(&self) -> Option<f64> {
        self.group_norm_eps
    }

    /// Epsilon of the layer norms, where the layout says one.
    pub fn layer_norm_eps(&self) -> Option<f64> {
        self.layer_norm_eps
    }

    /// What a user should know of how the file is read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

fn beginning(start: &[u8]) -> String {
    if start.is_empty() {
        "is empty".into()
    } else {
        format!("starts with {start:02x?}")
    }
}

fn map(path: &Path) -> Result<Arc<Mmap>, CheckpointError> {
    let io = |source| CheckpointError::Io {
        path: path.into(),
        source,
    };
    // To open a pipe is to wait for its other end.
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(CheckpointError::Malformed {
            path: path.into(),
            reason: "it is not a regular file".into(),
        });
    }
    let file = File::open(path).map_err(io)?;
    // SAFETY: the map is only read. A file that somebody truncates meanwhile ends the process with SIGBUS, as with every
    // program that maps its weights; it cannot corrupt memory.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    Ok(Arc::new(map))
}
