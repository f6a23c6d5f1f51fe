//! A model on a device: compiled kernels and weights, shared by all its sessions.

use super::batch::GpuBatch;
use super::driver::{Address, DeviceBuffer, Driver, Function, Owned, Resource};
use super::error::GpuError;
use super::session::GpuSession;
use crate::artifact::Artifact;
use crate::exec::SessionError;
use crate::model::{LoadError, check_weight};
use crate::state::{State, StateLayout};
use crate::weights::WeightData;
use rwkvc_abi::kernel::WALK;
use rwkvc_abi::{Manifest, ProgramKind};
use std::path::Path;
use std::sync::Arc;

/// What weights start at a multiple of in device memory: whole cache lines.
const DEVICE_WEIGHT_ALIGN: u64 = 256;

/// How a program is run on a device. The results are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// One launch after the other, each started from this machine.
    Launches,
    /// All launches recorded once, and then started together. Calls whose number of tokens does not come again are run as
    /// [`Mode::Launches`].
    Graph,
    /// Steps of one token as one launch of [`rwkvc_abi::kernel::WALK`], whose blocks stay for the whole step; other programs as
    /// [`Mode::Launches`].
    Persistent,
}

impl Mode {
    /// Its name: `launches`, `graph` or `persistent`.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Launches => "launches",
            Mode::Graph => "graph",
            Mode::Persistent => "persistent",
        }
    }
}

/// A model that is loaded on a device. It never changes; clones share it.
#[derive(Clone, Debug)]
pub struct GpuModel(Arc<Loaded>);

struct Loaded {
    manifest: Manifest,
    /// By index of [`Manifest::kernels`].
    functions: Vec<Function>,
    walk: Option<Function>,
    /// Kept for the functions.
    _module: Owned,
    /// All weights.
    memory: DeviceBuffer,
    /// Where each weight starts in `memory`.
    offsets: Vec<u64>,
    layout: Arc<StateLayout>,
    fresh: State,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("model", &self.manifest.model.name)
            .field("weights", &self.memory)
            .finish_non_exhaustive()
    }
}

impl GpuModel {
    /// Opens an artifact and loads it on a device.
    ///
    /// # Errors
    /// If the file is not a sound artifact, or the device lacks something that the code needs.
    pub fn open(path: &Path, driver: Arc<dyn Driver>) -> Result<Self, LoadError> {
        Self::from_artifact(Artifact::open(path)?, driver)
    }

    /// Loads an open artifact on a device.
    ///
    /// # Errors
    /// If the device lacks something that the code needs.
    pub fn from_artifact(artifact: Artifact, driver: Arc<dyn Driver>) -> Result<Self, LoadError> {
        let code = artifact.code().to_vec();
        let (manifest, weights) = artifact.into_weights();
        Self::from_parts(manifest, &code, weights, driver)
    }

    /// A model that was compiled just now: its code is PTX text in memory. Offsets of weights are not used. The weights are
    /// copied to the device.
    ///
    /// # Errors
    /// If the parts do not fit together, or the device lacks something that the code needs.
    pub fn from_parts(
        manifest: Manifest,
        ptx: &[u8],
        weights: Vec<WeightData>,
        driver: Arc<dyn Driver>,
    ) -> Result<Self, LoadError> {
        manifest.check()?;
        if !manifest.is_for_gpus() {
            return Err(GpuError::Target(manifest.target.arch).into());
        }
        GpuError::check_architecture(driver.info(), &manifest.target.extensions)?;
        let (found, expected) = (weights.len(), manifest.weights.len());
        if found != expected {
            return Err(LoadError::WeightCount { found, expected });
        }
        let mut offsets = vec![];
        let mut total = 0u64;
        for (info, data) in manifest.weights.iter().zip(&weights) {
            check_weight(info, data).map_err(|reason| LoadError::Weight {
                name: info.name.clone(),
                reason,
            })?;
            offsets.push(total);
            // These bytes are in this machine's memory, so their sum is far from overflow.
            total += info.bytes.next_multiple_of(DEVICE_WEIGHT_ALIGN);
        }
        check_memory(&*driver, "the model's weights", total)?;
        let text = std::str::from_utf8(ptx).map_err(GpuError::NotText)?;
        let module = driver.load(text)?;
        let owned = Owned::new(&driver, Resource::Module(module));
        let function = |symbol: &String| match driver.function(module, symbol)? {
            Some(function) => Ok(function),
            None => Err(LoadError::Kernel {
                symbol: symbol.clone(),
            }),
        };
        let functions = manifest
            .kernels
            .iter()
            .map(|kernel| function(&kernel.symbol))
            .collect::<Result<_, _>>()?;
        let walk = driver.function(module, WALK)?;
        let memory = DeviceBuffer::new(&driver, total)?;
        for (data, offset) in weights.iter().zip(&offsets) {
            let bytes = data.bytes().unwrap_or_default();
            if !bytes.is_empty() {
                driver.upload(memory.address().offset(*offset), bytes)?;
            }
        }
        let layout = Arc::new(StateLayout::of(&manifest));
        let fresh = State::fresh(&layout, &weights).map_err(GpuError::from)?;
        Ok(GpuModel(Arc::new(Loaded {
            manifest,
            functions,
            walk,
            _module: owned,
            memory,
            offsets,
            layout,
            fresh,
        })))
    }

    /// What the code expects, and facts about the model.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// Logits per token.
    pub fn vocab(&self) -> usize {
        self.0.manifest.model.vocab
    }

    /// Whether there is a program of this kind.
    pub fn has(&self, kind: ProgramKind) -> bool {
        self.0.manifest.program(kind).is_some()
    }

    /// Whether the code has what [`Mode::Persistent`] needs.
    pub fn has_walk(&self) -> bool {
        self.0.walk.is_some()
    }

    /// The device.
    pub fn driver(&self) -> &Arc<dyn Driver> {
        self.0.memory.driver()
    }

    /// The state before any token, in this machine's memory.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new_state(&self) -> Result<State, GpuError> {
        Ok(self.0.fresh.fork()?)
    }

    /// One conversation, with a fresh state on the device.
    ///
    /// # Errors
    /// If the device has too little memory, or cannot run the programs in this mode.
    pub fn session(&self, mode: Mode) -> Result<GpuSession, SessionError> {
        GpuSession::new(self, mode)
    }

    /// Many conversations that are advanced together, none at first.
    ///
    /// # Errors
    /// If the model was compiled without a batch program, the device has too little memory, or it cannot run the program in
    /// this mode.
    pub fn batch(&self, mode: Mode) -> Result<GpuBatch, SessionError> {
        GpuBatch::new(self, mode)
    }

    pub(crate) fn layout(&self) -> &Arc<StateLayout> {
        &self.0.layout
    }

    pub(super) fn fresh(&self) -> &State {
        &self.0.fresh
    }

    pub(super) fn function(&self, kernel: usize) -> Function {
        self.0.functions[kernel]
    }

    pub(super) fn walk(&self) -> Option<Function> {
        self.0.walk
    }

    pub(super) fn weight(&self, index: usize) -> Address {
        self.0.memory.address().offset(self.0.offsets[index])
    }
}

/// Checks that the device has this much free memory.
pub(super) fn check_memory(driver: &dyn Driver, what: &'static str, needed: u64) -> Result<(), GpuError> {
    let free = driver.free_memory()?;
    if needed <= free {
        return Ok(());
    }
    Err(GpuError::Memory {
        what,
        needed,
        free,
        name: driver.info().name.clone(),
    })
}
