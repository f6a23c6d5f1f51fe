//! Damaged checkpoints of every layout: each is a model or an error, never a panic, and takes memory in proportion to the
//! file.

mod writers;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rwkvc_frontend::model::Model;
use writers::*;

/// Counts the bytes in use and the most there were.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(IN_USE.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller's layout.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's block, which came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Keeps what one test allocates out of the counts of the others.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a checkpoint and reads all of its weights.
fn open_all(path: &Path, size: usize) -> bool {
    let before = IN_USE.load(Relaxed);
    MOST.store(before, Relaxed);
    let model = Model::open(path);
    let opened = model.as_ref().is_ok_and(|m| {
        m.not_finite();
        m.fingerprint();
        m.summary().parameters > 0
    });
    // An error is for people to read.
    let message = model.err().map(|e| e.to_string());
    assert!(message.is_none_or(|m| !m.is_empty()));
    let most = MOST.load(Relaxed) - before;
    assert!(
        most < (1 << 20) + 100 * size,
        "a file of {size} bytes took {most} bytes of memory"
    );
    opened
}

/// A GGUF file whose larger matrices are in blocks.
fn quantised() -> Vec<u8> {
    let options = rwkvc_frontend::generate::GenerateOptions {
        width: 32,
        head_size: 8,
        ffn: 32,
        ..small()
    };
    let mut file = gguf::Gguf::of(&items_of(&options));
    for tensor in &mut file.tensors {
        if let [32, rows] = tensor.dimensions[..] {
            tensor.kind = 8;
            tensor.bytes.truncate(34 * rows as usize);
            tensor
                .bytes
                .iter_mut()
                .skip(1)
                .step_by(34)
                .for_each(|b| *b = 0x2c);
        }
    }
    file.write()
}

const INTERESTING: [u64; 10] = [
    0,
    1,
    0x7f,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 62,
    i64::MAX as u64,
    u64::MAX,
];

/// Changes a few bytes, mostly where the structure is rather than in the numbers.
fn damage(file: &[u8], other: &[u8], parts: &[std::ops::Range<usize>], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..random.random_range(1..4) {
        if bytes.is_empty() {
            return bytes;
        }
        let part = &parts[random.random_range(0..parts.len())];
        let at = random.random_range(part.clone()).min(bytes.len() - 1);
        match random.random_range(0..7) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            2 => bytes.truncate(at),
            3 => {
                let n = [1, 2, 4, 8][random.random_range(0..4)];
                let value = INTERESTING[random.random_range(0..INTERESTING.len())].to_le_bytes();
                let end = (at + n).min(bytes.len());
                bytes[at..end].copy_from_slice(&value[..end - at]);
            }
            4 => {
                let end = (at + random.random_range(1..40)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let from = random.random_range(0..other.len());
                let n = random.random_range(1..60).min(other.len() - from);
                bytes.splice(at..at, other[from..from + n].iter().copied());
            }
            // Text: another digit.
            _ => {
                let digit = bytes[at..].iter().position(u8::is_ascii_digit);
                if let Some(i) = digit {
                    bytes[at + i] = b'0' + random.random_range(0..10);
                }
            }
        }
    }
    bytes
}

#[test]
fn damaged_files_are_models_or_errors() {
    let _alone = alone();
    let items = items();
    let (views, storages) = contiguous(&items);
    let hf = safetensors(&hugging_face(&items));
    let files = [
        pth_with(&views, &storages, "little"),
        legacy(&items),
        safetensors(&items),
        hf,
        gguf::Gguf::of(&items).write(),
        quantised(),
    ];
    let pickled = pickle(&views).len();
    let folder = Folder::new();
    let mut random = StdRng::seed_from_u64(1);
    let mut opened = [0; 6];
    for (i, file) in files.iter().enumerate() {
        assert!(open_all(&folder.write("sound", file), file.len()));
        let header = || 8 + file[..8].iter().rev().fold(0, |n, &b| n << 8 | usize::from(b));
        let mut parts = match i {
            // The pickle, the directory of the zip.
            0 => vec![0..pickled + 200, file.len() - 80 * items.len()..file.len()],
            1 => std::iter::once(0..pickled + 200).collect(),
            // All names, places and metadata.
            4 | 5 => std::iter::once(0..4000).collect(),
            _ => std::iter::once(0..header()).collect(),
        };
        parts.push(0..file.len());
        for _ in 0..1000 {
            let other = &files[random.random_range(0..files.len())];
            let damaged = damage(file, other, &parts, &mut random);
            opened[i] += u32::from(open_all(&folder.write("damaged", &damaged), damaged.len()));
        }
    }
    // Damage to numbers goes unnoticed, damage to the structure does not.
    assert!(
        opened.iter().all(|&n| n > 0 && n < 1000),
        "of 1500 each, {opened:?} opened"
    );
}

#[test]
fn every_truncation_is_an_error() {
    let _alone = alone();
    let items = items();
    let folder = Folder::new();
    let llama = gguf::Gguf::of(&items).write();
    for file in [pth(&items), legacy(&items), safetensors(&items), llama] {
        for end in (0..file.len()).step_by(37).chain([file.len() - 1]) {
            assert!(
                Model::open(&folder.write("short", &file[..end])).is_err(),
                "{end} of {} bytes",
                file.len()
            );
        }
    }
}

#[test]
fn every_byte_of_a_gguf_header_may_change() {
    let _alone = alone();
    let file = quantised();
    // The names of the last tensors are in the header.
    let header = 4 + file
        .windows(22)
        .rposition(|w| w == b"time_mix_lerp_fused.we")
        .expect("a name");
    let folder = Folder::new();
    let mut opened = 0;
    for at in 0..header {
        let mut damaged = file.clone();
        damaged[at] ^= 1 << (at % 8) | u8::from(at % 3 == 0) << 7;
        opened += u32::from(open_all(&folder.write("damaged", &damaged), damaged.len()));
    }
    // Letters of metadata that nobody reads.
    assert!(opened < header as u32 / 10, "{opened} of {header} opened");
}
