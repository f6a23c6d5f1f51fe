//! Memory for numbers: zeroed, aligned for vector instructions, never moved.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// A cache line, and the widest vector register.
const ALIGN: usize = 64;

/// A huge page: so many bytes are found with one look at the page table.
const HUGE: usize = 2 << 20;

/// Where a buffer may lie: large ones from a huge page on.
fn layout(len: usize) -> Option<Layout> {
    let align = if len < HUGE { ALIGN } else { HUGE };
    Layout::from_size_align(len.max(1), align).ok()
}

/// No memory for a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory for a buffer of {0} bytes")]
pub struct OutOfMemory(pub u64);

/// Owned bytes whose address is a multiple of 64 and does not change.
pub struct Buffer {
    memory: NonNull<u8>,
    len: usize,
}

impl Buffer {
    /// Zeros.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn zeroed(len: u64) -> Result<Self, OutOfMemory> {
        let error = OutOfMemory(len);
        let len = usize::try_from(len).map_err(|_| error)?;
        let layout = layout(len).ok_or(error)?;
        if layout.align() < HUGE {
            // SAFETY: the layout is not empty.
            let memory = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(error)?;
            return Ok(Buffer { memory, len });
        }
        // SAFETY: as above.
        let memory = NonNull::new(unsafe { alloc(layout) }).ok_or(error)?;
        crate::memory::prefer_huge_pages(memory, len);
        // SAFETY: the memory has this length.
        unsafe { memory.write_bytes(0, len) };
        Ok(Buffer { memory, len })
    }

    /// A copy of some bytes.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn copy_of(bytes: &[u8]) -> Result<Self, OutOfMemory> {
        let mut buffer = Buffer::zeroed(bytes.len() as u64)?;
        buffer.bytes_mut().copy_from_slice(bytes);
        Ok(buffer)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes that `self` owns.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }

    /// The bytes, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and borrowed uniquely.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }

    /// The bytes as f32 values; a rest of less than 4 bytes is left out.
    pub fn floats(&self) -> &[f32] {
        bytemuck::cast_slice(&self.bytes()[..self.len / 4 * 4])
    }

    /// The bytes as f32 values, to be changed; a rest of less than 4 bytes is left out.
    pub fn floats_mut(&mut self) -> &mut [f32] {
        let len = self.len / 4 * 4;
        bytemuck::cast_slice_mut(&mut self.bytes_mut()[..len])
    }

    /// The address, for compiled code.
    pub(crate) fn pointer(&self) -> *mut u8 {
        self.memory.as_ptr()
    }
}

// SAFETY: the memory is plain bytes that only this value owns.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for Buffer {}

impl Drop for Buffer {
    fn drop(&mut self) {
        // The layout was valid when the memory was allocated.
        let Some(layout) = layout(self.len) else { return };
        // SAFETY: allocated in `zeroed` with this layout.
        unsafe { dealloc(self.memory.as_ptr(), layout) };
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}
