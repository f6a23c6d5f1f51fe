//! What differs between operating systems: mappings of memory, huge pages, threads on cores.
//!
//! Another system needs these functions and no change elsewhere.

#[cfg(feature = "threads")]
pub(crate) mod affinity;
#[cfg(feature = "loader")]
pub(crate) mod code;
#[cfg(target_os = "linux")]
mod huge;
pub(crate) mod memory;

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
