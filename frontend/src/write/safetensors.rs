//! Safetensors files with official names.

use std::ops::Range;

use super::{Piece, Source, WriteError};
use crate::checkpoint::Storage;
use crate::model::{GROUP_NORM_EPS, LAYER_NORM_EPS};

/// The tensors as they are, the matrices in the format that is asked for.
pub(super) fn pieces(source: &dyn Source, weights: Option<Storage>) -> Result<Vec<Piece>, WriteError> {
    if let Some(storage @ Storage::Blocks(_)) = weights {
        return Err(WriteError::Unfit(format!(
            "a safetensors file holds f32, f16 or bf16, not {}; a .gguf file can",
            storage.name()
        )));
    }
    let config = source.config();
    for (what, eps, expected) in [
        ("layer norms", config.layer_norm_eps, LAYER_NORM_EPS),
        ("group norm", config.group_norm_eps, GROUP_NORM_EPS),
    ] {
        if eps as f32 != expected as f32 {
            return Err(WriteError::Unfit(format!(
                "epsilon of the {what} is {eps}, which a safetensors file with official names cannot say: it means {expected}"
            )));
        }
    }
    let piece = |(i, entry): (usize, &super::Entry)| {
        let own = Storage::Plain(entry.dtype);
        let storage = weights.filter(|_| entry.is_matrix()).unwrap_or(own);
        Piece::same(entry.name.clone(), entry, i, storage)
    };
    Ok(source.entries().iter().enumerate().map(piece).collect())
}

/// The length of the header, then the header, padded so that the tensors start on a cache line.
pub(super) fn header(pieces: &[Piece], places: &[Range<u64>]) -> Result<Vec<u8>, WriteError> {
    let mut map = serde_json::Map::new();
    for (piece, place) in pieces.iter().zip(places) {
        let entry = serde_json::json!({
            "dtype": piece.storage.name().to_uppercase(),
            "shape": piece.shape,
            "data_offsets": [place.start, place.end],
        });
        map.insert(piece.name.clone(), entry);
    }
    let mut text = serde_json::to_vec(&map).map_err(std::io::Error::from)?;
    text.resize((text.len() + 8).next_multiple_of(64) - 8, b' ');
    let mut all = (text.len() as u64).to_le_bytes().to_vec();
    all.extend(text);
    Ok(all)
}
