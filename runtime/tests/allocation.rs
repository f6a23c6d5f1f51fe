//! A step allocates nothing, whatever thread it runs on.
#![cfg(target_arch = "x86_64")]

#[path = "runtime/toy.rs"]
#[expect(dead_code, reason = "only the model is of use here")]
mod toy;

use rwkvc_abi::ProgramKind;
use rwkvc_runtime::{Model, WorkspaceOptions};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: does what the system's allocator does, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// The only test of this program: tests run at the same time would be counted, too.
#[test]
fn calls_allocate_nothing() {
    let mut manifest = toy::manifest();
    // Of kernels that know one state: all members are in the first one's.
    manifest
        .programs
        .push(toy::program(ProgramKind::Batch, toy::CHUNK));
    let model = Model::from_parts(manifest, toy::CODE, toy::data()).expect("the toy model loads");
    for threads in [1, 3] {
        let mut workspace = model
            .workspace(&WorkspaceOptions { threads, pin: false })
            .expect("a workspace");
        let (mut state, mut copy) = (
            model.new_state().expect("a state"),
            model.new_state().expect("a state"),
        );
        let mut times = [0; 3];
        let mut batch = model
            .batch(&WorkspaceOptions { threads, pin: false })
            .expect("a batch");
        for _ in 0..2 {
            batch.join(&state).expect("there is room");
        }
        // The workers' first allocations are their own.
        model.step(&mut workspace, &mut state, 0).expect("a step");
        batch.step(&[0, 0]).expect("a step");
        // What runs the tests has a thread of its own that may allocate: what a step allocates shows in every round.
        let rounds = (0..3).map(|_| {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            for token in (0..100).map(|i| i % 5) {
                model.step(&mut workspace, &mut state, token).expect("a step");
                model
                    .step_profiled(&mut workspace, &mut state, token, &mut times)
                    .expect("a step");
                model
                    .prefill(&mut workspace, &mut state, &[token; 7])
                    .expect("a prefill");
                model
                    .score(&mut workspace, &mut state, &[token; 4], &mut |_, _| {})
                    .expect("scores");
                batch.step(&[token; 2]).expect("a step");
                copy.copy_from(&state).expect("the same model");
            }
            ALLOCATIONS.load(Ordering::Relaxed) - before
        });
        assert_eq!(rounds.min(), Some(0), "{threads} threads");
    }
}
