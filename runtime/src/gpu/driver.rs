//! What the runtime needs of a GPU: memory, compiled kernels and one stream of work.
//!
//! Everything that a [`Driver`] is told to do happens in the order of the calls, one after the other, whichever thread
//! they come from: there is one stream. Only [`Driver::download`], [`Driver::elapsed`] and [`Driver::synchronize`] wait
//! for it.

use super::error::GpuError;
use crate::buffer::Buffer;
use std::sync::Arc;

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name, as its maker writes it.
    pub name: String,
    /// The compute capability, major and minor: (8, 6) runs code for `sm_86` and before.
    pub capability: (u32, u32),
    /// All of its memory.
    pub memory_bytes: u64,
    /// Multiprocessors: each runs some blocks at a time.
    pub multiprocessors: u32,
    /// Bytes of the cache that all multiprocessors share.
    pub l2_bytes: u64,
    /// The version of CUDA that its driver knows, as 1000 · major + 10 · minor.
    pub driver_version: u32,
}

/// A PTX module that was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Module(pub u64);

/// A kernel of a loaded module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Function(pub u64);

/// A place in the device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub u64);

/// Launches that were recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Graph(pub u64);

/// A mark in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event(pub u64);

/// What a driver hands out and takes back with [`Driver::release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// From [`Driver::load`]; its functions go with it.
    Module(Module),
    /// From [`Driver::allocate`]: the start of the memory.
    Memory(Address),
    /// From [`Driver::record`].
    Graph(Graph),
    /// From [`Driver::event`].
    Event(Event),
}

/// One run of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelLaunch<'a> {
    /// The kernel.
    pub function: Function,
    /// Blocks, at least 1.
    pub grid: u32,
    /// Threads of each block.
    pub threads: u32,
    /// All parameters, 64 bits each: addresses and numbers.
    pub args: &'a [u64],
    /// Whether all blocks must be resident at the same time, because they wait for each other.
    pub cooperative: bool,
}

/// A device, as far as models need one.
///
/// Implementations must check that ranges given to [`Self::upload`], [`Self::download`], [`Self::copy`] and
/// [`Self::zero`] lie within one piece of memory that they have handed out, and that handles are theirs.
pub trait Driver: Send + Sync {
    /// What the device is.
    fn info(&self) -> &DeviceInfo;

    /// Bytes of device memory that are free now.
    ///
    /// # Errors
    /// If the device cannot be asked.
    fn free_memory(&self) -> Result<u64, GpuError>;

    /// Compiles PTX for the device.
    ///
    /// # Errors
    /// [`GpuError::Ptx`] with what the driver's compiler says, if it refuses the text.
    fn load(&self, ptx: &str) -> Result<Module, GpuError>;

    /// The kernel of that name; `None` if the module has none.
    ///
    /// # Errors
    /// If the device cannot be asked.
    fn function(&self, module: Module, name: &str) -> Result<Option<Function>, GpuError>;

    /// Device memory for `bytes` (at least 1), with any content, from an address that is a multiple of 256 on.
    ///
    /// # Errors
    /// [`GpuError::Memory`] if there is not enough.
    fn allocate(&self, bytes: u64) -> Result<Address, GpuError>;

    /// Takes something back, once the stream is through with it.
    fn release(&self, resource: Resource);

    /// Copies bytes to the device. They have been read when this returns.
    ///
    /// # Errors
    /// If the range is not memory of the device, or the device fails.
    fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), GpuError>;

    /// Waits for the stream, and copies bytes from the device.
    ///
    /// # Errors
    /// If the range is not memory of the device, or anything in the stream failed.
    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), GpuError>;

    /// Copies bytes within the device; the ranges do not overlap.
    ///
    /// # Errors
    /// If a range is not memory of the device, or the device fails.
    fn copy(&self, from: Address, to: Address, bytes: u64) -> Result<(), GpuError>;

    /// Makes bytes zero.
    ///
    /// # Errors
    /// If the range is not memory of the device, or the device fails.
    fn zero(&self, at: Address, bytes: u64) -> Result<(), GpuError>;

    /// Runs a kernel.
    ///
    /// # Safety
    /// The kernel must take these parameters, and touch only memory that this driver has handed out and that stays until
    /// the stream is through with the launch.
    ///
    /// # Errors
    /// If it cannot be started; that it failed may only show at a later call.
    unsafe fn launch(&self, launch: &KernelLaunch<'_>) -> Result<(), GpuError>;

    /// Records launches, which are not run now, to be run in this order by [`Self::replay`].
    ///
    /// # Safety
    /// As for [`Self::launch`], until the graph is released.
    ///
    /// # Errors
    /// If they cannot be recorded.
    unsafe fn record(&self, launches: &[KernelLaunch<'_>]) -> Result<Graph, GpuError>;

    /// Runs all launches of a graph.
    ///
    /// # Errors
    /// If they cannot be started; that one failed may only show at a later call.
    fn replay(&self, graph: Graph) -> Result<(), GpuError>;

    /// How many blocks of this many threads one multiprocessor runs at a time.
    ///
    /// # Errors
    /// If the device cannot be asked.
    fn occupancy(&self, function: Function, threads: u32) -> Result<u32, GpuError>;

    /// A mark that can be set and looked at.
    ///
    /// # Errors
    /// If the device has no more.
    fn event(&self) -> Result<Event, GpuError>;

    /// Sets a mark at the present end of the stream.
    ///
    /// # Errors
    /// If the device fails.
    fn mark(&self, event: Event) -> Result<(), GpuError>;

    /// Waits until the stream has passed both marks, which were set; nanoseconds from the first to the second.
    ///
    /// # Errors
    /// If anything in the stream failed.
    fn elapsed(&self, from: Event, to: Event) -> Result<u64, GpuError>;

    /// Waits until the stream is empty.
    ///
    /// # Errors
    /// If anything in it failed.
    fn synchronize(&self) -> Result<(), GpuError>;

    /// Zeroed memory of this machine that [`Self::download`] writes to fastest.
    ///
    /// # Errors
    /// If there is not enough.
    fn host_memory(&self, bytes: u64) -> Result<Box<dyn HostMemory>, GpuError> {
        match Buffer::zeroed(bytes) {
            Ok(buffer) => Ok(Box::new(buffer)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Memory of this machine, from an address that is a multiple of 64 on.
pub trait HostMemory: Send + Sync {
    /// The bytes.
    fn bytes(&self) -> &[u8];

    /// The bytes, to be changed.
    fn bytes_mut(&mut self) -> &mut [u8];
}

impl HostMemory for Buffer {
    fn bytes(&self) -> &[u8] {
        Buffer::bytes(self)
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        Buffer::bytes_mut(self)
    }
}

/// Something of a driver, released when this value goes.
pub(crate) struct Owned {
    driver: Arc<dyn Driver>,
    resource: Resource,
}

impl Owned {
    pub(crate) fn new(driver: &Arc<dyn Driver>, resource: Resource) -> Self {
        Owned {
            driver: Arc::clone(driver),
            resource,
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.driver.release(self.resource);
    }
}

impl std::fmt::Debug for Owned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.resource.fmt(f)
    }
}

/// Memory of a device, freed when this value goes.
#[derive(Debug)]
pub struct DeviceBuffer {
    memory: Owned,
    address: Address,
    bytes: u64,
}

impl DeviceBuffer {
    /// Memory with any content, from an address that is a multiple of 256 on.
    ///
    /// # Errors
    /// If there is not enough.
    pub fn new(driver: &Arc<dyn Driver>, bytes: u64) -> Result<Self, GpuError> {
        let address = driver.allocate(bytes.max(1))?;
        Ok(DeviceBuffer {
            memory: Owned::new(driver, Resource::Memory(address)),
            address,
            bytes,
        })
    }

    /// Where it starts.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The driver it is of.
    pub fn driver(&self) -> &Arc<dyn Driver> {
        &self.memory.driver
    }
}

impl Address {
    /// The place some bytes further.
    #[must_use]
    pub fn offset(self, bytes: u64) -> Self {
        Address(self.0.wrapping_add(bytes))
    }
}
