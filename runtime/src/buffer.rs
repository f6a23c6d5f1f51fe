//! Memory for numbers: zeroed, aligned for vector instructions, never moved.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::platform::memory::{HUGE, Writable, prefer_huge_pages};

/// A cache line, and the widest vector register.
const ALIGN: usize = 64;

/// Where a small buffer may lie.
fn layout(len: usize) -> Option<Layout> {
    Layout::from_size_align(len.max(1), ALIGN).ok()
}

/// No memory for a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory for a buffer of {0} bytes")]
pub struct OutOfMemory(pub u64);

/// Owned bytes whose address is a multiple of 64 and does not change.
pub struct Buffer {
    memory: NonNull<u8>,
    len: usize,
    /// What a large buffer lies in. A small one comes from the allocator.
    pages: Option<Writable>,
}

impl Buffer {
    /// Zeros. Of a large buffer only what is touched takes memory.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn zeroed(len: u64) -> Result<Self, OutOfMemory> {
        let error = OutOfMemory(len);
        let len = usize::try_from(len).map_err(|_| error)?;
        if len < HUGE {
            let layout = layout(len).ok_or(error)?;
            // SAFETY: the layout is not empty.
            let memory = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(error)?;
            let pages = None;
            return Ok(Buffer { memory, len, pages });
        }
        // So long that the buffer can begin with a huge page.
        let pages = Writable::new(len.checked_add(HUGE).ok_or(error)?).map_err(|_| error)?;
        let memory = pages.aligned(HUGE);
        prefer_huge_pages(memory, len);
        let pages = Some(pages);
        Ok(Buffer { memory, len, pages })
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
        let (None, Some(layout)) = (&self.pages, layout(self.len)) else {
            return;
        };
        // SAFETY: not in pages, so allocated in `zeroed` with this layout.
        unsafe { dealloc(self.memory.as_ptr(), layout) };
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sizes_are_zero_and_can_be_written() {
        for len in [0, 1, ALIGN, HUGE - 1, HUGE, 2 * HUGE + 5] {
            let mut buffer = Buffer::zeroed(len as u64).expect("memory");
            let align = if len < HUGE { ALIGN } else { HUGE };
            assert_eq!(buffer.pointer() as usize % align, 0, "{len}");
            assert_eq!(buffer.bytes().len(), len);
            assert!(buffer.bytes().iter().all(|&b| b == 0), "{len}");
            buffer.bytes_mut().fill(7);
            assert!(buffer.bytes().iter().all(|&b| b == 7), "{len}");
        }
        assert!(Buffer::zeroed(u64::MAX).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_not_touched_takes_no_memory() {
        let resident = || {
            let text = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
            let pages: usize = text
                .split(' ')
                .nth(1)
                .expect("a second number")
                .parse()
                .expect("pages");
            pages * crate::platform::memory::page_size()
        };
        let before = resident();
        let buffer = Buffer::zeroed(256 << 20).expect("memory");
        // Other tests run at the same time.
        assert!(resident() < before + (128 << 20));
        drop(buffer);
    }
}
