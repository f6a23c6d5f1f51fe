//! Other versions of RWKV, refused by name.

use super::ModelError;
use crate::checkpoint::Tensor;

/// What shows a version: a part of a tensor's name. The first that occurs decides.
const MARKS: [(&str, &str); 8] = [
    (".ffn.enn", "RWKV-8"),
    ("rosa", "RWKV-8 (ROSA)"),
    ("time_maa", "RWKV-6"),
    ("time_faaaa", "RWKV-5"),
    ("att.time_mix_g", "RWKV-5"),
    ("att.time_first", "RWKV-4 or RWKV-5"),
    ("time_decay", "RWKV-4, 5 or 6"),
    ("time_mix_", "RWKV-4 or RWKV-5"),
];

/// # Errors
/// [`ModelError::Version`], naming the version and the tensor that shows it.
pub(super) fn other_versions(tensors: &[Tensor]) -> Result<(), ModelError> {
    if let Some(tensor) = tensors.iter().find(|t| is_growing_cache(t.name())) {
        let found = "RWKV-7b, whose attention keeps a growing cache";
        return Err(ModelError::Version {
            found,
            tensor: tensor.name().into(),
        });
    }
    for (mark, found) in MARKS {
        if let Some(tensor) = tensors.iter().find(|t| t.name().contains(mark)) {
            return Err(ModelError::Version {
                found,
                tensor: tensor.name().into(),
            });
        }
    }
    Ok(())
}

/// `blocks.N.qkv.*`; other architectures have a `qkv` inside a part of the block.
fn is_growing_cache(name: &str) -> bool {
    let part = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
    part.is_some_and(|(_, part)| part.starts_with("qkv."))
}
