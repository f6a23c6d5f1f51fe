//! The bytes of a weight, wherever they are.

use crate::buffer::Buffer;
use memmap2::Mmap;
use std::ops::Range;
use std::sync::Arc;

/// Memory that several weights can be parts of, such as an open checkpoint.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The bytes of one weight buffer.
///
/// **Invariant:** the bytes stay where they are, unchanged, as long as this value lives.
pub struct WeightData(Memory);

enum Memory {
    Owned(Buffer),
    Shared(SharedBytes, Range<usize>),
    Mapped(SharedBytes, Range<usize>),
}

impl WeightData {
    /// A part of a mapped file, used where it is.
    pub fn mapped(file: Arc<Mmap>, range: Range<usize>) -> Self {
        WeightData(Memory::Mapped(file, range))
    }

    /// A part of the program, used where it is.
    pub fn of_static(bytes: &'static [u8], range: Range<usize>) -> Self {
        WeightData(Memory::Shared(Arc::new(bytes), range))
    }

    /// A part of shared memory, used where it is.
    ///
    /// # Safety
    /// Each call of `as_ref` must return the same bytes at the same address, and they must stay there, unchanged, until
    /// the last clone of the `Arc` is gone.
    pub unsafe fn shared(memory: SharedBytes, range: Range<usize>) -> Self {
        WeightData(Memory::Shared(memory, range))
    }

    /// [`Self::shared`], of a file that is mapped.
    ///
    /// # Safety
    /// As of [`Self::shared`], and the memory must be a mapping of a file that nobody writes to.
    pub unsafe fn shared_mapping(memory: SharedBytes, range: Range<usize>) -> Self {
        WeightData(Memory::Mapped(memory, range))
    }

    /// Whether the bytes are part of a mapping of a file that nobody writes to.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self.0, Memory::Mapped(..))
    }

    /// The bytes; `None` if the range is not within the shared memory.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Memory::Owned(buffer) => Some(buffer.bytes()),
            Memory::Shared(memory, range) | Memory::Mapped(memory, range) => {
                (**memory).as_ref().get(range.clone())
            }
        }
    }
}

/// Bytes of its own, for weights that were computed or converted.
impl From<Buffer> for WeightData {
    fn from(buffer: Buffer) -> Self {
        WeightData(Memory::Owned(buffer))
    }
}

impl std::fmt::Debug for WeightData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Memory::Owned(buffer) => write!(f, "WeightData({buffer:?})"),
            Memory::Shared(_, range) | Memory::Mapped(_, range) => write!(f, "WeightData({range:?})"),
        }
    }
}
