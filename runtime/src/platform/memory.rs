//! Mappings of memory without a file.

use std::io;
use std::ptr::NonNull;

/// A huge page: so many bytes are found with one look at the page table.
pub(crate) const HUGE: usize = 2 << 20;

/// The page size, which parts with different protections must be aligned to.
pub(crate) fn page_size() -> usize {
    // SAFETY: a query without memory effects.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size)
        .ok()
        .filter(|s| s.is_power_of_two())
        .unwrap_or(65536)
}

/// Asks for huge pages for memory that is not yet used: it is read faster then. Systems without them do nothing.
pub(crate) fn prefer_huge_pages(memory: NonNull<u8>, len: usize) {
    // SAFETY: advice about memory of the caller, which changes none of its contents.
    #[cfg(target_os = "linux")]
    let _ = unsafe { libc::madvise(memory.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
    #[cfg(not(target_os = "linux"))]
    let _ = (memory, len);
}

/// Fresh pages that can be written, all zero, owned by nobody else.
pub(crate) struct Writable(pub(super) Mapping);

impl Writable {
    /// Maps `len > 0` bytes.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: asks for new pages at an address of the system's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Writable(Mapping { base, len }))
    }

    /// The first address that is a multiple of `align`, a power of two no larger than the mapping.
    pub(crate) fn aligned(&self, align: usize) -> NonNull<u8> {
        let Mapping { base, len } = self.0;
        debug_assert!(align <= len && align.is_power_of_two());
        // SAFETY: less than `align` further, and so within the mapping.
        unsafe { base.add((base.as_ptr() as usize).wrapping_neg() % align) }
    }
}

pub(super) struct Mapping {
    pub(super) base: NonNull<u8>,
    pub(super) len: usize,
}

// SAFETY: a mapping is plain memory that any thread may use; `Sealed` only reads it and `Writable` needs `&mut`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `mmap` with this length, and unmapped only here.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
