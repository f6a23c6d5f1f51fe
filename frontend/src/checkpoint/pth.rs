//! `torch.save` files: a zip with a pickle of the names and one stored entry for each storage.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{Machine, View};
use super::{Checkpoint, CheckpointError, Data, Format, Tensor, byte_len};

/// The names and shapes of a large model take about 100 KiB.
const MAX_PICKLE: u64 = 64 << 20;

pub(super) fn open(path: &Path, map: Arc<Mmap>) -> Result<Checkpoint, CheckpointError> {
    let malformed = |reason: String| CheckpointError::Malformed { path: path.into(), reason };
    let bytes: &[u8] = &map;
    let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(|e| malformed(format!("not a sound zip file: {e}")))?;
    let mut entries: HashMap<String, Range<usize>> = HashMap::new();
    let mut pickle = None;
    for i in 0..zip.len() {
        let mut entry = zip.by_index_raw(i).map_err(|e| malformed(format!("entry {i} of the zip: {e}")))?;
        let name = entry.name().map_err(|e| malformed(format!("entry {i} of the zip: {e}")))?.into_owned();
        // The folder's name is that of the file when it was saved.
        let Some((_, inner)) = name.split_once('/') else { continue };
        if entry.compression() != CompressionMethod::Stored {
            return Err(malformed(format!(
                "entry `{name}` is compressed; torch.save stores its entries, and only stored ones can be mapped"
            )));
        }
        if inner == "data.pkl" {
            let mut text = vec![];
            let size = entry.size();
            if size > MAX_PICKLE {
                return Err(malformed(format!("`{name}` is {size} bytes, expected at most {MAX_PICKLE}")));
            }
            entry.by_ref().take(MAX_PICKLE).read_to_end(&mut text).map_err(|e| malformed(format!("`{name}`: {e}")))?;
            pickle = Some(text);
        } else if inner == "byteorder" {
            let mut order = vec![];
            entry.by_ref().take(16).read_to_end(&mut order).map_err(|e| malformed(format!("`{name}`: {e}")))?;
            if order != b"little" {
                let found = String::from_utf8_lossy(&order).into_owned();
                return Err(malformed(format!("its byte order is `{found}`, expected `little`")));
            }
        } else if let Some(key) = inner.strip_prefix("data/") {
            let range = entry.data_start().and_then(|start| {
                let start = usize::try_from(start).ok()?;
                let end = start.checked_add(usize::try_from(entry.size()).ok()?)?;
                (end <= bytes.len()).then_some(start..end)
            });
            let range = range.ok_or_else(|| malformed(format!("entry `{name}` reaches beyond the end of the file")))?;
            entries.insert(key.to_string(), range);
        }
    }
    let pickle = pickle.ok_or_else(|| malformed("it has no data.pkl: not written by torch.save".into()))?;
    let (views, _) = Machine::new(&pickle).tensors().map_err(|e| malformed(e.to_string()))?;
    let tensors = views
        .into_iter()
        .map(|(name, view)| {
            let storage = entries.get(&view.storage.key).cloned();
            tensor(path, &map, name, &view, storage)
        })
        .collect::<Result<_, _>>()?;
    Ok(Checkpoint { format: Format::Pth, tensors, group_norm_eps: None, layer_norm_eps: None })
}

/// A view of a storage as a tensor: mapped where it is contiguous, else gathered.
pub(super) fn tensor(
    path: &Path,
    map: &Arc<Mmap>,
    name: String,
    view: &View,
    storage: Option<Range<usize>>,
) -> Result<Tensor, CheckpointError> {
    let error = |reason: String| CheckpointError::Tensor { path: path.into(), tensor: name.clone(), reason };
    let key = &view.storage.key;
    let storage = storage.ok_or_else(|| error(format!("lies in storage `{key}`, which the file does not have")))?;
    let dtype = view.storage.dtype;
    let size = dtype.size();
    let stored = view.storage.len.checked_mul(size).filter(|&n| n <= storage.len());
    let stored = stored.ok_or_else(|| {
        error(format!("needs a storage of {} elements, but storage `{key}` has {} bytes", view.storage.len, storage.len()))
    })?;
    let bytes = byte_len(dtype, &view.shape).ok_or_else(|| error(format!("has the impossible shape {:?}", view.shape)))?;
    // The last element of the view must lie in the storage.
    let reach = view.shape.iter().zip(&view.strides).try_fold(view.offset, |n, (&d, &s)| {
        n.checked_add(d.saturating_sub(1).checked_mul(s)?)
    });
    let fits = bytes == 0 || reach.and_then(|n| n.checked_add(1)?.checked_mul(size)).is_some_and(|n| n <= stored);
    // Overlapping strides could make a large tensor of a small file.
    if !fits || bytes > stored {
        return Err(error(format!("reaches beyond the {stored} bytes of its storage `{key}`")));
    }
    let mut expected = 1usize;
    let contiguous = view.shape.iter().zip(&view.strides).rev().all(|(&d, &s)| {
        let fits = d == 1 || s == expected;
        expected = usize::saturating_mul(expected, d);
        fits
    });
    let data = if contiguous {
        let start = storage.start + view.offset * size;
        Data::Mapped(Arc::clone(map), start..start + bytes)
    } else {
        Data::Owned(Arc::new(gather(&map[storage], view, size, bytes)))
    };
    Ok(Tensor { name, dtype, shape: view.shape.clone(), data })
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
