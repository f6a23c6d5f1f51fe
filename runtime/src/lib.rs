//! The tiny runtime.

mod buffer;
mod memory;
mod pending;
mod pool;
mod weights;
mod workspace;

pub mod artifact;
pub mod chat;
pub mod machine;
pub mod manifest;
pub mod model;
pub mod object;
pub mod sampler;
pub mod state;
pub mod text;
pub mod tokenizer;

pub use buffer::{Buffer, OutOfMemory};
pub use artifact::{Artifact, ArtifactWriter};
pub use manifest::Manifest;
pub use model::Model;
pub use pending::remove_pending_files;
pub use state::State;
pub use weights::{SharedBytes, WeightData};
pub use workspace::{Workspace, WorkspaceError, WorkspaceOptions};
