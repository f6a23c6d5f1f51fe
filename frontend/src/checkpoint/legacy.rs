//! The form of `torch.save` before version 1.6: pickles one after the other, then the storages.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use memmap2::Mmap;

use super::pickle::{PickleError, PickleMachine};
use super::{Checkpoint, CheckpointError, CheckpointFormat, pth};

/// The first pickle: protocol 2, then the ten bytes of 0x1950a86a20f9469cfc6c, then the end.
const MAGIC: [u8; 15] = [
    0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.',
];

pub(super) fn open(path: &Path, map: Arc<Mmap>) -> Result<Checkpoint, CheckpointError> {
    let malformed = |reason: String| CheckpointError::Malformed {
        path: path.into(),
        reason,
    };
    let pickle = |e: PickleError| malformed(e.to_string());
    if !map.starts_with(&MAGIC) {
        return Err(malformed(
            "it is a pickle, but not one that torch.save wrote".into(),
        ));
    }
    let bytes: &[u8] = &map;
    let mut at = MAGIC.len();
    // The protocol's version.
    at += PickleMachine::new(&bytes[at..]).skip().map_err(pickle)?;
    let (little_endian, n) = PickleMachine::new(&bytes[at..])
        .flag("little_endian")
        .map_err(pickle)?;
    at += n;
    if little_endian == Some(false) {
        return Err(malformed("its byte order is `big`, expected `little`".into()));
    }
    let (views, n) = PickleMachine::new(&bytes[at..]).tensors().map_err(pickle)?;
    at += n;
    let (keys, n) = PickleMachine::new(&bytes[at..]).texts().map_err(pickle)?;
    at += n;
    let sizes: HashMap<&str, usize> = views
        .iter()
        .map(|(_, v)| (&*v.storage.key, v.storage.dtype.size()))
        .collect();
    let mut storages: HashMap<Rc<str>, Range<usize>> = HashMap::new();
    for key in keys {
        let Some(size) = sizes.get(&*key) else {
            return Err(malformed(format!(
                "storage `{key}` belongs to no tensor, so its element size is not known"
            )));
        };
        let range = bytes.get(at..at + 8).and_then(|n| {
            let len = usize::try_from(i64::from_le_bytes(n.try_into().ok()?)).ok()?;
            let start = at + 8;
            let end = start.checked_add(len.checked_mul(*size)?)?;
            (end <= bytes.len()).then_some(start..end)
        });
        let range =
            range.ok_or_else(|| malformed(format!("the file ends before the end of storage `{key}`")))?;
        at = range.end;
        storages.insert(key, range);
    }
    let tensors = pth::tensors(path, &map, views, |key| storages.get(key).cloned())?;
    Ok(Checkpoint {
        format: CheckpointFormat::PthLegacy,
        tensors,
        group_norm_eps: None,
        layer_norm_eps: None,
        notes: vec![],
    })
}
