//! Fibers as a device of the runtime: whole models run on them as they do on a GPU.
//!
//! Its code is LLVM IR in place of PTX. Its memory is this machine's, and its stream is never behind.

mod device;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rwkvc_runtime::gpu::{
    Address, DeviceInfo, Driver, Event, Function, GpuError, Graph, KernelLaunch, Module, Resource,
};

use super::grid::Program;
use super::memory::Guarded;
use device::{Device, Recorded, failure, unknown};

/// A device of a few multiprocessors, each of which runs one block at a time.
pub struct FiberDriver {
    info: DeviceInfo,
    device: Mutex<Device>,
}

impl FiberDriver {
    /// As many blocks as multiprocessors can wait for each other.
    pub fn new(multiprocessors: u32) -> Self {
        FiberDriver {
            info: DeviceInfo {
                name: "fibers".into(),
                capability: (9, 0),
                memory_bytes: 1 << 30,
                multiprocessors,
                l2_bytes: 1 << 20,
                driver_version: 13_000,
            },
            device: Mutex::default(),
        }
    }

    /// What was handed out and not taken back: pieces of memory, modules, graphs and events.
    pub fn handed_out(&self) -> usize {
        let device = self.device();
        device.memory.len() + device.modules.len() + device.graphs.len() + device.events.len()
    }

    /// How many kernels were run.
    pub fn launches(&self) -> usize {
        self.device().launches
    }

    fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, launch: &KernelLaunch<'_>) -> Result<(), GpuError> {
        let most = self.info.multiprocessors;
        match launch.grid {
            0 => Err(failure("launch", "a grid has no blocks".into())),
            grid if launch.cooperative && grid > most => {
                let reason = format!("{grid} blocks must be resident at the same time, {most} can be");
                Err(failure("launch", reason))
            }
            _ => Ok(()),
        }
    }
}

impl Driver for FiberDriver {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn free_memory(&self) -> Result<u64, GpuError> {
        let used: u64 = self
            .device()
            .memory
            .values()
            .map(|memory| memory.len() as u64)
            .sum();
        Ok(self.info.memory_bytes - used)
    }

    fn load(&self, ptx: &str) -> Result<Module, GpuError> {
        let program = Program::compile(ptx).map_err(|log| GpuError::Ptx {
            name: "fibers".into(),
            log,
        })?;
        let mut device = self.device();
        let module = Module(device.handle());
        device.modules.insert(module, program);
        Ok(module)
    }

    fn function(&self, module: Module, name: &str) -> Result<Option<Function>, GpuError> {
        let mut device = self.device();
        let program = device
            .modules
            .get(&module)
            .ok_or_else(|| unknown("function", &module))?;
        if !program.has(name) {
            return Ok(None);
        }
        let function = Function(device.handle());
        device.functions.insert(function, (module, name.into()));
        Ok(Some(function))
    }

    fn allocate(&self, bytes: u64) -> Result<Address, GpuError> {
        let free = self.free_memory()?;
        if bytes == 0 || bytes > free {
            return Err(GpuError::Memory {
                what: "an allocation",
                needed: bytes,
                free,
                name: self.info.name.clone(),
            });
        }
        let memory = Guarded::undefined(bytes as usize);
        let address = memory.address();
        self.device().memory.insert(address, memory);
        Ok(Address(address))
    }

    fn release(&self, resource: Resource) {
        let mut device = self.device();
        let was_there = match resource {
            Resource::Module(module) => {
                device.functions.retain(|_, (of, _)| *of != module);
                device.modules.remove(&module).is_some()
            }
            Resource::Memory(address) => device.memory.remove(&address.0).is_some(),
            Resource::Graph(graph) => device.graphs.remove(&graph).is_some(),
            Resource::Event(event) => device.events.remove(&event).is_some(),
        };
        assert!(was_there, "{resource:?} was released before, or never handed out");
    }

    fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), GpuError> {
        let mut device = self.device();
        device
            .range("upload", to, bytes.len() as u64)?
            .copy_from_slice(bytes);
        Ok(())
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), GpuError> {
        let mut device = self.device();
        bytes.copy_from_slice(device.range("download", from, bytes.len() as u64)?);
        Ok(())
    }

    fn copy(&self, from: Address, to: Address, bytes: u64) -> Result<(), GpuError> {
        let mut device = self.device();
        let copied = device.range("copy", from, bytes)?.to_vec();
        device.range("copy", to, bytes)?.copy_from_slice(&copied);
        Ok(())
    }

    fn zero(&self, at: Address, bytes: u64) -> Result<(), GpuError> {
        self.device().range("zero", at, bytes)?.fill(0);
        Ok(())
    }

    unsafe fn launch(&self, launch: &KernelLaunch<'_>) -> Result<(), GpuError> {
        self.check(launch)?;
        // SAFETY: the caller has promised the same.
        unsafe { self.device().launch(launch) }
    }

    unsafe fn record(&self, launches: &[KernelLaunch<'_>]) -> Result<Graph, GpuError> {
        launches.iter().try_for_each(|launch| self.check(launch))?;
        let recorded = launches.iter().map(|launch| Recorded {
            function: launch.function,
            grid: launch.grid,
            threads: launch.threads,
            args: launch.args.to_vec(),
            cooperative: launch.cooperative,
        });
        let mut device = self.device();
        let graph = Graph(device.handle());
        device.graphs.insert(graph, recorded.collect());
        Ok(graph)
    }

    fn replay(&self, graph: Graph) -> Result<(), GpuError> {
        let mut device = self.device();
        let recorded = device
            .graphs
            .remove(&graph)
            .ok_or_else(|| unknown("replay", &graph))?;
        let result = recorded.iter().try_for_each(|recorded| {
            let launch = KernelLaunch {
                function: recorded.function,
                grid: recorded.grid,
                threads: recorded.threads,
                args: &recorded.args,
                cooperative: recorded.cooperative,
            };
            // SAFETY: promised when it was recorded, until the graph is released.
            unsafe { device.launch(&launch) }
        });
        device.graphs.insert(graph, recorded);
        result
    }

    fn occupancy(&self, _: Function, _: u32) -> Result<u32, GpuError> {
        Ok(1)
    }

    fn event(&self) -> Result<Event, GpuError> {
        let mut device = self.device();
        let event = Event(device.handle());
        device.events.insert(event, None);
        Ok(event)
    }

    fn mark(&self, event: Event) -> Result<(), GpuError> {
        let mut device = self.device();
        let time = device
            .events
            .get_mut(&event)
            .ok_or_else(|| unknown("mark", &event))?;
        *time = Some(Instant::now());
        Ok(())
    }

    fn elapsed(&self, from: Event, to: Event) -> Result<u64, GpuError> {
        let device = self.device();
        let time = |event: Event| {
            let time = device.events.get(&event).copied().flatten();
            time.ok_or_else(|| unknown("elapsed", &event))
        };
        Ok(time(to)?.duration_since(time(from)?).as_nanos() as u64)
    }

    fn synchronize(&self) -> Result<(), GpuError> {
        Ok(())
    }
}
