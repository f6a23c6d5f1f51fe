//! Memory of this machine that the device reads and writes by itself.

use super::context::{Context, check};
use crate::gpu::driver::HostMemory;
use crate::gpu::error::GpuError;
use cudarc::driver::sys;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

/// Zeroed at first; freed when this value goes.
pub(super) struct Pinned {
    memory: NonNull<u8>,
    len: usize,
    context: Arc<Context>,
}

// SAFETY: plain bytes that only this value owns; the device touches them only in calls that a borrow covers.
unsafe impl Send for Pinned {}
// SAFETY: shared access only reads.
unsafe impl Sync for Pinned {}

impl Pinned {
    pub(super) fn zeroed(context: &Arc<Context>, bytes: u64) -> Result<Self, GpuError> {
        let too_much = || crate::buffer::OutOfMemory(bytes);
        let len = usize::try_from(bytes).map_err(|_| too_much())?;
        context.enter()?;
        let mut memory: *mut c_void = std::ptr::null_mut();
        // SAFETY: `memory` is valid for writes. CUDA refuses to allocate nothing.
        let result = unsafe { sys::cuMemHostAlloc(&mut memory, len.max(1), 0) };
        check("cuMemHostAlloc", result)?;
        let memory = NonNull::new(memory.cast::<u8>()).ok_or_else(too_much)?;
        // SAFETY: just allocated with at least this length.
        unsafe { memory.as_ptr().write_bytes(0, len) };
        Ok(Pinned {
            memory,
            len,
            context: Arc::clone(context),
        })
    }
}

impl HostMemory for Pinned {
    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes that `self` owns.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and borrowed uniquely.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: allocated in `zeroed`. There is nothing to be done if that fails.
            let _ = unsafe { sys::cuMemFreeHost(self.memory.as_ptr().cast()) };
        }
    }
}

/// Small uploads: they are copied here, so that nobody has to wait until the device has read them.
pub(super) struct Staging {
    memory: Pinned,
    /// Slots that the device may not have read yet.
    used: usize,
}

impl Staging {
    /// The most bytes of an upload.
    pub(super) const SLOT: usize = 4096;
    const SLOTS: usize = 64;

    pub(super) fn new(context: &Arc<Context>) -> Result<Self, GpuError> {
        Ok(Staging {
            memory: Pinned::zeroed(context, (Self::SLOT * Self::SLOTS) as u64)?,
            used: 0,
        })
    }

    /// A copy of up to [`Self::SLOT`] bytes. If no slot is free, `wait` must wait until the device has read all.
    pub(super) fn copy(
        &mut self,
        bytes: &[u8],
        wait: impl FnOnce() -> Result<(), GpuError>,
    ) -> Result<&[u8], GpuError> {
        if self.used == Self::SLOTS {
            wait()?;
            self.used = 0;
        }
        let start = self.used * Self::SLOT;
        let slot = &mut self.memory.bytes_mut()[start..start + bytes.len()];
        slot.copy_from_slice(bytes);
        self.used += 1;
        Ok(slot)
    }
}
