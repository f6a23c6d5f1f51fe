//! Runs compiled models: the end of the line from checkpoint to token.
//!
//! ```text
//! Artifact ──┐            CPU, GPU
//!            ├─> Model ──> Device ──> Session ──> logits ──> Generator ──> text
//! manifest, ─┘  (shared)              (one text; Batch for many)
//! code, weights
//! ```
//!
//! A [`Model`] comes from an artifact, the one file that `rwkvc compile` writes, from parts in memory that were compiled just
//! now, or from kernels that are linked into the program. It never changes. A [`Session`] is a state and the device that
//! advances it, a [`Batch`] many of them. Below these, a [`Workspace`] has the scratch memory and the threads of one caller on
//! a CPU, and a [`State`] is all that the model remembers of one text.
//!
//! ```no_run
//! use rwkvc_runtime::{Model, Session};
//!
//! let model = Model::open("model.rwkvc".as_ref())?;
//! let mut session = Session::new(&model, &Default::default())?;
//!
//! // Read the prompt, then write 20 tokens, each the most likely one.
//! let mut logits = session.prefill(&[510, 6, 2])?;
//! for _ in 0..20 {
//!     let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or(0);
//!     logits = session.step(best as u32)?;
//! }
//! session.save_state("story.state".as_ref())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** this crate knows nothing of graphs and kernels but their manifest: of the workspace it depends on `rwkvc-abi` alone.
//! **Invariant:** code runs only after [`abi::Manifest::check`]: every buffer of every launch is as large as its kernel says.
//! **Invariant:** a step allocates nothing, and its results do not depend on the number of threads.

#[cfg(target_endian = "big")]
compile_error!("weights and states are stored, mapped and used as little-endian numbers");

mod buffer;
mod pending;
mod platform;
mod pool;
mod weights;
mod workspace;

pub mod artifact;
pub mod batch;
#[cfg(feature = "text")]
pub mod chat;
pub mod exec;
#[cfg(feature = "text")]
pub mod generate;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod machine;
pub mod model;
#[cfg(feature = "loader")]
pub mod object;
pub mod sampler;
pub mod session;
pub mod state;
#[cfg(feature = "text")]
pub mod text;
#[cfg(feature = "text")]
pub mod tokenizer;

pub use artifact::{Artifact, ArtifactWriter};
pub use batch::Batch;
pub use buffer::{Buffer, OutOfMemory};
#[cfg(feature = "text")]
pub use generate::{GenerateOptions, Generator};
pub use model::Model;
pub use pending::{PendingFile, remove_pending_files, write_whole};
pub use rwkvc_abi as abi;
pub use session::Session;
pub use state::State;
pub use weights::{SharedBytes, WeightData};
pub use workspace::{Workspace, WorkspaceError, WorkspaceOptions};
