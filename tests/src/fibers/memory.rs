//! Memory that compiled code may write to behind Rust's back.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::slice;

/// Bytes before and after that must stay as they are; also what the memory starts at a multiple of.
const GUARD: usize = 256;
const GUARD_BYTE: u8 = 0xa5;

/// Bytes that are NaN as f32, and far from any table as i32.
const UNDEFINED: u8 = 0xff;

/// Memory with guards around it, at a multiple of 256 bytes.
pub(super) struct Guarded {
    /// The first guard.
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to this value alone.
unsafe impl Send for Guarded {}

impl Guarded {
    /// Memory that no one has written to.
    pub(super) fn undefined(len: usize) -> Self {
        let layout = layout(len);
        // SAFETY: the layout has a size, as there are guards.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        // SAFETY: these are the bytes that were allocated.
        unsafe {
            start.write_bytes(GUARD_BYTE, layout.size());
            start.add(GUARD).write_bytes(UNDEFINED, len);
        }
        Guarded { start, len }
    }

    pub(super) fn copy_of(bytes: &[u8]) -> Self {
        let mut memory = Self::undefined(bytes.len());
        memory.bytes_mut().copy_from_slice(bytes);
        memory
    }

    /// Of the first byte.
    pub(super) fn address(&self) -> u64 {
        (self.start.as_ptr().expose_provenance() + GUARD) as u64
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: they are initialised, and no code runs while they are looked at: launches need `&mut`, or are over.
        unsafe { slice::from_raw_parts(self.start.as_ptr().add(GUARD), self.len) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr().add(GUARD), self.len) }
    }

    /// As if no one had written to it.
    pub(super) fn forget(&mut self) {
        self.bytes_mut().fill(UNDEFINED);
    }

    /// Whether the guards are as they were.
    pub(super) fn is_intact(&self) -> bool {
        let guard = |at: usize| {
            // SAFETY: one of the guards, which are initialised.
            let guard = unsafe { slice::from_raw_parts(self.start.as_ptr().add(at), GUARD) };
            guard.iter().all(|&byte| byte == GUARD_BYTE)
        };
        guard(0) && guard(GUARD + self.len)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start.as_ptr(), layout(self.len)) }
    }
}

fn layout(len: usize) -> Layout {
    Layout::from_size_align(len + 2 * GUARD, GUARD).expect("a length that is far from overflow")
}
