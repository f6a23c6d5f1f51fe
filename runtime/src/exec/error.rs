//! Why a call was not done.

use crate::batch::MemberError;
use crate::buffer::OutOfMemory;
#[cfg(feature = "gpu")]
use crate::gpu::GpuError;
use crate::model::StepError;
use crate::state::StateError;
use crate::workspace::WorkspaceError;

/// Why a session did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The call makes no sense; nothing was done.
    #[error(transparent)]
    Step(#[from] StepError),
    /// There is no memory for a state.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
    /// There is no memory, or there are no threads, for the steps.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// The device failed; the state is lost until it is set again.
    #[cfg(feature = "gpu")]
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The members of a batch are others; nothing was done.
    #[error(transparent)]
    Members(#[from] MemberError),
    /// The device cannot do this.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A device that is not of this crate failed.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl From<StateError> for SessionError {
    fn from(error: StateError) -> Self {
        StepError::from(error).into()
    }
}
