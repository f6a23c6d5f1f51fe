//! A sampler allocates when it is made and never again. A test of its own, for it counts allocations: of its thread, since
//! what runs the tests has a thread that allocates when it likes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use rwkvc_runtime::sampler::{Sampler, SamplerOptions};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn sampling_does_not_allocate() {
    let logits: Vec<f32> = (0..3000).map(|n| (n * 37 % 101) as f32 / 25.0).collect();
    let options = SamplerOptions {
        top_p: 0.99,
        top_k: 2500,
        ..SamplerOptions::default()
    };
    for options in [
        options,
        SamplerOptions {
            top_p: 1.0,
            top_k: 0,
            ..options
        },
        SamplerOptions::greedy(),
    ] {
        let mut sampler = Sampler::new(options, logits.len()).expect("the options are in range");
        let before = ALLOCATIONS.get();
        let drawn = (0..100).filter(|_| sampler.sample(&logits).is_ok()).count();
        assert_eq!((drawn, ALLOCATIONS.get()), (100, before));
    }
}
