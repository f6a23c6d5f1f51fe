//! Safetensors files.

use std::path::Path;
use std::sync::Arc;

use ::safetensors::{Dtype, SafeTensors};
use memmap2::Mmap;
use rwkvc_ir::DType;

use super::{CheckpointError, Data, Tensor};

/// All tensors of a file.
pub(super) fn open(path: &Path, map: Arc<Mmap>) -> Result<Vec<Tensor>, CheckpointError> {
    let malformed = |reason: String| CheckpointError::Malformed { path: path.into(), reason };
    // The reader checks that the tensors tile the data without gaps or overlap and end where the file ends.
    let file = SafeTensors::deserialize(&map).map_err(|e| malformed(format!("not a sound safetensors file: {e}")))?;
    let (header, metadata) =
        SafeTensors::read_metadata(&map).map_err(|e| malformed(format!("not a sound safetensors file: {e}")))?;
    drop(file);
    let start = header + 8;
    let mut tensors = vec![];
    for name in metadata.offset_keys() {
        let info = metadata.info(&name).ok_or_else(|| malformed(format!("tensor `{name}` has no entry")))?;
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                let reason = format!("is stored as {other:?}, expected F32, F16 or BF16");
                return Err(CheckpointError::Tensor { path: path.into(), tensor: name, reason });
            }
        };
        let range = start + info.data_offsets.0..start + info.data_offsets.1;
        tensors.push(Tensor { name, dtype, shape: info.shape.clone(), data: Data::Mapped(Arc::clone(&map), range) });
    }
    Ok(tensors)
}
