//! Checkpoints out: from the tensors of a model, or random ones, to a `.safetensors` or a GGUF file.
//!
//! A [`Source`] has tensors under official names; a layout says which pieces a file has and what stands before them;
//! here the numbers go from one to the other, some thousands at a time.

mod encode;
mod gguf;
mod model;
mod safetensors;

use std::io::{self, Write};

use rwkvc_ir::DType;

pub use self::gguf::Metadata;
use crate::checkpoint::{BlockFormat, Storage};
use crate::model::Config;

/// Tensors of a model under official names.
pub trait Source {
    /// Sizes and constants of the model.
    fn config(&self) -> Config;

    /// What there is, in the order to write it.
    fn entries(&self) -> Vec<Entry>;

    /// The numbers of the entry `index` in order, whole blocks of every format at a time.
    ///
    /// # Errors
    /// Those of `each`.
    fn read(
        &self,
        index: usize,
        each: &mut dyn FnMut(&[f32]) -> Result<(), WriteError>,
    ) -> Result<(), WriteError>;
}

/// A tensor of a source.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its official name.
    pub name: String,
    /// Its shape as official files have it.
    pub shape: Vec<usize>,
    /// The format that it has.
    pub dtype: DType,
}

impl Entry {
    /// Whether it is multiplied with something, as all but vectors and states are.
    fn is_matrix(&self) -> bool {
        self.shape.len() == 2 && !self.name.ends_with(".r_k")
    }

    /// Whether it is half of a low-rank matrix.
    fn is_low_rank(&self) -> bool {
        let part = self.name.rsplit_once(".att.").map_or("", |(_, part)| part);
        matches!(part.as_bytes(), [b'w' | b'a' | b'v' | b'g', b'1' | b'2'])
    }
}

/// The layout of a file.
pub enum OutputLayout<'t> {
    /// Safetensors with official names.
    Safetensors,
    /// GGUF, as llama.cpp reads it.
    Gguf(Metadata<'t>),
}

/// The formats that the matrices of a file may have. Other tensors keep theirs, or are f32 where a layout wants that.
pub const WEIGHTS: [Storage; 4] = [
    Storage::Plain(DType::F32),
    Storage::Plain(DType::F16),
    Storage::Plain(DType::BF16),
    Storage::Blocks(BlockFormat::Q8_0),
];

/// Why no file was written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The model does not fit the layout.
    #[error("{0}")]
    Unfit(String),
    /// A number does not fit the format.
    #[error("tensor `{tensor}` has the number {value}, which {} cannot hold", storage.name())]
    Number {
        /// The tensor.
        tensor: String,
        /// Its number.
        value: f32,
        /// The format.
        storage: Storage,
    },
    /// The file cannot be written.
    #[error("writing the checkpoint: {0}")]
    Io(#[from] io::Error),
}

/// A tensor as a file has it.
struct Piece {
    name: String,
    /// Outermost dimension first.
    shape: Vec<usize>,
    storage: Storage,
    /// The entries of the source that it holds, one after the other.
    entries: Vec<usize>,
    /// Rows and columns of its entry, if it has them swapped.
    swapped: Option<(usize, usize)>,
}

impl Piece {
    /// One entry as it is.
    fn same(name: String, entry: &Entry, index: usize, storage: Storage) -> Self {
        Piece {
            name,
            shape: entry.shape.clone(),
            storage,
            entries: vec![index],
            swapped: None,
        }
    }
}

/// Writes a file, tensor after tensor; little of it is in memory at any time. Matrices get the format `weights`, or keep
/// theirs. `progress` gets the bytes of tensors that are written, and of all.
///
/// # Errors
/// If the model does not fit the layout, a number does not fit its format, or the file cannot be written.
pub fn write(
    source: &dyn Source,
    layout: &OutputLayout<'_>,
    weights: Option<Storage>,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), WriteError> {
    let (pieces, alignment) = match layout {
        OutputLayout::Safetensors => (safetensors::pieces(source, weights)?, 1),
        OutputLayout::Gguf(_) => (gguf::pieces(source, weights)?, gguf::ALIGNMENT),
    };
    let places = places(&pieces, alignment)?;
    let header = match layout {
        OutputLayout::Safetensors => safetensors::header(&pieces, &places)?,
        OutputLayout::Gguf(metadata) => gguf::header(source, metadata, &pieces, &places)?,
    };
    out.write_all(&header)?;
    let total = places.last().map_or(0, |p| p.end);
    let mut at = 0;
    for (piece, place) in pieces.iter().zip(&places) {
        out.write_all(&vec![0; (place.start - at) as usize])?;
        encode::write(piece, source, out)?;
        at = place.end;
        progress(at, total);
    }
    Ok(())
}

/// 64 TiB.
const MAX_BYTES: u64 = 1 << 46;

/// Where each piece is, from the beginning of all of them.
fn places(pieces: &[Piece], alignment: u64) -> Result<Vec<std::ops::Range<u64>>, WriteError> {
    let mut end = 0u64;
    let mut place = |piece: &Piece| {
        let start = end.next_multiple_of(alignment);
        let bytes = piece.storage.bytes(&piece.shape)? as u64;
        end = start.checked_add(bytes).filter(|&end| end <= MAX_BYTES)?;
        Some(start..end)
    };
    let places: Option<Vec<_>> = pieces.iter().map(&mut place).collect();
    places.ok_or_else(|| {
        WriteError::Unfit(format!(
            "the model would have more than {MAX_BYTES} bytes, which no file should"
        ))
    })
}
