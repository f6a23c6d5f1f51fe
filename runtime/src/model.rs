//! A model that is ready to run: checked manifest, loaded code and weights in memory.

mod step;

#[cfg(feature = "loader")]
use crate::artifact::Artifact;
use crate::artifact::ArtifactError;
use crate::batch::Batch;
use crate::buffer::OutOfMemory;
use crate::exec::SessionError;
#[cfg(feature = "gpu")]
use crate::gpu::GpuError;
use crate::machine::{self, MachineError};
#[cfg(feature = "loader")]
use crate::object::{Code, ObjectError};
use crate::state::{State, StateLayout};
use crate::weights::WeightData;
use crate::workspace::{Workspace, WorkspaceError, WorkspaceOptions};
use rwkvc_abi::KernelFn;
use rwkvc_abi::{Manifest, ManifestError, ProgramKind, WeightInfo};
#[cfg(feature = "loader")]
use std::path::Path;
use std::sync::Arc;

pub use step::StepError;

/// Why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be used.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The manifest is not consistent.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// This machine cannot run the code.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The code cannot be loaded.
    #[cfg(feature = "loader")]
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The code lacks a kernel that the manifest names.
    #[error("the code has no kernel `{symbol}`")]
    Kernel {
        /// Its name.
        symbol: String,
    },
    /// A weight is not what the manifest says.
    #[error("weight `{name}` {reason}")]
    Weight {
        /// Its name.
        name: String,
        /// What is the matter.
        reason: String,
    },
    /// The device cannot run it.
    #[cfg(feature = "gpu")]
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// There are more or fewer weights than the manifest has.
    #[error("{found} weights, expected {expected}")]
    WeightCount {
        /// Weights given.
        found: usize,
        /// Weights in the manifest.
        expected: usize,
    },
}

/// A loaded model. It never changes; clones share it, and any number of threads may use it, each with a [`Workspace`]
/// and [`State`]s of its own.
#[derive(Clone, Debug)]
pub struct Model(Arc<Loaded>);

#[derive(Debug)]
struct Loaded {
    manifest: Manifest,
    /// By index of [`Manifest::kernels`].
    kernels: Vec<KernelFn>,
    /// Kept for kernels that were loaded; linked ones are part of the program.
    #[cfg(feature = "loader")]
    _code: Option<Code>,
    weights: Vec<WeightData>,
    layout: Arc<StateLayout>,
}

impl Loaded {
    /// Takes a checked manifest and a kernel for each of its symbols.
    fn new(manifest: Manifest, kernels: Vec<KernelFn>, weights: Vec<WeightData>) -> Result<Self, LoadError> {
        let (found, expected) = (weights.len(), manifest.weights.len());
        if found != expected {
            return Err(LoadError::WeightCount { found, expected });
        }
        for (info, data) in manifest.weights.iter().zip(&weights) {
            check_weight(info, data).map_err(|reason| LoadError::Weight {
                name: info.name.clone(),
                reason,
            })?;
        }
        Ok(Loaded {
            layout: Arc::new(StateLayout::of(&manifest)),
            manifest,
            kernels,
            #[cfg(feature = "loader")]
            _code: None,
            weights,
        })
    }
}

/// The function of each kernel of a manifest.
fn find_kernels(
    manifest: &Manifest,
    kernel: impl Fn(&str) -> Option<KernelFn>,
) -> Result<Vec<KernelFn>, LoadError> {
    let symbols = manifest.kernels.iter().map(|k| &k.symbol);
    let found = symbols.map(|symbol| {
        kernel(symbol).ok_or_else(|| LoadError::Kernel {
            symbol: symbol.clone(),
        })
    });
    found.collect()
}

impl Model {
    /// Opens an artifact and loads its code.
    ///
    /// # Errors
    /// If the file is not a sound artifact, or this machine lacks something that the code needs.
    #[cfg(feature = "loader")]
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        Self::from_artifact(Artifact::open(path)?)
    }

    /// Loads an open artifact.
    ///
    /// # Errors
    /// If this machine lacks something that the code needs, or the code is not sound.
    #[cfg(feature = "loader")]
    pub fn from_artifact(artifact: Artifact) -> Result<Self, LoadError> {
        machine::check(&artifact.manifest().target)?;
        let code = Code::load(artifact.code())?;
        let (manifest, weights) = artifact.into_weights();
        Self::loaded(manifest, code, weights)
    }

    /// A model that was compiled just now: its code is an object in memory. Offsets of weights are not used.
    ///
    /// # Errors
    /// If the parts do not fit together, or this machine cannot run the code.
    #[cfg(feature = "loader")]
    pub fn from_parts(
        manifest: Manifest,
        object: &[u8],
        weights: Vec<WeightData>,
    ) -> Result<Self, LoadError> {
        manifest.check()?;
        machine::check(&manifest.target)?;
        Self::loaded(manifest, Code::load(object)?, weights)
    }

    /// A model whose kernels are part of the program: `kernels` has the function of each symbol of the manifest.
    ///
    /// # Safety
    /// The functions must be those that the manifest was written for: each stays within buffers of the sizes that the manifest
    /// gives for its symbol.
    ///
    /// # Errors
    /// If the parts do not fit together, or this machine cannot run the code.
    pub unsafe fn from_linked(
        manifest: Manifest,
        kernels: &[(&str, KernelFn)],
        weights: Vec<WeightData>,
    ) -> Result<Self, LoadError> {
        manifest.check()?;
        machine::check(&manifest.target)?;
        let kernel = |symbol: &str| kernels.iter().find(|(name, _)| *name == symbol).map(|(_, f)| *f);
        let kernels = find_kernels(&manifest, kernel)?;
        Ok(Model(Arc::new(Loaded::new(manifest, kernels, weights)?)))
    }

    /// Takes a checked manifest.
    #[cfg(feature = "loader")]
    fn loaded(manifest: Manifest, code: Code, weights: Vec<WeightData>) -> Result<Self, LoadError> {
        let kernels = find_kernels(&manifest, |symbol| code.kernel(symbol))?;
        let mut loaded = Loaded::new(manifest, kernels, weights)?;
        loaded._code = Some(code);
        Ok(Model(Arc::new(loaded)))
    }

    /// What the model says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// The number of tokens it knows, and of logits it gives.
    pub fn vocab(&self) -> usize {
        self.0.manifest.model.vocab
    }

    /// Whether a program was compiled.
    pub fn has(&self, kind: ProgramKind) -> bool {
        self.0.manifest.program(kind).is_some()
    }

    /// Moves weights that are mapped from a file into huge pages, where steps read them some percent faster, and returns how
    /// many bytes that were. Tables, of which a step reads a row, stay in the file. Takes about a third of a second for each gigabyte; steps may run meanwhile. The memory in use
    /// stays the same, but is not shared with other processes any more, and the system cannot drop it when it is short of
    /// memory. So nothing is done where this would take more than half of the memory that is free, or where the system has
    /// no huge pages. Linux only.
    pub fn use_huge_pages(&self) -> u64 {
        let weights = self.0.weights.iter().zip(self.0.manifest.weights_read_whole());
        let mapped = weights.filter(|(weight, is_read)| *is_read && weight.is_mapped());
        let mapped = mapped.filter_map(|(weight, _)| weight.bytes());
        // SAFETY: `WeightData` says that these are mappings of files that nobody writes to, and `self` keeps them.
        unsafe { crate::platform::move_to_huge_pages(mapped) }
    }

    /// The state before any token.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new_state(&self) -> Result<State, OutOfMemory> {
        State::fresh(&self.0.layout, &self.0.weights)
    }

    /// The memory that steps need besides the state: one per thread of the caller.
    ///
    /// # Errors
    /// If memory or threads are not to be had.
    pub fn workspace(&self, options: &WorkspaceOptions) -> Result<Workspace, WorkspaceError> {
        Workspace::new(self, options)
    }

    /// States that advance together, none at first, with the memory and threads for it.
    ///
    /// # Errors
    /// If the model was compiled without a batch program, or memory or threads are not to be had.
    pub fn batch(&self, options: &WorkspaceOptions) -> Result<Batch, SessionError> {
        Batch::new(self, options)
    }

    pub(crate) fn layout(&self) -> &Arc<StateLayout> {
        &self.0.layout
    }

    pub(crate) fn kernel(&self, index: usize) -> KernelFn {
        self.0.kernels[index]
    }

    pub(crate) fn weight(&self, index: usize) -> *const u8 {
        self.0.weights[index].bytes().unwrap_or_default().as_ptr()
    }

    pub(crate) fn is(&self, other: &Model) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

pub(crate) fn check_weight(info: &WeightInfo, data: &WeightData) -> Result<(), String> {
    let bytes = data.bytes().ok_or("is outside of its file")?;
    if bytes.len() as u64 != info.bytes {
        return Err(format!("has {} bytes, expected {}", bytes.len(), info.bytes));
    }
    let align = info.element_size().unwrap_or(1);
    if !(bytes.as_ptr() as u64).is_multiple_of(align) {
        return Err(format!("is not aligned to its {align}-byte elements"));
    }
    Ok(())
}
