//! The runtime's sessions and batches of a GPU model, on a device of fibers that runs the code that becomes PTX.
#![cfg(feature = "llvm")]

use std::sync::Arc;

use rwkvc_backend_api::Target;
use rwkvc_passes::pipeline::Selection;
use rwkvc_runtime::State;
use rwkvc_runtime::gpu::{GpuModel, GpuSession, Mode};
use rwkvc_tests::fibers::{FiberDriver, on_fibers};
use rwkvc_tests::fixtures::{self, Golden};
use rwkvc_tests::numbers::difference;

/// Largest difference of a logit of the demo from its float64 golden.
const LOGITS: f64 = 2e-5;

/// The demo, and the device it is on.
fn demo(target: &str) -> Result<(GpuModel, Arc<FiberDriver>), String> {
    demo_with(target, |code| code)
}

/// The same with changed code.
fn demo_with(
    target: &str,
    change: impl Fn(String) -> String,
) -> Result<(GpuModel, Arc<FiberDriver>), String> {
    let target = Target::parse(target).expect("a target");
    on_fibers(
        &fixtures::open("demo.safetensors"),
        &target,
        Selection::all(),
        false,
        change,
    )
}

fn floats(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

fn state(session: &GpuSession) -> State {
    session.state().expect("the state is copied")
}

#[test]
fn sessions_give_the_golden_logits() {
    const TOKENS: usize = 6;
    let (model, device) = demo("cuda").expect("a model");
    let golden = Golden::open("demo-golden.safetensors");
    let tokens = &golden.tokens("tokens")[..TOKENS];
    let vocab = model.vocab();
    let expected = &golden.floats("logits_f64")[..TOKENS * vocab];
    let mut states = vec![];
    for mode in [Mode::Launches, Mode::Graph, Mode::Persistent] {
        let mut session = model.session(mode).expect("a session");
        for (token, expected) in tokens.iter().zip(expected.chunks(vocab)) {
            let found = difference(&floats(session.step(*token).expect("a step")), expected);
            assert!(found <= LOGITS, "{mode:?}: {found:e}");
        }
        states.push(state(&session));

        // All at once, after a step that is forgotten.
        session.reset().expect("a fresh state");
        assert!(session.logits().is_err(), "there are none of a fresh state");
        let prefilled = floats(session.prefill(tokens).expect("a prompt"));
        let found = difference(&prefilled, &expected[(TOKENS - 1) * vocab..]);
        assert!(found <= LOGITS, "{mode:?}, prefill: {found:e}");

        // A state goes elsewhere and on.
        let mut other = model.session(Mode::Launches).expect("a session");
        other.set_state(&states[0]).expect("a state of the model");
        assert_eq!(state(&other).values(), states[0].values());
    }
    for state in &states[1..] {
        assert_eq!(states[0].values(), state.values(), "all ways leave the same bits");
    }

    let mut session = model.session(Mode::Launches).expect("a session");
    let mut rows = vec![];
    let each: &mut dyn FnMut(usize, &[f32]) = &mut |i, logits| {
        assert_eq!(i * vocab, rows.len());
        rows.extend(floats(logits));
    };
    session.score(tokens, each).expect("all logits");
    assert!(difference(&rows, expected) <= LOGITS);
    let launches = model.manifest().programs[0].launches.len();
    let mut times = vec![0; launches];
    session.step_profiled(1, &mut times).expect("a step");
    assert!(
        session.step_profiled(1, &mut times[1..]).is_err(),
        "a place is missing"
    );

    drop((session, model));
    assert_eq!(device.handed_out(), 0, "everything is given back");
}

#[test]
fn members_of_a_batch_are_as_if_alone() {
    let (model, _device) = demo("cuda").expect("a model");
    let mut batch = model.batch(Mode::Launches).expect("a batch");
    let mut alone: Vec<GpuSession> = (0..3)
        .map(|i| {
            let mut session = model.session(Mode::Launches).expect("a session");
            session.prefill(&[i, 7, i + 1]).expect("a prompt");
            session
        })
        .collect();
    for session in &alone {
        batch.join(&state(session)).expect("there is room");
    }
    let compare = |batch: &mut rwkvc_runtime::gpu::GpuBatch, alone: &mut [GpuSession], tokens: &[u32]| {
        let rows = floats(batch.step(tokens).expect("a step"));
        for ((session, token), row) in alone.iter_mut().zip(tokens).zip(rows.chunks(model.vocab())) {
            let expected = floats(session.step(*token).expect("a step"));
            assert!(
                difference(row, &expected) <= 1e-5,
                "{}",
                difference(row, &expected)
            );
        }
    };
    compare(&mut batch, &mut alone, &[5, 60, 2]);
    // The first one leaves; the last one takes its place.
    let left = batch.leave(0).expect("a member");
    let gone = alone.swap_remove(0);
    assert!(difference(&floats(left.values()), &floats(state(&gone).values())) <= 1e-5);
    compare(&mut batch, &mut alone, &[3, 9]);
    batch.join(&left).expect("there is room");
    alone.push(gone);
    compare(&mut batch, &mut alone, &[1, 2, 3]);

    let error = batch.step(&[1]).expect_err("three members").to_string();
    assert_eq!(error, "1 tokens for a batch of 3: each member takes one");
    let error = batch.leave(3).expect_err("no such member").to_string();
    assert_eq!(error, "there is no member 3 in a batch of 3");
    assert!(batch.step(&[1, 2, 100_000]).is_err(), "no such token");
}

#[test]
fn what_cannot_be_is_refused() {
    let error = demo("cpu").err().expect("a processor's code");
    assert!(
        error.contains("cannot run on a GPU: compile the model for the target `cuda`"),
        "{error}"
    );
    let error = demo("cuda:sm_120").err().expect("a newer device's code");
    assert!(
        error.contains("the code needs sm_120, but the device is sm_"),
        "{error}"
    );
    let rename = |code: String| code.replace("@rwkvc_walk(", "@rwkvc_other(");
    let (model, _device) = demo_with("cuda", rename).expect("a model");
    assert!(!model.has_walk());
    let error = model
        .session(Mode::Persistent)
        .expect_err("no such kernel")
        .to_string();
    assert_eq!(
        error,
        "the program cannot run as one persistent launch: the code has no kernel `rwkvc_walk`"
    );
}
