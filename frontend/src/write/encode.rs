//! Numbers to bytes.

use std::io::Write;

use half::{bf16, f16};
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
            match dtype {
                DType::F16 => append(values, out, |v| f16::from_f32(v).to_le_bytes()),
                DType::BF16 => append(values, out, |v| bf16::from_f32(v).to_le_bytes()),
                _ => append(values, out, f32::to_le_bytes),
            }
            // If the largest fits, all do.
            let size = |v: &f32| if v.is_finite() { v.abs() } else { 0.0 };
            let largest = values.iter().map(size).fold(0.0, f32::max);
            match values.iter().find(|v| size(v) == largest) {
                Some(&value) if !fits(dtype, largest) => Err(refused(value)),
                _ => Ok(()),
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

fn append<const N: usize>(values: &[f32], out: &mut Vec<u8>, bytes: impl Fn(f32) -> [u8; N]) {
    let start = out.len();
    out.resize(start + values.len() * N, 0);
    let places = out[start..].as_chunks_mut::<N>().0;
    for (place, &value) in places.iter_mut().zip(values) {
        *place = bytes(value);
    }
}

/// Whether rounding leaves it a number.
fn fits(dtype: DType, value: f32) -> bool {
    let mut bytes = [0; 4];
    dtype.write(&mut bytes, 0, f64::from(value));
    dtype.read(&bytes, 0).is_finite()
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
