//! Safetensors files.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ::safetensors::{Dtype, SafeTensors};
use memmap2::Mmap;
use rwkvc_ir::DType;
use serde::Deserialize;
use serde::de::{Error, MapAccess, Visitor};

use super::tensor::Data;
use super::{CheckpointError, Tensor};

/// All tensors of a file.
pub(super) fn open(path: &Path, map: Arc<Mmap>) -> Result<Vec<Tensor>, CheckpointError> {
    let malformed = |reason: String| CheckpointError::Malformed {
        path: path.into(),
        reason,
    };
    check_extents(&map).map_err(malformed)?;
    // The reader checks that the tensors tile the data without gaps or overlap and end where the file ends.
    let (header, metadata) = SafeTensors::read_metadata(&map)
        .map_err(|e| malformed(format!("not a sound safetensors file: {e}")))?;
    let start = header + 8;
    let mut tensors = vec![];
    for name in metadata.offset_keys() {
        let info = metadata
            .info(&name)
            .ok_or_else(|| malformed(format!("tensor `{name}` has no entry")))?;
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                let reason = format!("is stored as {other:?}, expected F32, F16 or BF16");
                return Err(CheckpointError::Tensor {
                    path: path.into(),
                    tensor: name,
                    reason,
                });
            }
        };
        let range = start + info.data_offsets.0..start + info.data_offsets.1;
        tensors.push(Tensor {
            name,
            shape: info.shape.clone(),
            data: Data::Mapped(dtype, Arc::clone(&map), range),
        });
    }
    Ok(tensors)
}

/// The tensors of a file of any formats, after the checks that the reader leaves out.
///
/// # Errors
/// What is wrong with the file.
pub fn parse(file: &[u8]) -> Result<SafeTensors<'_>, String> {
    check_extents(file)?;
    SafeTensors::deserialize(file).map_err(|e| e.to_string())
}

/// Refuses two tensors of one name, of which the reader would take the last, and tensors beyond the end of the file, whose
/// offsets it adds without a check for overflow.
fn check_extents(file: &[u8]) -> Result<(), String> {
    let length = file
        .first_chunk()
        .map(|n| u64::from_le_bytes(*n))
        .unwrap_or_default();
    let header = usize::try_from(length)
        .ok()
        .and_then(|n| file.get(8..n.checked_add(8)?));
    let header = header.ok_or_else(|| {
        format!(
            "its header should have {length} bytes, but the file has {}",
            file.len()
        )
    })?;
    let Extents(extents) = serde_json::from_slice(header)
        .map_err(|e| format!("its header is not that of a safetensors file: {e}"))?;
    let size = (file.len() - header.len() - 8) as u64;
    match extents.into_iter().find(|(_, end)| *end > size) {
        Some((name, end)) => Err(format!(
            "tensor `{name}` ends at byte {end} of the data, which has {size} bytes"
        )),
        None => Ok(()),
    }
}

/// The names of the tensors and where they end.
struct Extents(Vec<(String, u64)>);

#[derive(Deserialize)]
struct Entry {
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Extents {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Header)
    }
}

struct Header;

impl<'de> Visitor<'de> for Header {
    type Value = Extents;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Extents, A::Error> {
        let (mut names, mut extents) = (HashSet::new(), vec![]);
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<serde::de::IgnoredAny>()?;
                continue;
            }
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!("two tensors are named `{name}`")));
            }
            extents.push((name, map.next_value::<Entry>()?.data_offsets.1));
        }
        Ok(Extents(extents))
    }
}
