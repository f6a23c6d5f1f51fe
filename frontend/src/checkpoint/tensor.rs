//! The tensors of a checkpoint, wherever their bytes are.

use std::ops::Range;
use std::sync::Arc;

use memmap2::Mmap;
use rwkvc_ir::DType;

use super::blocks::BlockFormat;
use super::quantised::Quantised;

/// How a tensor is stored in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Number after number.
    Plain(DType),
    /// In blocks of quantised numbers.
    Blocks(BlockFormat),
}

impl Storage {
    /// Its name: `f32`, `bf16`, `q8_0` …
    pub const fn name(self) -> &'static str {
        match self {
            Storage::Plain(dtype) => dtype.name(),
            Storage::Blocks(format) => format.name(),
        }
    }

    /// Numbers that are stored together: 1, or those of a block.
    pub const fn values(self) -> usize {
        match self {
            Storage::Plain(_) => 1,
            Storage::Blocks(format) => format.values(),
        }
    }

    /// The bytes of a tensor of this shape, whose rows are whole blocks; `None` if that is more than memory can hold.
    pub fn bytes(self, shape: &[usize]) -> Option<usize> {
        let unit = match self {
            Storage::Plain(dtype) => dtype.size(),
            Storage::Blocks(format) => format.bytes(),
        };
        let (row, rows) = shape.split_last().unwrap_or((&1, &[]));
        rows.iter()
            .try_fold((row / self.values()).checked_mul(unit)?, |n, &d| n.checked_mul(d))
            .filter(|&n| isize::try_from(n).is_ok())
    }

    /// Decodes elements, whole blocks of them; how many there are.
    ///
    /// # Panics
    /// If there is no room for all of them.
    pub fn decode(self, bytes: &[u8], values: &mut [f32]) -> usize {
        match self {
            Storage::Plain(dtype) => {
                let count = bytes.len() / dtype.size();
                dtype.decode(bytes, &mut values[..count]);
                count
            }
            Storage::Blocks(format) => {
                let blocks = bytes.chunks_exact(format.bytes());
                let count = blocks.len() * format.values();
                for (block, values) in blocks.zip(values[..count].chunks_mut(format.values())) {
                    format.decode(block, values);
                }
                count
            }
        }
    }
}

/// Where the bytes of a tensor are.
#[derive(Clone, Debug)]
pub(super) enum Data {
    /// In a mapped file.
    Mapped(DType, Arc<Mmap>, Range<usize>),
    /// Rearranged: a transposed low-rank matrix, a stride.
    Owned(DType, Arc<Vec<u8>>),
    /// In quantised blocks of a mapped file.
    Quantised(Arc<Quantised>),
}

/// A tensor of a checkpoint, row-major.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) data: Data,
}

/// Numbers that are decoded at once: whole blocks of every format.
const CHUNK: usize = 1 << 14;

impl Tensor {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is stored in the file.
    pub fn storage(&self) -> Storage {
        match &self.data {
            Data::Mapped(dtype, ..) | Data::Owned(dtype, _) => Storage::Plain(*dtype),
            Data::Quantised(quantised) => Storage::Blocks(quantised.format()),
        }
    }

    /// The format of its elements, decoded if they are quantised.
    pub fn dtype(&self) -> DType {
        match &self.data {
            Data::Mapped(dtype, ..) | Data::Owned(dtype, _) => *dtype,
            Data::Quantised(quantised) => quantised.dtype(),
        }
    }

    /// Its shape, outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its elements, little-endian. Quantised ones are decoded when they are first asked for, and kept.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Mapped(_, map, range) => &map[range.clone()],
            Data::Owned(_, bytes) => bytes,
            Data::Quantised(quantised) => quantised.decoded(),
        }
    }

    /// Whether [`Self::bytes`] are where the file is mapped.
    pub fn is_mapped(&self) -> bool {
        matches!(self.data, Data::Mapped(..))
    }

    /// Its blocks, if it is quantised.
    pub fn quantised(&self) -> Option<&Quantised> {
        match &self.data {
            Data::Quantised(quantised) => Some(quantised),
            _ => None,
        }
    }

    /// Its elements in order, some thousands at a time. Quantised ones are as exact as their blocks here, and nothing is
    /// kept; but those of a transposed tensor are what [`bytes`](Self::bytes) says.
    ///
    /// # Errors
    /// Those of `each`, which ends it.
    pub fn each_chunk<E>(&self, mut each: impl FnMut(&[f32]) -> Result<(), E>) -> Result<(), E> {
        let mut values = vec![0f32; CHUNK.min(self.shape.iter().product())];
        let (format, bytes) = match &self.data {
            Data::Quantised(quantised) if !quantised.is_transposed() => {
                (Storage::Blocks(quantised.format()), quantised.blocks())
            }
            _ => (Storage::Plain(self.dtype()), self.bytes()),
        };
        if values.is_empty() {
            return Ok(());
        }
        let unit = format.bytes(&[CHUNK]).unwrap_or(usize::MAX);
        for bytes in bytes.chunks(unit) {
            let count = format.decode(bytes, &mut values);
            each(&values[..count])?;
        }
        Ok(())
    }

    /// A matrix with its axes swapped: copied, or swapped when it is decoded.
    pub(super) fn transposed(&self) -> Option<Tensor> {
        let [rows, columns] = self.shape[..] else {
            return None;
        };
        let swapped = |dtype: DType| {
            let bytes = transpose(self.bytes(), rows, columns, dtype.size());
            Data::Owned(dtype, Arc::new(bytes))
        };
        let data = match &self.data {
            Data::Mapped(dtype, ..) | Data::Owned(dtype, _) => swapped(*dtype),
            Data::Quantised(quantised) => Data::Quantised(Arc::new(quantised.transposed(rows, columns))),
        };
        Some(Tensor {
            shape: vec![columns, rows],
            data,
            name: self.name.clone(),
        })
    }

    /// Part `i` of `n` equal parts along the first axis.
    pub(super) fn part(&self, i: usize, n: usize) -> Tensor {
        let data = match &self.data {
            Data::Mapped(dtype, map, range) => {
                let bytes = range.len() / n;
                let start = range.start + i * bytes;
                Data::Mapped(*dtype, Arc::clone(map), start..start + bytes)
            }
            Data::Owned(dtype, all) => {
                let bytes = all.len() / n;
                Data::Owned(*dtype, Arc::new(all[i * bytes..(i + 1) * bytes].to_vec()))
            }
            Data::Quantised(quantised) => Data::Quantised(Arc::new(quantised.part(i, n))),
        };
        Tensor {
            shape: self.shape[1..].to_vec(),
            data,
            name: self.name.clone(),
        }
    }
}

/// The elements of a row-major matrix, column by column.
pub(super) fn transpose(bytes: &[u8], rows: usize, columns: usize, size: usize) -> Vec<u8> {
    let mut swapped = Vec::with_capacity(bytes.len());
    // Without rows there may be any number of columns.
    let filled = if rows == 0 { 0 } else { columns };
    for c in 0..filled {
        for r in 0..rows {
            let at = (r * columns + c) * size;
            swapped.extend_from_slice(&bytes[at..at + size]);
        }
    }
    swapped
}
