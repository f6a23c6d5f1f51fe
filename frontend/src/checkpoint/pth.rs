//! `torch.save` files: a zip with a pickle of the names and one stored entry for each storage.

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{PickleMachine, View};
use super::tensor::{Data, Storage};
use super::{Checkpoint, CheckpointError, CheckpointFormat, Tensor};

pub(super) fn open(path: &Path, map: Arc<Mmap>) -> Result<Checkpoint, CheckpointError> {
    let malformed = |reason: String| CheckpointError::Malformed {
        path: path.into(),
        reason,
    };
    let bytes: &[u8] = &map;
    let mut zip =
        ZipArchive::new(Cursor::new(bytes)).map_err(|e| malformed(format!("not a sound zip file: {e}")))?;
    let mut entries: HashMap<String, Range<usize>> = HashMap::new();
    for i in 0..zip.len() {
        let entry = zip
            .by_index_raw(i)
            .map_err(|e| malformed(format!("entry {i} of the zip: {e}")))?;
        let name = entry
            .name()
            .map_err(|e| malformed(format!("entry {i} of the zip: {e}")))?
            .into_owned();
        // The folder's name is that of the file when it was saved.
        let Some((_, inner)) = name.split_once('/') else {
            continue;
        };
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            return Err(malformed(format!(
                "entry `{name}` is compressed or encrypted; torch.save stores its entries, and only stored ones can be mapped"
            )));
        }
        let range = entry.data_start().and_then(|start| {
            let start = usize::try_from(start).ok()?;
            let end = start.checked_add(usize::try_from(entry.size()).ok()?)?;
            (end <= bytes.len()).then_some(start..end)
        });
        let range =
            range.ok_or_else(|| malformed(format!("entry `{name}` reaches beyond the end of the file")))?;
        if entries.insert(inner.to_string(), range).is_some() {
            return Err(malformed(format!("two entries are named `{name}`")));
        }
    }
    if let Some(order) = entries.get("byteorder").map(|range| &bytes[range.clone()])
        && order != b"little"
    {
        let found = String::from_utf8_lossy(&order[..order.len().min(16)]).into_owned();
        return Err(malformed(format!(
            "its byte order is `{found}`, expected `little`"
        )));
    }
    let pickle = entries.get("data.pkl").map(|range| &bytes[range.clone()]);
    let pickle = pickle.ok_or_else(|| malformed("it has no data.pkl: not written by torch.save".into()))?;
    let (views, _) = PickleMachine::new(pickle)
        .tensors()
        .map_err(|e| malformed(e.to_string()))?;
    let tensors = tensors(path, &map, views, |key| {
        entries.get(&format!("data/{key}")).cloned()
    })?;
    Ok(Checkpoint {
        format: CheckpointFormat::Pth,
        tensors,
        group_norm_eps: None,
        layer_norm_eps: None,
        notes: vec![],
    })
}

/// Views of storages as tensors. `storage` says where the storage of a key lies in the file.
pub(super) fn tensors(
    path: &Path,
    map: &Arc<Mmap>,
    views: Vec<(String, View)>,
    storage: impl Fn(&str) -> Option<Range<usize>>,
) -> Result<Vec<Tensor>, CheckpointError> {
    let mut copied = 0usize;
    let mut all = vec![];
    for (name, view) in views {
        let range = storage(&view.storage.key);
        let tensor = tensor(path, map, name, &view, range, map.len() - copied)?;
        if let Data::Owned(_, bytes) = &tensor.data {
            copied += bytes.len();
        }
        all.push(tensor);
    }
    Ok(all)
}

/// A view of a storage as a tensor: mapped where it is contiguous, else gathered, into at most `room` bytes.
fn tensor(
    path: &Path,
    map: &Arc<Mmap>,
    name: String,
    view: &View,
    storage: Option<Range<usize>>,
    room: usize,
) -> Result<Tensor, CheckpointError> {
    let error = |reason: String| CheckpointError::Tensor {
        path: path.into(),
        tensor: name.clone(),
        reason,
    };
    let key = &view.storage.key;
    let storage =
        storage.ok_or_else(|| error(format!("lies in storage `{key}`, which the file does not have")))?;
    let dtype = view.storage.dtype;
    let size = dtype.size();
    let stored = view.storage.len.checked_mul(size).filter(|&n| n <= storage.len());
    let stored = stored.ok_or_else(|| {
        error(format!(
            "needs a storage of {} elements, but storage `{key}` has {} bytes",
            view.storage.len,
            storage.len()
        ))
    })?;
    let bytes = Storage::Plain(dtype)
        .bytes(&view.shape)
        .ok_or_else(|| error(format!("has the impossible shape {:?}", view.shape)))?;
    // The last element of the view must lie in the storage.
    let reach = view
        .shape
        .iter()
        .zip(&view.strides)
        .try_fold(view.offset, |n, (&d, &s)| {
            n.checked_add(d.saturating_sub(1).checked_mul(s)?)
        });
    let fits = bytes == 0
        || reach
            .and_then(|n| n.checked_add(1)?.checked_mul(size))
            .is_some_and(|n| n <= stored);
    // Overlapping strides could make a large tensor of a small file.
    if !fits || bytes > stored {
        return Err(error(format!(
            "reaches beyond the {stored} bytes of its storage `{key}`"
        )));
    }
    let mut expected = 1usize;
    let contiguous = view.shape.iter().zip(&view.strides).rev().all(|(&d, &s)| {
        let fits = d == 1 || s == expected;
        expected = usize::saturating_mul(expected, d);
        fits
    });
    let data = if bytes == 0 {
        // Its offset may lie anywhere.
        Data::Mapped(dtype, Arc::clone(map), storage.start..storage.start)
    } else if contiguous {
        let start = storage.start + view.offset * size;
        Data::Mapped(dtype, Arc::clone(map), start..start + bytes)
    } else if bytes > room {
        // Many strided views of one storage could make a large model of a small file.
        return Err(error(
            "and the strided ones before it would take more memory than the file has bytes".into(),
        ));
    } else {
        Data::Owned(dtype, Arc::new(gather(&map[storage], view, size, bytes)))
    };
    Ok(Tensor {
        name,
        shape: view.shape.clone(),
        data,
    })
}

/// The elements of a strided view, row-major.
fn gather(storage: &[u8], view: &View, size: usize, bytes: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(bytes);
    for i in 0..bytes / size {
        let mut rest = i;
        let mut at = view.offset;
        for (&d, &stride) in view.shape.iter().zip(&view.strides).rev() {
            at += rest % d * stride;
            rest /= d;
        }
        all.extend_from_slice(&storage[at * size..(at + 1) * size]);
    }
    all
}
