//! Memory that holds machine code: the part of loading that differs between operating systems.
//!
//! **Invariant:** no page is writable and executable at once. A [`Writable`] is filled, then sealed into a [`Sealed`],
//! whose first part can be executed and whose rest can be read.

#[cfg(target_os = "linux")]
mod huge;

use std::io;
use std::ptr::NonNull;

#[cfg(target_os = "linux")]
pub(crate) use huge::move_to_huge_pages;

/// Other systems are not known to have huge pages for those who ask.
///
/// # Safety
/// None is needed.
#[cfg(not(target_os = "linux"))]
pub(crate) unsafe fn move_to_huge_pages<'a>(_: impl Iterator<Item = &'a [u8]>) -> u64 {
    0
}

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
pub(crate) struct Writable(Mapping);

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

    /// The address of the first byte.
    pub(crate) fn address(&self) -> u64 {
        self.0.base.as_ptr() as u64
    }

    /// The first address that is a multiple of `align`, a power of two no larger than the mapping.
    pub(crate) fn aligned(&self, align: usize) -> NonNull<u8> {
        let Mapping { base, len } = self.0;
        debug_assert!(align <= len && align.is_power_of_two());
        // SAFETY: less than `align` further, and so within the mapping.
        unsafe { base.add((base.as_ptr() as usize).wrapping_neg() % align) }
    }

    /// The bytes.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is readable and writable, has `len` initialised (zero) bytes and belongs to `self`.
        unsafe { std::slice::from_raw_parts_mut(self.0.base.as_ptr(), self.0.len) }
    }

    /// Makes the first `code` bytes (whole pages) executable and the rest read-only.
    pub(crate) fn seal(self, code: usize) -> io::Result<Sealed> {
        let Mapping { base, len } = self.0;
        debug_assert!(code <= len && code.is_multiple_of(page_size()));
        flush_instruction_cache(base.as_ptr(), code);
        // SAFETY: both ranges lie within the mapping, and nothing refers to its bytes any more.
        let results = unsafe {
            let start = base.as_ptr();
            [
                (start, code, libc::PROT_READ | libc::PROT_EXEC),
                (start.add(code), len - code, libc::PROT_READ),
            ]
            .map(|(start, len, protection)| len == 0 || libc::mprotect(start.cast(), len, protection) == 0)
        };
        if results.contains(&false) {
            return Err(io::Error::last_os_error());
        }
        Ok(Sealed(self.0))
    }
}

/// Pages with code and constants that nobody can write to; unmapped when dropped.
pub(crate) struct Sealed(Mapping);

impl Sealed {
    /// The address of the byte at `offset`, which must be within the mapping.
    pub(crate) fn at(&self, offset: usize) -> *const u8 {
        assert!(
            offset < self.0.len,
            "offset {offset} is outside of {} bytes of code",
            self.0.len
        );
        // SAFETY: within the mapping, as just checked.
        unsafe { self.0.base.as_ptr().add(offset) }
    }
}

struct Mapping {
    base: NonNull<u8>,
    len: usize,
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

/// Makes freshly written code visible to instruction fetch; x86 does it by itself.
#[cfg(target_arch = "aarch64")]
fn flush_instruction_cache(start: *const u8, len: usize) {
    use std::arch::asm;
    let (start, end) = (start as usize, start as usize + len);
    let types: usize;
    // SAFETY: reads a register that user programs may read.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) types, options(nomem, nostack, preserves_flags)) };
    let (data_line, code_line) = (4 << ((types >> 16) & 15), 4 << (types & 15));
    // SAFETY: cache maintenance of mapped addresses changes no memory.
    unsafe {
        for line in (start & !(data_line - 1)..end).step_by(data_line) {
            asm!("dc cvau, {}", in(reg) line, options(nostack, preserves_flags));
        }
        asm!("dsb ish", options(nostack, preserves_flags));
        for line in (start & !(code_line - 1)..end).step_by(code_line) {
            asm!("ic ivau, {}", in(reg) line, options(nostack, preserves_flags));
        }
        asm!("dsb ish", "isb", options(nostack, preserves_flags));
    }
}

/// Makes freshly written code visible to instruction fetch; x86 does it by itself.
#[cfg(target_arch = "x86_64")]
fn flush_instruction_cache(_start: *const u8, _len: usize) {}
