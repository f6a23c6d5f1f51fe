//! GGUF files that llama.cpp loads, in the forms that its converter gives to the tensors.

mod metadata;

use std::collections::HashMap;
use std::ops::Range;

use rwkvc_ir::DType;

pub use self::metadata::Metadata;
use super::{Entry, Piece, Source, WriteError};
use crate::checkpoint::Storage;
use crate::checkpoint::gguf::names::{BLOCK, Form, MIXED, MIXES, TOP, TYPES};
use crate::checkpoint::gguf::{ALIGNMENT as READ_ALIGNMENT, MAGIC};
use crate::model::GROUP_NORM_EPS;

/// What places of tensors are multiples of.
pub(super) const ALIGNMENT: u64 = READ_ALIGNMENT as u64;

/// The version of the format.
const VERSION: u32 = 3;

/// What does not fit, as an error.
fn unfit<T>(text: String) -> Result<T, WriteError> {
    Err(WriteError::Unfit(format!(
        "a GGUF file of RWKV-7 has no place for this model: {text}"
    )))
}

/// The tensors under the names of llama.cpp, block after block.
pub(super) fn pieces(source: &dyn Source, weights: Option<Storage>) -> Result<Vec<Piece>, WriteError> {
    let config = source.config();
    if config.group_norm_eps as f32 != GROUP_NORM_EPS as f32 {
        return unfit(format!(
            "epsilon of its group norm is {}, expected {GROUP_NORM_EPS}",
            config.group_norm_eps
        ));
    }
    let entries = source.entries();
    let mut left: HashMap<&str, usize> = entries
        .iter()
        .enumerate()
        .map(|(i, e)| (e.name.as_str(), i))
        .collect();
    // Those of the first block are never used.
    for part in ["v0", "v1", "v2"] {
        left.remove(format!("blocks.0.att.{part}").as_str());
    }
    let mut take = |name: &str| match left.remove(name) {
        Some(i) => Ok((i, &entries[i])),
        None => unfit(format!("it has no `{name}`")),
    };
    let mut pieces = vec![];
    for (name, official) in TOP {
        let (i, entry) = take(official)?;
        let storage = storage(entry, weights)?;
        pieces.push(Piece::same(name.into(), entry, i, storage));
    }
    for layer in 0..config.n_layers {
        let block = |part: &str| format!("blk.{layer}.{part}");
        let official = |part: &str| format!("blocks.{layer}.{part}");
        for (name, part, form) in BLOCK {
            // The first block's value gate is there for the sake of the format: a copy of something of its shape.
            let dummy = layer == 0 && part.starts_with("att.v") && !part.starts_with("att.value");
            if dummy {
                continue;
            }
            let (i, entry) = take(&official(part))?;
            let piece = piece(block(name), entry, i, form, weights)?;
            if layer == 0 && part.starts_with("att.a") {
                let name = block(&name.replace("time_mix_a", "time_mix_v"));
                pieces.push(self::piece(name, entry, i, form, weights)?);
            }
            pieces.push(piece);
        }
        let mixes = MIXED
            .iter()
            .map(|letter| Ok(take(&official(&format!("att.x_{letter}")))?.0))
            .collect::<Result<Vec<usize>, WriteError>>()?;
        pieces.push(Piece {
            name: block(MIXES),
            shape: vec![MIXED.len(), 1, 1, config.width],
            storage: Storage::Plain(DType::F32),
            entries: mixes,
            swapped: None,
        });
    }
    match entries.iter().find(|e| left.contains_key(e.name.as_str())) {
        Some(entry) => unfit(format!("it has a tensor `{}`", entry.name)),
        None => Ok(pieces),
    }
}

/// A tensor of a block.
fn piece(
    name: String,
    entry: &Entry,
    index: usize,
    form: Form,
    weights: Option<Storage>,
) -> Result<Piece, WriteError> {
    let mut piece = Piece::same(name, entry, index, storage(entry, weights)?);
    match (form, &entry.shape[..]) {
        (Form::Transposed, &[rows, columns]) => {
            piece.shape = vec![columns, rows];
            piece.swapped = Some((rows, columns));
        }
        // Vectors have one dimension, and the heads of `r_k` make one.
        (Form::Flat, shape) | (Form::Same, shape @ [1, 1, _]) => piece.shape = vec![shape.iter().product()],
        _ => {}
    }
    Ok(piece)
}

/// The format of a tensor, by the rules of llama.cpp's converter: vectors and the decay's low-rank matrices are f32.
fn storage(entry: &Entry, weights: Option<Storage>) -> Result<Storage, WriteError> {
    let decay = entry.name.ends_with(".att.w1") || entry.name.ends_with(".att.w2");
    if !entry.is_matrix() || decay {
        return Ok(Storage::Plain(DType::F32));
    }
    let own = Storage::Plain(entry.dtype);
    match weights {
        // Low-rank matrices are small, and their errors are not.
        Some(Storage::Blocks(_)) if entry.is_low_rank() => Ok(own),
        Some(storage) => {
            let row = entry.shape.last().copied().unwrap_or_default();
            if row.is_multiple_of(storage.values()) {
                return Ok(storage);
            }
            Err(WriteError::Unfit(format!(
                "tensor `{}` has rows of {row} numbers, expected a multiple of the {} in a block of {}",
                entry.name,
                storage.values(),
                storage.name()
            )))
        }
        None => Ok(own),
    }
}

/// Everything before the tensors.
pub(super) fn header(
    source: &dyn Source,
    metadata: &Metadata<'_>,
    pieces: &[Piece],
    places: &[Range<u64>],
) -> Result<Vec<u8>, WriteError> {
    let values = metadata::values(source, metadata, pieces)?;
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((pieces.len() as u64).to_le_bytes());
    out.extend((values.count as u64).to_le_bytes());
    out.extend(values.bytes);
    for (piece, place) in pieces.iter().zip(places) {
        metadata::text(&mut out, piece.name.as_bytes());
        out.extend((piece.shape.len() as u32).to_le_bytes());
        // Innermost dimension first.
        for &n in piece.shape.iter().rev() {
            out.extend((n as u64).to_le_bytes());
        }
        let kind = TYPES
            .iter()
            .find(|(_, s)| *s == piece.storage)
            .map(|(kind, _)| *kind);
        let Some(kind) = kind else {
            return unfit(format!("tensor `{}` is {}", piece.name, piece.storage.name()));
        };
        out.extend(kind.to_le_bytes());
        out.extend(place.start.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
    Ok(out)
}
