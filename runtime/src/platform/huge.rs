//! Moves what was mapped from a file into huge pages, where it is read faster: a CPU looks up the place of a page
//! for each 2 MiB instead of each 4 KiB.
//!
//! Pages of files are small on most systems. So the bytes are copied into memory without a file, and its pages take the
//! place of the file's: the address of each byte stays what it is, and the memory in use stays the same. But a system that is
//! short of memory can drop pages of a file, and share them between processes; these it cannot.

use std::ops::Range;
use std::ptr::NonNull;

use super::memory::{HUGE, page_size};

/// Moves the whole huge pages among the pages of these bytes, and returns how many bytes that were; the rest stays where it
/// is. Does nothing where the system has no huge pages, or half of the memory that is free would not hold them. The first
/// failure ends it, as the next would fail too: the bytes are where they were then.
///
/// # Safety
/// All pages of these bytes must belong to mappings of files that nobody writes to, and stay mapped meanwhile.
pub(crate) unsafe fn move_to_huge_pages<'a>(mapped: impl Iterator<Item = &'a [u8]>) -> u64 {
    let runs = runs(mapped.map(|bytes| bytes.as_ptr_range()));
    let wanted: u64 = runs.iter().map(|run| run.len() as u64).sum();
    if !has_huge_pages() || wanted > free() / 2 {
        return 0;
    }
    let mut moved = 0;
    for run in runs {
        let len = run.len() as u64;
        // SAFETY: as the caller says.
        if unsafe { move_run(run) }.is_none() {
            break;
        }
        moved += len;
    }
    moved
}

/// Whether the system gives huge pages to those who ask.
fn has_huge_pages() -> bool {
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    setting.is_ok_and(|setting| !setting.contains("[never]"))
}

/// Bytes that this process may still take, by what the machine has and by the limits of its group; none if that is unknown.
fn free() -> u64 {
    let Ok(mut system) = sysinfo::System::new() else {
        return 0;
    };
    system.refresh_memory();
    let of_group = system.cgroup_limits();
    let of_group = of_group.map(|limits| limits.total_memory.saturating_sub(limits.rss));
    system.available_memory().min(of_group.unwrap_or(u64::MAX))
}

/// The huge pages that some bytes fill, whole pages of the file being theirs.
fn runs(bytes: impl Iterator<Item = Range<*const u8>>) -> Vec<Range<usize>> {
    let page = page_size();
    let pages = bytes.map(|b| (b.start as usize / page * page)..(b.end as usize).next_multiple_of(page));
    let mut pages: Vec<Range<usize>> = pages.filter(|p| !p.is_empty()).collect();
    pages.sort_by_key(|p| p.start);
    let mut runs: Vec<Range<usize>> = vec![];
    for pages in pages {
        match runs.last_mut() {
            Some(last) if pages.start <= last.end => last.end = last.end.max(pages.end),
            _ => runs.push(pages),
        }
    }
    runs.into_iter()
        .map(|run| run.start.next_multiple_of(HUGE)..run.end / HUGE * HUGE)
        .filter(|run| !run.is_empty())
        .collect()
}

/// Moves whole huge pages.
///
/// # Safety
/// See [`move_to_huge_pages`].
unsafe fn move_run(run: Range<usize>) -> Option<()> {
    let mut fresh = Fresh::new(run.len())?;
    for to in run.step_by(HUGE) {
        let from = fresh.start;
        // SAFETY: the source is mapped and not written to; the target is fresh, and no part of any other memory.
        unsafe {
            std::ptr::copy_nonoverlapping(to as *const u8, from as *mut u8, HUGE);
            if libc::mprotect(from as *mut _, HUGE, libc::PROT_READ) != 0 {
                return None;
            }
        }
        // Others may map something where the page was as soon as it is gone, so it belongs to `fresh` no more.
        fresh.start += HUGE;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: replaces pages by others with the same bytes, at once for whoever reads them meanwhile.
        let moved = unsafe { libc::mremap(from as *mut _, HUGE, HUGE, flags, to as *mut libc::c_void) };
        if moved == libc::MAP_FAILED {
            fresh.start = from;
            // SAFETY: as above; `fresh` has the bytes still.
            unsafe { put_back(from, to) };
            return None;
        }
    }
    Some(())
}

/// Gives a page its bytes back if a move that failed has unmapped it before.
///
/// # Safety
/// `from` must be a mapped huge page with the bytes of `to`.
unsafe fn put_back(from: usize, to: usize) {
    let mut resident = vec![0u8; HUGE / page_size()];
    // SAFETY: asks which pages are in memory, and fails if some are not mapped.
    let is_mapped = unsafe { libc::mincore(to as *mut _, HUGE, resident.as_mut_ptr()) } == 0;
    if is_mapped {
        return;
    }
    let (both, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
    );
    // SAFETY: nothing else was mapped here since, as far as can be known, and the bytes become what they were.
    unsafe {
        if libc::mmap(to as *mut _, HUGE, both, flags, -1, 0) != libc::MAP_FAILED {
            std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, HUGE);
        }
    }
}

/// Huge pages of the system's own that were not moved away yet.
struct Fresh {
    start: usize,
    end: usize,
}

impl Fresh {
    fn new(len: usize) -> Option<Self> {
        let room = len.checked_add(HUGE)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let (null, both) = (std::ptr::null_mut(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: asks for new pages at an address of the system's choice.
        let first = unsafe { libc::mmap(null, room, both, flags, -1, 0) };
        if first == libc::MAP_FAILED {
            return None;
        }
        let (first, last) = (first as usize, first as usize + room);
        let start = first.next_multiple_of(HUGE);
        let end = start + len;
        // What is before and after whole huge pages is given back.
        drop(Fresh {
            start: first,
            end: start,
        });
        drop(Fresh {
            start: end,
            end: last,
        });
        let fresh = Fresh { start, end };
        super::memory::prefer_huge_pages(NonNull::new(fresh.start as *mut u8)?, len);
        Some(fresh)
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if self.start < self.end {
            // SAFETY: mapped in `new`, and not given away.
            unsafe { libc::munmap(self.start as *mut _, self.end - self.start) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn whole_huge_pages_of_what_lies_together() {
        let page = page_size();
        let found = |bytes: &[(usize, usize)]| {
            let bytes = bytes
                .iter()
                .map(|&(start, end)| start as *const u8..end as *const u8);
            runs(bytes)
                .iter()
                .map(|run| (run.start, run.end))
                .collect::<Vec<_>>()
        };
        let (one, two, three) = (HUGE, 2 * HUGE, 3 * HUGE);
        assert_eq!(found(&[]), []);
        assert_eq!(found(&[(one, one)]), [], "no bytes");
        assert_eq!(found(&[(one + 1, two - 1)]), [(one, two)], "pages are whole");
        assert_eq!(found(&[(one + page, two)]), [], "a page too few");
        let parts = [
            (two + 2 * page, three),
            (one, two + 10),
            (2 * two - 5, 2 * three + 9),
        ];
        assert_eq!(
            found(&parts),
            [(one, two), (2 * two, 2 * three)],
            "a page lies between"
        );
        let parts = [(two + 10, three), (one, two + 5)];
        assert_eq!(found(&parts), [(one, three)], "parts share a page");
    }

    #[test]
    fn bytes_stay_what_they_are() {
        let mut file = tempfile::tempfile().expect("a file");
        let bytes: Vec<u8> = (0..7 * HUGE + 123).map(|i| (i / 4096 + i) as u8).collect();
        file.write_all(&bytes).expect("room");
        // SAFETY: nobody changes the file.
        let map = unsafe { memmap2::Mmap::map(&file) }.expect("a mapping");
        let most: u64 = runs(std::iter::once(map.as_ptr_range()))
            .iter()
            .map(|r| r.len() as u64)
            .sum();
        // A reader goes on meanwhile, as steps do.
        std::thread::scope(|scope| {
            scope.spawn(|| (0..4).for_each(|_| assert!(map[..] == bytes[..])));
            // Others get memory where pages were moved away, and keep it.
            scope.spawn(|| {
                let buffer = |_| crate::Buffer::copy_of(&bytes[..HUGE]).expect("memory");
                let buffers: Vec<crate::Buffer> = (0..40).map(buffer).collect();
                assert!(buffers.iter().all(|buffer| buffer.bytes() == &bytes[..HUGE]));
            });
            for _ in 0..2 {
                // SAFETY: the mapping is of a file that nobody writes to.
                let moved = unsafe { move_to_huge_pages([&map[..HUGE * 2], &map[HUGE * 2..]].into_iter()) };
                assert!(
                    moved == most || !has_huge_pages() || most > free() / 2,
                    "{moved} of {most}"
                );
            }
        });
        assert!(map[..] == bytes[..]);
    }
}
