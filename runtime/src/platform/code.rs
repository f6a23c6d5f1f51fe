//! Pages that become machine code.
//!
//! **Invariant:** no page is writable and executable at once. A [`Writable`] is filled, then sealed into a [`Sealed`],
//! whose first part can be executed and whose rest can be read.

use std::io;

use super::memory::{Mapping, Writable, page_size};

impl Writable {
    /// The address of the first byte.
    pub(crate) fn address(&self) -> u64 {
        self.0.base.as_ptr() as u64
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
