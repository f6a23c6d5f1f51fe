//! Places in the arena.

/// Every place starts on a cache line.
const LINE: u64 = 64;

/// Hands out byte ranges, first fit, and takes them back.
#[derive(Debug, Default)]
pub(super) struct Arena {
    /// Ranges in use, by offset.
    used: Vec<(u64, u64)>,
    size: u64,
}

impl Arena {
    /// The offset of `bytes` free bytes.
    pub(super) fn take(&mut self, bytes: u64) -> u64 {
        let bytes = bytes.max(1).next_multiple_of(LINE);
        let mut offset = 0;
        let mut index = 0;
        for &(start, len) in &self.used {
            if start >= offset + bytes {
                break;
            }
            offset = start + len;
            index += 1;
        }
        self.used.insert(index, (offset, bytes));
        self.size = self.size.max(offset + bytes);
        offset
    }

    /// Frees the range that starts at `offset`.
    pub(super) fn give_back(&mut self, offset: u64) {
        self.used.retain(|&(start, _)| start != offset);
    }

    /// The bytes that were ever in use at once, gaps included.
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_ranges_are_used_again_and_live_ones_never_overlap() {
        let mut arena = Arena::default();
        let a = arena.take(100);
        let b = arena.take(64);
        assert_eq!((a, b), (0, 128));
        arena.give_back(a);
        assert_eq!(arena.take(65), 0);
        assert_eq!(arena.take(1), 192);
        assert_eq!(arena.size(), 256);
    }
}
