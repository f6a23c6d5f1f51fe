//! GGUF files, as llama.cpp writes them for its architecture `rwkv7`.
//!
//! A header with metadata and the places of the tensors, then the tensors, perhaps quantised. Dimensions are written
//! innermost first, so a shape here is the file's reversed.

mod header;
pub(crate) mod names;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

pub(crate) use self::header::ALIGNMENT;
use self::header::{Header, Info, Value};
use self::names::{BLOCK, Form, MIXED, MIXES, TOP, TYPES};
use super::tensor::Data;
use super::{Checkpoint, CheckpointError, CheckpointFormat, Quantised, Storage, Tensor};

/// How every file begins.
pub(crate) const MAGIC: &[u8] = b"GGUF";

/// The name of the architecture.
pub(crate) const ARCHITECTURE: &str = "rwkv7";

/// Epsilon of the layer norms.
pub(crate) const LAYER_NORM_EPS: &str = "rwkv7.attention.layer_norm_epsilon";

/// Channels of a head.
pub(crate) const HEAD_SIZE: &str = "rwkv7.wkv.head_size";

pub(super) fn open(path: &Path, map: Arc<Mmap>) -> Result<Checkpoint, CheckpointError> {
    let malformed = |reason: String| CheckpointError::Malformed {
        path: path.into(),
        reason,
    };
    let header = header::read(&map).map_err(malformed)?;
    let facts = Facts::read(&header).map_err(malformed)?;
    let mut tensors = vec![];
    for (info, end) in header.tensors.iter().zip(ends(&header)) {
        let error = |reason: String| CheckpointError::Tensor {
            path: path.into(),
            tensor: info.name.into(),
            reason,
        };
        let tensor = tensor(info, &header, end, &map).map_err(error)?;
        rename(info.name, tensor, &facts, &mut tensors).map_err(error)?;
    }
    Ok(Checkpoint {
        format: CheckpointFormat::Gguf,
        notes: notes(&tensors),
        tensors,
        group_norm_eps: None,
        layer_norm_eps: facts.layer_norm_eps,
    })
}

/// What the metadata says that shapes do not.
struct Facts {
    head_size: usize,
    layer_norm_eps: Option<f64>,
}

impl Facts {
    fn read(header: &Header<'_>) -> Result<Self, String> {
        let value = |key: &str| header.metadata.get(key);
        let wrong = |key: &str, expected: &str| match value(key) {
            None => Err(format!("it does not say `{key}`, expected {expected}")),
            Some(other) => Err(format!("its `{key}` is {other}, expected {expected}")),
        };
        match value("general.architecture") {
            Some(Value::Text(text)) if text == ARCHITECTURE => {}
            _ => return wrong("general.architecture", "`rwkv7`"),
        }
        if let Some(Value::Unsigned(2..)) = value("split.count") {
            return Err("it is one of several parts of a model; llama-gguf-split --merge joins them".into());
        }
        let head_size = match value(HEAD_SIZE) {
            Some(&Value::Unsigned(n @ 1..=0xffff_ffff)) => n as usize,
            _ => return wrong(HEAD_SIZE, "a number of channels"),
        };
        let layer_norm_eps = match value(LAYER_NORM_EPS) {
            None => None,
            // The number in f64 that is written the same: 1e-5, not the f32 next to it.
            Some(Value::F32(eps)) if *eps > 0.0 && *eps < 1.0 => eps.to_string().parse().ok(),
            _ => return wrong(LAYER_NORM_EPS, "a number between 0 and 1"),
        };
        Ok(Facts {
            head_size,
            layer_norm_eps,
        })
    }
}

/// Where each tensor must end, in the order of the header: where the next one begins, or with the file.
fn ends(header: &Header<'_>) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..header.tensors.len()).collect();
    order.sort_by_key(|&i| header.tensors[i].offset);
    let mut ends = vec![None; order.len()];
    for pair in order.windows(2) {
        ends[pair[0]] = Some(header.tensors[pair[1]].offset);
    }
    ends
}

/// A tensor under the name of the file. It must end before `next`, where another begins.
fn tensor(
    info: &Info<'_>,
    header: &Header<'_>,
    next: Option<usize>,
    map: &Arc<Mmap>,
) -> Result<Tensor, String> {
    let storage = TYPES.iter().find(|(kind, _)| *kind == info.kind).map(|(_, s)| *s);
    let storage = storage.ok_or_else(|| {
        let known: Vec<&str> = TYPES.iter().map(|(_, s)| s.name()).collect();
        format!("is of type {}, expected one of {}", info.kind, known.join(", "))
    })?;
    let row = info.shape.last().copied().unwrap_or(1);
    if !row.is_multiple_of(storage.values()) {
        return Err(format!(
            "has rows of {row} numbers, expected a multiple of the {} in a block of {}",
            storage.values(),
            storage.name()
        ));
    }
    let bytes = storage
        .bytes(&info.shape)
        .ok_or_else(|| format!("has the impossible shape {:?}", info.shape))?;
    if !info.offset.is_multiple_of(header.alignment) {
        return Err(format!(
            "begins at byte {} of the data, expected a multiple of {}",
            info.offset, header.alignment
        ));
    }
    let size = map.len().saturating_sub(header.data);
    let end = info.offset.checked_add(bytes).filter(|&end| end <= size);
    let end = end.ok_or_else(|| {
        format!(
            "has {bytes} bytes from byte {} of the data, which has {size} bytes",
            info.offset
        )
    })?;
    if let Some(next) = next.filter(|&next| next < end) {
        return Err(format!(
            "ends at byte {end} of the data, but another begins at byte {next}"
        ));
    }
    let range = header.data + info.offset..header.data + end;
    let map = Arc::clone(map);
    let data = match storage {
        Storage::Plain(dtype) => Data::Mapped(dtype, map, range),
        Storage::Blocks(format) => Data::Quantised(Arc::new(Quantised::new(format, map, range))),
    };
    Ok(Tensor {
        name: info.name.into(),
        shape: info.shape.clone(),
        data,
    })
}

/// Puts the tensor of this name among the official ones.
fn rename(name: &str, tensor: Tensor, facts: &Facts, official: &mut Vec<Tensor>) -> Result<(), String> {
    if let Some((_, top)) = TOP.iter().find(|(top, _)| *top == name) {
        official.push(Tensor {
            name: top.to_string(),
            ..tensor
        });
        return Ok(());
    }
    let (layer, part) = name
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'))
        .ok_or("is none of those that a GGUF file of RWKV-7 has")?;
    if part == MIXES {
        // Without a gate there is none for it; the model says that it is missing.
        let rows = tensor.shape.first().copied().unwrap_or_default();
        if !(5..=6).contains(&rows) {
            return Err(format!("is {:?}, expected [6, 1, 1, C]", tensor.shape));
        }
        for (i, letter) in MIXED.into_iter().take(rows).enumerate() {
            official.push(Tensor {
                name: format!("blocks.{layer}.att.x_{letter}"),
                ..tensor.part(i, rows)
            });
        }
        return Ok(());
    }
    let &(_, part, form) = BLOCK
        .iter()
        .find(|(name, ..)| *name == part)
        .ok_or("is none of those that a block of a GGUF file of RWKV-7 has")?;
    let shape = &tensor.shape;
    let tensor = match form {
        Form::Same => tensor,
        Form::Transposed => tensor
            .transposed()
            .ok_or_else(|| format!("is {shape:?}, expected a matrix"))?,
        Form::Flat => match shape[..] {
            [n] if n % facts.head_size == 0 => Tensor {
                shape: vec![n / facts.head_size, facts.head_size],
                ..tensor
            },
            _ => {
                return Err(format!(
                    "is {shape:?}, expected whole heads of {} channels, as `{HEAD_SIZE}` says",
                    facts.head_size
                ));
            }
        },
    };
    official.push(Tensor {
        name: format!("blocks.{layer}.{part}"),
        ..tensor
    });
    Ok(())
}

/// Says which tensors are quantised.
fn notes(tensors: &[Tensor]) -> Vec<String> {
    let mut counts = BTreeMap::new();
    for quantised in tensors.iter().filter_map(Tensor::quantised) {
        *counts.entry(quantised.format()).or_insert(0) += 1;
    }
    if counts.is_empty() {
        return vec![];
    }
    let each: Vec<String> = counts
        .iter()
        .map(|(format, n)| format!("{n} in {}", format.name()))
        .collect();
    vec![format!(
        "it has quantised tensors ({}); what is not multiplied in blocks is decoded to f16 in memory",
        each.join(", ")
    )]
}
