//! A tensor in quantised blocks, decoded when its numbers are first asked for.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use memmap2::Mmap;
use rwkvc_ir::DType;
use rwkvc_ir::quantized::{GROUP, Group};

use super::blocks::{BlockFormat, MOST_VALUES};
use super::tensor::transpose;

/// The blocks of a tensor, and its numbers once they were asked for.
pub struct Quantised {
    format: BlockFormat,
    map: Arc<Mmap>,
    range: Range<usize>,
    /// Rows and columns of the blocks, if the tensor has them swapped.
    swapped: Option<(usize, usize)>,
    dtype: OnceLock<DType>,
    decoded: OnceLock<Vec<u8>>,
}

/// Fewer numbers are not worth another thread.
const SHARE: usize = 1 << 20;

impl Quantised {
    /// Whole blocks of a mapped file.
    pub(super) fn new(format: BlockFormat, map: Arc<Mmap>, range: Range<usize>) -> Self {
        debug_assert!(range.len().is_multiple_of(format.bytes()));
        Quantised {
            format,
            map,
            range,
            swapped: None,
            dtype: OnceLock::new(),
            decoded: OnceLock::new(),
        }
    }

    /// How a block is packed.
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// The blocks, row by row as the file has them.
    pub fn blocks(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }

    /// Group `i` of the groups that the blocks have, counted over all rows; `None` if they have none, or run along columns.
    pub fn group(&self, i: usize) -> Option<Group> {
        let per_block = self.format.values() / GROUP;
        let (block, own) = (i / per_block, i % per_block);
        let bytes = self.format.bytes();
        let block = self.blocks().get(block * bytes..(block + 1) * bytes)?;
        self.format.group(block, own).filter(|_| !self.is_transposed())
    }

    /// Whether the blocks run along the columns of the tensor, not along its rows.
    pub fn is_transposed(&self) -> bool {
        self.swapped.is_some()
    }

    /// The format of the decoded numbers: f16, or f32 where a scale is so large that f16 might not hold them.
    pub(super) fn dtype(&self) -> DType {
        *self.dtype.get_or_init(|| {
            let fits = |block: &[u8]| self.format.bound(block) <= half::f16::MAX.to_f32();
            if self.blocks().chunks(self.format.bytes()).all(fits) {
                DType::F16
            } else {
                DType::F32
            }
        })
    }

    /// The decoded numbers, little-endian, in the order of the tensor.
    pub(super) fn decoded(&self) -> &[u8] {
        self.decoded.get_or_init(|| {
            let bytes = self.decode();
            match self.swapped {
                Some((rows, columns)) => transpose(&bytes, rows, columns, self.dtype().size()),
                None => bytes,
            }
        })
    }

    /// All numbers in the order of the blocks, decoded on as many threads as pay.
    fn decode(&self) -> Vec<u8> {
        let (dtype, blocks) = (self.dtype(), self.blocks());
        let n_blocks = blocks.len() / self.format.bytes();
        let size = self.format.values() * dtype.size();
        let mut bytes = vec![0; n_blocks * size];
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = n_blocks.div_ceil(threads).max(SHARE / self.format.values());
        let decode = |blocks: &[u8], bytes: &mut [u8]| {
            let mut values = [0f32; MOST_VALUES];
            let values = &mut values[..self.format.values()];
            for (block, out) in blocks.chunks(self.format.bytes()).zip(bytes.chunks_mut(size)) {
                self.format.decode(block, values);
                for (i, &value) in values.iter().enumerate() {
                    dtype.write(out, i, f64::from(value));
                }
            }
        };
        std::thread::scope(|scope| {
            let parts = blocks
                .chunks(share * self.format.bytes())
                .zip(bytes.chunks_mut(share * size));
            for (i, (blocks, bytes)) in parts.enumerate() {
                if i == 0 && n_blocks <= share {
                    decode(blocks, bytes);
                } else {
                    scope.spawn(move || decode(blocks, bytes));
                }
            }
        });
        bytes
    }

    /// The same with its axes swapped: a matrix whose blocks make `rows` rows of `columns` numbers.
    pub(super) fn transposed(&self, rows: usize, columns: usize) -> Quantised {
        let mut all = self.view(self.range.clone());
        all.swapped = Some((rows, columns));
        all
    }

    /// Part `i` of `n` equal parts.
    pub(super) fn part(&self, i: usize, n: usize) -> Quantised {
        let bytes = self.range.len() / n;
        let start = self.range.start + i * bytes;
        self.view(start..start + bytes)
    }

    fn view(&self, range: Range<usize>) -> Quantised {
        Quantised::new(self.format, Arc::clone(&self.map), range)
    }
}

impl fmt::Debug for Quantised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quantised")
            .field("format", &self.format)
            .field("range", &self.range)
            .field("swapped", &self.swapped)
            .finish_non_exhaustive()
    }
}
