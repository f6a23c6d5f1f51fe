//! Why a checkpoint is not a model.

use crate::checkpoint::CheckpointError;

/// Why a checkpoint is not an RWKV-7 model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Another architecture.
    #[error("this is {found} (tensor `{tensor}`), which is not supported: rwkvc compiles RWKV-7 and RWKV-7a")]
    Version {
        /// Which.
        found: &'static str,
        /// The tensor that shows it.
        tensor: String,
    },
    /// A tensor that every model has is missing.
    #[error("tensor `{name}` is missing{reason}")]
    Missing {
        /// Its name.
        name: String,
        /// Why it is expected, if that is not obvious.
        reason: String,
    },
    /// A tensor that no model has.
    #[error("tensor `{}` is unknown{}: expected only tensors of RWKV-7", names[0], others(names))]
    Unknown {
        /// All such tensors.
        names: Vec<String>,
    },
    /// Two tensors of one name.
    #[error("there are two tensors named `{name}`")]
    Twice {
        /// The name.
        name: String,
    },
    /// A tensor of another shape than the others imply.
    #[error("tensor `{name}` is {found:?}, expected {expected}: {reason}")]
    Shape {
        /// Its name.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape it should have.
        expected: String,
        /// Where that comes from.
        reason: String,
    },
}

fn others(names: &[String]) -> String {
    match names.len() - 1 {
        0 => String::new(),
        n => format!(" (and {n} more: {})", names[1..names.len().min(6)].join(", ")),
    }
}
