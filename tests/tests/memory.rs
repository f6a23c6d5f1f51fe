//! Weights are used where they are mapped, and a text takes the same memory however long it is.
//!
//! One test, alone in its process: it watches all allocations of all threads.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use rwkvc::backends;
use rwkvc_runtime::Model;
use rwkvc_tests::cases::{Case, PROGRAMS};
use rwkvc_tests::fixtures::open;
use rwkvc_tests::random::Random;
use rwkvc_tests::session::Session;

/// Counts allocations and their bytes.
struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn weights_are_mapped_and_steps_allocate_nothing() {
    an_artifact_is_mapped_and_gives_the_same_bits();
    a_checkpoint_is_mapped();
    a_text_takes_no_memory();
}

/// Bytes allocated by `f`.
fn allocated<T>(f: impl FnOnce() -> T) -> (u64, T) {
    let before = BYTES.load(Ordering::Relaxed);
    let result = f();
    (BYTES.load(Ordering::Relaxed) - before, result)
}

fn an_artifact_is_mapped_and_gives_the_same_bits() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("demo.rwkvc");
    let checkpoint = open("demo.safetensors");
    let tokens = Random(3).tokens(60, 257);
    for backend in backends::all() {
        let case = Case::fused(backend);
        case.write_artifact(&checkpoint, &PROGRAMS, &path);
        let (bytes, model) = allocated(|| Model::open(&path).expect("the artifact"));
        let weights: u64 = model.manifest().weights.iter().map(|w| w.bytes).sum();
        assert!(weights > 7_000_000, "{case}: only {weights} bytes of weights");
        assert!(
            bytes < weights / 5,
            "{case}: opening {weights} bytes of weights allocates {bytes}"
        );

        let in_memory = case.load(&checkpoint, &PROGRAMS);
        let (mut mapped, mut compiled) = (Session::new(&model, 2), Session::new(&in_memory, 2));
        assert_eq!(mapped.decode(&tokens), compiled.decode(&tokens), "{case}: decode");
        assert_eq!(mapped.score(&tokens), compiled.score(&tokens), "{case}: score");
        assert_eq!(
            mapped.prefill(&tokens),
            compiled.prefill(&tokens),
            "{case}: prefill"
        );
        assert_eq!(
            mapped.state().values(),
            compiled.state().values(),
            "{case}: state"
        );
    }
}

fn a_checkpoint_is_mapped() {
    for file in ["demo.safetensors", "demo.pth", "demo-hf"] {
        let (bytes, model) = allocated(|| open(file));
        let weights: usize = model.weights().map(|w| w.bytes.len()).sum();
        assert!(weights > 7_000_000, "{file}: only {weights} bytes of weights");
        assert!(
            bytes < weights as u64 / 5,
            "{file}: opening {weights} bytes of weights allocates {bytes}"
        );
    }
}

/// By every program, on more than one thread.
fn a_text_takes_no_memory() {
    let code = Case::fused(backends::all()[0]).load(&open("tracker.pth"), &PROGRAMS);
    let mut session = Session::new(&code, 3).0;
    let tokens = Random(9).tokens(2000, code.vocab());
    let mut sum = 0.0;
    let mut read_all = |sum: &mut f32| {
        for &token in &tokens {
            *sum += session.step(token).expect("a step")[0];
        }
        *sum += session.prefill(&tokens).expect("a run")[0];
        let scored = session.score(&tokens, &mut |_, row| *sum += row[0]);
        scored.expect("a run");
    };
    // Touches every page that is ever used.
    read_all(&mut sum);
    // Asking the system allocates.
    let resident = resident_pages();
    let calls = CALLS.load(Ordering::Relaxed);
    read_all(&mut sum);
    read_all(&mut sum);
    let calls = CALLS.load(Ordering::Relaxed) - calls;
    assert_eq!(calls, 0, "12,000 tokens allocate {calls} times");
    if let (Some(before), Some(after)) = (resident, resident_pages()) {
        // The system counts in batches of some pages for each thread.
        assert!(
            after <= before + 256,
            "from {before} to {after} pages after 12,000 tokens"
        );
    }
    assert!(sum.is_finite());
}

/// Pages of this process that are in memory, where the system tells.
fn resident_pages() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    text.split_whitespace().nth(1)?.parse().ok()
}
