//! Numbers to bytes.

use std::io::Write;

use half::f16;
use rwkvc_ir::DType;

use super::{Piece, Source, WriteError};
use crate::checkpoint::{BlockFormat, Storage};

/// Writes the numbers of a piece.
pub(super) fn write(piece: &Piece, source: &dyn Source, out: &mut dyn Write) -> Result<(), WriteError> {
    let mut bytes = vec![];
    let mut put = |values: &[f32]| {
        bytes.clear();
        encode(piece, values, &mut bytes)?;
        Ok(out.write_all(&bytes)?)
    };
    for &entry in &piece.entries {
        let Some((rows, columns)) = piece.swapped else {
            source.read(entry, &mut put)?;
            continue;
        };
        let mut all = Vec::new();
        source.read(entry, &mut |values| {
            all.extend_from_slice(values);
            Ok(())
        })?;
        let column = |c: usize| (0..rows).map(move |r| r * columns + c);
        let swapped: Vec<f32> = (0..columns).flat_map(column).map(|i| all[i]).collect();
        put(&swapped)?;
    }
    Ok(())
}

/// Appends numbers in the format of a piece.
fn encode(piece: &Piece, values: &[f32], out: &mut Vec<u8>) -> Result<(), WriteError> {
    let refused = |value: f32| WriteError::Number {
        tensor: piece.name.clone(),
        value,
        storage: piece.storage,
    };
    match piece.storage {
        Storage::Plain(dtype) => {
            let start = out.len();
            out.resize(start + values.len() * dtype.size(), 0);
            for (i, &value) in values.iter().enumerate() {
                dtype.write(&mut out[start..], i, f64::from(value));
            }
            let lost =
                |&(i, value): &(usize, &f32)| value.is_finite() && !dtype.read(&out[start..], i).is_finite();
            let exact = dtype == DType::F32;
            match values.iter().enumerate().find(|v| !exact && lost(v)) {
                Some((_, &value)) => Err(refused(value)),
                None => Ok(()),
            }
        }
        Storage::Blocks(BlockFormat::Q8_0) => {
            for block in values.chunks(BlockFormat::Q8_0.values()) {
                q8_0(block, out).map_err(refused)?;
            }
            Ok(())
        }
        Storage::Blocks(format) => Err(WriteError::Unfit(format!(
            "there is no encoder for {}",
            format.name()
        ))),
    }
}

/// A block of q8_0: the scale that makes the largest number 127, and 8 bits a number. The error is a number that no
/// scale can make fit.
fn q8_0(values: &[f32], out: &mut Vec<u8>) -> Result<(), f32> {
    let largest = values.iter().fold(0f32, |most, v| most.max(v.abs()));
    let scale = largest / 127.0;
    let stored = f16::from_f32(scale);
    if let Some(&bad) = values.iter().find(|v| !v.is_finite()) {
        return Err(bad);
    }
    if !stored.is_finite() {
        return Err(largest);
    }
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    out.extend(stored.to_le_bytes());
    out.extend(values.iter().map(|v| (v * inverse).round() as i8 as u8));
    Ok(())
}
