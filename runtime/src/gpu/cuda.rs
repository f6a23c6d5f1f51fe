//! The driver of NVIDIA GPUs: CUDA's driver library, which is loaded when it is first asked for.

mod context;
mod live;
mod pinned;

use super::driver::{
    Address, DeviceInfo, Driver, Event, Function, Graph, HostMemory, KernelLaunch, Module, Resource,
};
use super::error::GpuError;
use context::{Context, check, error_name};
use cudarc::driver::sys;
use live::Live;
use pinned::{Pinned, Staging};
use std::ffi::{CString, c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The most parameters of a kernel: 4096 bytes are the limit of PTX.
const MAX_ARGS: usize = 512;

/// Bytes for what the driver's compiler says.
const LOG_BYTES: usize = 16 << 10;

/// One NVIDIA GPU, with a stream of its own.
///
/// **Invariant:** memory and handles are used by safe calls only while they are in `live`, which is locked meanwhile.
pub struct CudaDriver {
    live: RwLock<Live>,
    staging: Mutex<Staging>,
    stream: Stream,
    context: Arc<Context>,
    info: DeviceInfo,
}

impl CudaDriver {
    /// The driver of a device, counted as CUDA counts: from 0, the fastest first if the user does not say otherwise.
    ///
    /// # Errors
    /// If there is no driver, it is too old or there are not as many devices, each with its own message.
    pub fn open(index: u32) -> Result<Self, GpuError> {
        let (context, info) = Context::open(index)?;
        let context = Arc::new(context);
        Ok(CudaDriver {
            live: RwLock::default(),
            staging: Mutex::new(Staging::new(&context)?),
            stream: Stream::new(&context)?,
            context,
            info,
        })
    }

    /// What was handed out, which stays so while this is held.
    fn live(&self) -> Result<RwLockReadGuard<'_, Live>, GpuError> {
        self.context.enter()?;
        Ok(self.live.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn live_mut(&self) -> Result<RwLockWriteGuard<'_, Live>, GpuError> {
        self.context.enter()?;
        Ok(self.live.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Copies bytes to memory that was checked; they must stay as they are until the stream is through, if pinned.
    ///
    /// # Safety
    /// See above. Bytes that are not pinned are read before this returns.
    unsafe fn upload_later(&self, to: Address, bytes: &[u8]) -> Result<(), GpuError> {
        // SAFETY: both ranges are memory, and the caller's promise.
        let result = unsafe {
            sys::cuMemcpyHtoDAsync_v2(to.0, bytes.as_ptr().cast(), bytes.len(), self.stream.handle)
        };
        check("cuMemcpyHtoDAsync", result)
    }
}

impl Driver for CudaDriver {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn free_memory(&self) -> Result<u64, GpuError> {
        self.context.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: two places for the answer.
        let result = unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) };
        check("cuMemGetInfo", result)?;
        Ok(free as u64)
    }

    fn load(&self, ptx: &str) -> Result<Module, GpuError> {
        use sys::CUjit_option as Jit;
        let text = CString::new(ptx).map_err(|error| GpuError::Ptx {
            name: "not a text".into(),
            log: error.to_string(),
        })?;
        let mut live = self.live_mut()?;
        let mut log = vec![0u8; LOG_BYTES];
        let mut options = [
            Jit::CU_JIT_ERROR_LOG_BUFFER,
            Jit::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        // The values are pointers or, in place of one, a number.
        let mut values: [*mut c_void; 2] = [
            log.as_mut_ptr().cast(),
            std::ptr::without_provenance_mut(LOG_BYTES),
        ];
        let mut module = std::ptr::null_mut();
        // SAFETY: a text that ends with 0, and as many options as values; the log is as long as the second one says.
        let result = unsafe {
            sys::cuModuleLoadDataEx(
                &mut module,
                text.as_ptr().cast(),
                options.len() as u32,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        match result {
            sys::CUresult::CUDA_SUCCESS => {
                let module = Module(module.expose_provenance() as u64);
                live.add_module(module);
                Ok(module)
            }
            result => {
                let end = log.iter().position(|c| *c == 0).unwrap_or(log.len());
                Err(GpuError::Ptx {
                    name: error_name(result),
                    log: String::from_utf8_lossy(&log[..end]).trim_end().to_owned(),
                })
            }
        }
    }

    fn function(&self, module: Module, name: &str) -> Result<Option<Function>, GpuError> {
        // No kernel has such a name.
        let Ok(name) = CString::new(name) else {
            return Ok(None);
        };
        let mut live = self.live_mut()?;
        live.module(module)?;
        let mut function = std::ptr::null_mut();
        // SAFETY: a loaded module, and a text that ends with 0.
        let result = unsafe { sys::cuModuleGetFunction(&mut function, pointer(module.0), name.as_ptr()) };
        if result == sys::CUresult::CUDA_ERROR_NOT_FOUND {
            return Ok(None);
        }
        check("cuModuleGetFunction", result)?;
        // Asking for anything makes the driver load the kernel now: later it might wait for it, or be recording.
        let mut most = 0;
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK;
        // SAFETY: a function of a loaded module.
        let result = unsafe { sys::cuFuncGetAttribute(&mut most, attribute, function) };
        check("cuFuncGetAttribute", result)?;
        let function = Function(function.expose_provenance() as u64);
        live.add_function(function, module);
        Ok(Some(function))
    }

    fn allocate(&self, bytes: u64) -> Result<Address, GpuError> {
        let mut live = self.live_mut()?;
        let mut address = 0;
        // SAFETY: a place for the answer. A device's memory is counted in 64 bits, as is this machine's.
        let result = unsafe { sys::cuMemAlloc_v2(&mut address, bytes as usize) };
        if result == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return Err(GpuError::Memory {
                what: "a buffer",
                needed: bytes,
                free: self.free_memory()?,
                name: self.info.name.clone(),
            });
        }
        check("cuMemAlloc", result)?;
        live.add_memory(Address(address), bytes);
        Ok(Address(address))
    }

    fn release(&self, resource: Resource) {
        // Without a context there is nothing left to be released.
        let Ok(mut live) = self.live_mut() else { return };
        if !live.remove(resource) {
            return;
        }
        // Whatever the stream has yet to do may use it. If waiting fails, the stream does nothing any more.
        let _ = self.stream.wait();
        // SAFETY: handed out by this driver and taken out of `live` just now, so this is the only time. There is nothing
        // to be done if it fails.
        let _ = unsafe {
            match resource {
                Resource::Module(module) => sys::cuModuleUnload(pointer(module.0)),
                Resource::Memory(address) => sys::cuMemFree_v2(address.0),
                Resource::Graph(graph) => sys::cuGraphExecDestroy(pointer(graph.0)),
                Resource::Event(event) => sys::cuEventDestroy_v2(pointer(event.0)),
            }
        };
    }

    fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), GpuError> {
        let live = self.live()?;
        live.range("upload", to, bytes.len() as u64)?;
        if bytes.is_empty() {
            return Ok(());
        }
        if bytes.len() > Staging::SLOT {
            // SAFETY: nobody changes the bytes before the stream has been waited for.
            unsafe { self.upload_later(to, bytes)? };
            return self.stream.wait();
        }
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let copy = staging.copy(bytes, || self.stream.wait())?;
        // SAFETY: `Staging` uses the slot again only after the stream has been waited for.
        unsafe { self.upload_later(to, copy) }
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), GpuError> {
        let live = self.live()?;
        live.range("download", from, bytes.len() as u64)?;
        if !bytes.is_empty() {
            let to = bytes.as_mut_ptr().cast();
            // SAFETY: both ranges are memory; the bytes are borrowed until the stream has been waited for.
            let result = unsafe { sys::cuMemcpyDtoHAsync_v2(to, from.0, bytes.len(), self.stream.handle) };
            check("cuMemcpyDtoHAsync", result)?;
        }
        self.stream.wait()
    }

    fn copy(&self, from: Address, to: Address, bytes: u64) -> Result<(), GpuError> {
        let live = self.live()?;
        live.range("copy", from, bytes)?;
        live.range("copy", to, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: both ranges are memory of the device, which is released only when the stream is through.
        let result = unsafe { sys::cuMemcpyDtoDAsync_v2(to.0, from.0, bytes as usize, self.stream.handle) };
        check("cuMemcpyDtoDAsync", result)
    }

    fn zero(&self, at: Address, bytes: u64) -> Result<(), GpuError> {
        let live = self.live()?;
        live.range("zero", at, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the range is memory of the device, which is released only when the stream is through.
        let result = unsafe { sys::cuMemsetD8Async(at.0, 0, bytes as usize, self.stream.handle) };
        check("cuMemsetD8Async", result)
    }

    unsafe fn launch(&self, launch: &KernelLaunch<'_>) -> Result<(), GpuError> {
        let live = self.live()?;
        live.function("launch", launch.function)?;
        // SAFETY: the caller's promise, for a function of a loaded module.
        unsafe { self.stream.launch(launch) }
    }

    unsafe fn record(&self, launches: &[KernelLaunch<'_>]) -> Result<Graph, GpuError> {
        let mut live = self.live_mut()?;
        for launch in launches {
            live.function("record", launch.function)?;
        }
        // A stream of its own: what other threads do meanwhile is not recorded.
        let stream = Stream::new(&self.context)?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: a stream that nobody else has.
        let result = unsafe { sys::cuStreamBeginCapture_v2(stream.handle, mode) };
        check("cuStreamBeginCapture", result)?;
        // SAFETY: the caller's promise; recorded only.
        let recorded = launches
            .iter()
            .try_for_each(|launch| unsafe { stream.launch(launch) });
        let (mut graph, mut executable) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: begun above, in this thread. It must end whether or not all was recorded.
        let ended = unsafe { sys::cuStreamEndCapture(stream.handle, &mut graph) };
        let made = recorded
            .and_then(|()| check("cuStreamEndCapture", ended))
            .and_then(|()| {
                // SAFETY: the graph that was just recorded, and a place for the answer.
                let result = unsafe { sys::cuGraphInstantiateWithFlags(&mut executable, graph, 0) };
                check("cuGraphInstantiate", result)
            });
        if !graph.is_null() {
            // SAFETY: as above; it is not needed any more. There is nothing to be done if that fails.
            let _ = unsafe { sys::cuGraphDestroy(graph) };
        }
        made?;
        let graph = Graph(executable.expose_provenance() as u64);
        live.add_graph(graph);
        Ok(graph)
    }

    fn replay(&self, graph: Graph) -> Result<(), GpuError> {
        let live = self.live()?;
        live.graph(graph)?;
        // SAFETY: a graph that was not released; whoever recorded it has promised that it may run until then.
        let result = unsafe { sys::cuGraphLaunch(pointer(graph.0), self.stream.handle) };
        check("cuGraphLaunch", result)
    }

    fn occupancy(&self, function: Function, threads: u32) -> Result<u32, GpuError> {
        let live = self.live()?;
        live.function("occupancy", function)?;
        let mut blocks: c_int = 0;
        // A count that does not fit is refused by the driver: no device has as many threads.
        let threads = c_int::try_from(threads).unwrap_or(c_int::MAX);
        // SAFETY: a function of a loaded module, and a place for the answer.
        let result = unsafe {
            sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, pointer(function.0), threads, 0)
        };
        check("cuOccupancyMaxActiveBlocksPerMultiprocessor", result)?;
        Ok(blocks.unsigned_abs())
    }

    fn event(&self) -> Result<Event, GpuError> {
        let mut live = self.live_mut()?;
        let mut event = std::ptr::null_mut();
        // SAFETY: a place for the answer.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&mut event, 0) })?;
        let event = Event(event.expose_provenance() as u64);
        live.add_event(event);
        Ok(event)
    }

    fn mark(&self, event: Event) -> Result<(), GpuError> {
        let live = self.live()?;
        live.event("mark", event)?;
        // SAFETY: an event that was not released.
        let result = unsafe { sys::cuEventRecord(pointer(event.0), self.stream.handle) };
        check("cuEventRecord", result)
    }

    fn elapsed(&self, from: Event, to: Event) -> Result<u64, GpuError> {
        let live = self.live()?;
        live.event("elapsed", from)?;
        live.event("elapsed", to)?;
        // SAFETY: events that were not released.
        let result = unsafe { sys::cuEventSynchronize(pointer(to.0)) };
        check("cuEventSynchronize", result)?;
        let mut milliseconds = 0f32;
        // SAFETY: as above, and a place for the answer.
        let result = unsafe { sys::cuEventElapsedTime(&mut milliseconds, pointer(from.0), pointer(to.0)) };
        check("cuEventElapsedTime", result)?;
        // Never negative for marks in order; `as` makes 0 of what is.
        Ok((f64::from(milliseconds) * 1e6) as u64)
    }

    fn synchronize(&self) -> Result<(), GpuError> {
        self.context.enter()?;
        self.stream.wait()
    }

    fn host_memory(&self, bytes: u64) -> Result<Box<dyn HostMemory>, GpuError> {
        Ok(Box::new(Pinned::zeroed(&self.context, bytes)?))
    }
}

impl std::fmt::Debug for CudaDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CudaDriver").field(&self.info).finish()
    }
}

/// A stream of work, destroyed when this value goes.
struct Stream {
    handle: sys::CUstream,
    context: Arc<Context>,
}

// SAFETY: CUDA's streams may be used from any thread, by several at the same time.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    fn new(context: &Arc<Context>) -> Result<Self, GpuError> {
        context.enter()?;
        let mut handle = std::ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: a place for the answer.
        check("cuStreamCreate", unsafe {
            sys::cuStreamCreate(&mut handle, flags)
        })?;
        Ok(Stream {
            handle,
            context: Arc::clone(context),
        })
    }

    fn wait(&self) -> Result<(), GpuError> {
        // SAFETY: the stream lives as long as this value.
        check("cuStreamSynchronize", unsafe {
            sys::cuStreamSynchronize(self.handle)
        })
    }

    /// # Safety
    /// As for [`Driver::launch`], and the function must be of a loaded module.
    unsafe fn launch(&self, launch: &KernelLaunch<'_>) -> Result<(), GpuError> {
        let call = if launch.cooperative {
            "cuLaunchCooperativeKernel"
        } else {
            "cuLaunchKernel"
        };
        let count = launch.args.len();
        if count > MAX_ARGS {
            return Err(GpuError::Call {
                call,
                name: format!("{count} parameters"),
                description: format!("a kernel takes at most {MAX_ARGS}"),
            });
        }
        // The driver takes a pointer to each parameter, and reads as many as the kernel has.
        let mut args = [std::ptr::null_mut::<c_void>(); MAX_ARGS];
        for (pointer, value) in args.iter_mut().zip(launch.args) {
            *pointer = std::ptr::from_ref(value).cast_mut().cast();
        }
        let (function, grid, threads) = (pointer(launch.function.0), launch.grid, launch.threads);
        // SAFETY: the caller's promise. The parameters are only read, before the call returns.
        let result = unsafe {
            if launch.cooperative {
                sys::cuLaunchCooperativeKernel(
                    function,
                    grid,
                    1,
                    1,
                    threads,
                    1,
                    1,
                    0,
                    self.handle,
                    args.as_mut_ptr(),
                )
            } else {
                let extra = std::ptr::null_mut();
                sys::cuLaunchKernel(
                    function,
                    grid,
                    1,
                    1,
                    threads,
                    1,
                    1,
                    0,
                    self.handle,
                    args.as_mut_ptr(),
                    extra,
                )
            }
        };
        check(call, result)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: created in `new`; the driver ends it when its work is done.
            let _ = unsafe { sys::cuStreamDestroy_v2(self.handle) };
        }
    }
}

/// The pointer that a handle was made of.
fn pointer<T>(handle: u64) -> *mut T {
    std::ptr::with_exposed_provenance_mut(handle as usize)
}
