//! What a device of fibers has handed out, and running what it was given.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use rwkvc_runtime::gpu::{Address, Event, Function, GpuError, Graph, KernelLaunch, Module};

use super::super::grid::{Launch, Program};
use super::super::memory::Guarded;

#[derive(Default)]
pub(super) struct Device {
    /// By first address.
    pub(super) memory: BTreeMap<u64, Guarded>,
    pub(super) modules: HashMap<Module, Program>,
    pub(super) functions: HashMap<Function, (Module, String)>,
    pub(super) graphs: HashMap<Graph, Vec<Recorded>>,
    pub(super) events: HashMap<Event, Option<Instant>>,
    /// How many handles there were.
    handles: u64,
    pub(super) launches: usize,
}

pub(super) struct Recorded {
    pub(super) function: Function,
    pub(super) grid: u32,
    pub(super) threads: u32,
    pub(super) args: Vec<u64>,
    pub(super) cooperative: bool,
}

impl Device {
    pub(super) fn handle(&mut self) -> u64 {
        self.handles += 1;
        self.handles
    }

    /// Bytes of one piece of memory.
    pub(super) fn range(
        &mut self,
        call: &'static str,
        at: Address,
        bytes: u64,
    ) -> Result<&mut [u8], GpuError> {
        let piece = self.memory.range_mut(..=at.0).next_back();
        let range = piece.and_then(|(start, memory)| {
            let start = at.0 - start;
            let end = start.checked_add(bytes)?;
            memory.bytes_mut().get_mut(start as usize..end as usize)
        });
        range.ok_or(GpuError::Range {
            call,
            address: at.0,
            bytes,
        })
    }

    /// # Safety
    /// As `Driver::launch`.
    pub(super) unsafe fn launch(&mut self, launch: &KernelLaunch<'_>) -> Result<(), GpuError> {
        let found = self.functions.get(&launch.function);
        let (module, name) = found.ok_or_else(|| unknown("launch", &launch.function))?;
        let program = self
            .modules
            .get_mut(module)
            .ok_or_else(|| unknown("launch", module))?;
        self.launches += 1;
        let run = Launch {
            blocks: launch.grid,
            threads: launch.threads,
            args: launch.args,
            all_at_once: launch.cooperative,
        };
        // SAFETY: the caller has promised the same.
        unsafe { program.launch(name, &run) }.map_err(|reason| failure("launch", reason))?;
        match self.memory.values().all(Guarded::is_intact) {
            true => Ok(()),
            false => Err(failure(
                "launch",
                format!("kernel `{name}`: bytes around a buffer have changed"),
            )),
        }
    }
}

pub(super) fn failure(call: &'static str, description: String) -> GpuError {
    GpuError::Call {
        call,
        name: "fibers".into(),
        description,
    }
}

pub(super) fn unknown(call: &'static str, handle: &dyn std::fmt::Debug) -> GpuError {
    failure(call, format!("{handle:?} is not of this device"))
}
