//! The runtime's sessions and batches of a GPU model, on a device of fibers that runs the code that becomes PTX.
#![cfg(feature = "llvm")]

use std::sync::Arc;

use rwkvc_abi::ProgramKind;
use rwkvc_abi::SampleOptions;
use rwkvc_backend_api::Target;
use rwkvc_passes::pipeline::Selection;
use rwkvc_runtime::batch::Prompt;
use rwkvc_runtime::exec::Device;
use rwkvc_runtime::generate::{GenerateOptions, Generator};
use rwkvc_runtime::gpu::{GpuModel, GpuSession, Mode};
use rwkvc_runtime::sampler::SamplerOptions;
use rwkvc_runtime::{Batch, State};
use rwkvc_tests::fibers::{FiberDriver, on_fibers};
use rwkvc_tests::fixtures::{self, Golden};
use rwkvc_tests::numbers::difference;
use rwkvc_tests::session::Session;

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
fn prompts_join_a_batch() {
    const PROMPT: [u32; 3] = [0, 66, 111];
    let (model, _device) = demo("cuda").expect("a model");
    let mut alone = model.session(Mode::Launches).expect("a session");
    let after_prompt = alone.prefill(&PROMPT).expect("a prompt").to_vec();

    let mut batch = Batch::on(model.batch(Mode::Launches).expect("a batch"));
    batch
        .join(&model.new_state().expect("a state"))
        .expect("there is room");
    batch.step(&[84]).expect("a step");
    let mut prompt = Prompt::new(model.new_state().expect("a state"), PROMPT.to_vec());
    let joined = batch.admit(&mut prompt).expect("a chunk").expect("the only one");
    assert_eq!((joined.member, joined.logits), (1, after_prompt));
    for member in 0..2 {
        let options = SamplerOptions::greedy();
        assert!(batch.sample_by(member, &options).expect("a member"));
        assert!(batch.sample_by(member + 2, &options).is_err(), "no such member");
    }
    batch.step(&[5, 60]).expect("a step");
    assert_eq!(batch.choose(2).expect("tokens").len(), 4);
    // The second one has read its own token, and the first of those that were chosen.
    alone.step(60).expect("a step");
    let chosen = alone.generate(1).expect("a token")[0];
    alone.step(chosen).expect("a step");
    let left = batch.leave(1).expect("a member");
    assert!(difference(&floats(left.values()), &floats(state(&alone).values())) <= 1e-5);
}

/// The most probable token of each row, the first of equals.
fn likeliest(logits: &[f32], vocab: usize) -> Vec<u32> {
    let row = |row: &[f32]| {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter().position(|&x| x == most).expect("one of them") as u32
    };
    logits.chunks(vocab).map(row).collect()
}

#[test]
fn tokens_are_chosen_on_the_device() {
    const PROMPT: [u32; 3] = [0, 66, 111];
    let (model, device) = demo("cuda").expect("a model");
    let vocab = model.vocab();
    let step = model.manifest().programs[0].launches.len();
    let sampler = model.manifest().program(ProgramKind::Sample);
    let choice = sampler.expect("it chooses").launches.len();

    // What a CPU writes.
    let code = rwkvc::load::load(
        &fixtures::open("demo.safetensors"),
        &mut rwkvc::compile::Options {
            backend: rwkvc::backends::all()[0],
            target: Target::host(),
            passes: Selection::all(),
            tuning: None,
            fuel: None,
            programs: vec![ProgramKind::Decode, ProgramKind::Prefill],
            probes: false,
            after_pass: &mut |_, _| {},
        },
    );
    let code = code.expect("code");
    let mut on_cpu = Session::new(&code, 1);
    let mut expected = likeliest(&on_cpu.prefill(&PROMPT), vocab);
    while expected.len() < 5 {
        let logits = on_cpu.decode(&expected[expected.len() - 1..]);
        expected.extend(likeliest(&logits, vocab));
    }

    let after = floats(&on_cpu.decode(&expected[4..]));

    let drawn_by = SampleOptions {
        temperature: 0.9,
        top_p: 0.95,
        seed: 7,
    };
    let mut drawn = vec![];
    for mode in [Mode::Launches, Mode::Graph, Mode::Persistent] {
        let mut session = model.session(mode).expect("a session");
        assert!(session.generate(1).is_err(), "there are no logits yet");
        session.feed(&PROMPT).expect("a prompt");
        let launches = device.launches();
        let mut tokens = session.generate(2).expect("two tokens");
        assert_eq!(
            device.launches() - launches,
            2 * choice + if mode == Mode::Persistent { 1 } else { step }
        );
        tokens.extend(session.generate(3).expect("three more"));
        assert_eq!(tokens, expected, "{mode:?}");
        // The state has not read the last one; a token that is given comes in its place.
        let last = floats(session.step(expected[4]).expect("a step"));
        assert!(difference(&last, &after) <= 1e-4, "{mode:?}");
        assert!(session.generate(0).expect("nothing").is_empty());

        session.reset().expect("a fresh state");
        session.feed(&PROMPT).expect("a prompt");
        session.set_sampling(drawn_by);
        drawn.push(session.generate(5).expect("draws"));
    }
    assert_ne!(drawn[0], expected, "draws are draws");
    assert!(
        drawn.iter().all(|d| *d == drawn[0]),
        "all modes draw the same: {drawn:?}"
    );

    // As `rwkvc run` does it, whether or not the state must be exact after each token.
    for exact in [false, true] {
        let mut session = rwkvc_runtime::Session::on(model.session(Mode::Graph).expect("a session"));
        let options = GenerateOptions {
            sampling: SamplerOptions::greedy(),
            max_tokens: 5,
            stops: vec![],
            exact_state: exact,
        };
        let launched = device.launches();
        let generator = Generator::new(&mut session, None, &PROMPT, options).expect("a prompt");
        let found: Vec<u32> = generator
            .filter_map(|piece| piece.expect("a piece").token)
            .collect();
        assert_eq!(found, expected);
        assert!(device.launches() > launched, "the device chooses");
        let last = floats(session.prefill(&[1]).expect("a step"));
        let mut read = expected.clone();
        read.push(1);
        let read = {
            let mut cpu = Session::new(&code, 1);
            cpu.prefill(&PROMPT);
            floats(&cpu.decode(&read)[5 * vocab..])
        };
        assert!(difference(&last, &read) <= 1e-4, "exact: {exact}");
        let penalties = SamplerOptions {
            presence_penalty: 0.1,
            ..SamplerOptions::greedy()
        };
        let mut session = model.session(Mode::Graph).expect("a session");
        assert!(
            !Device::sample_by(&mut session, &penalties),
            "penalties need this machine"
        );
    }

    // After the logits of many tokens nothing is chosen.
    let mut session = model.session(Mode::Graph).expect("a session");
    session.score(&PROMPT, &mut |_, _| {}).expect("logits");
    assert!(session.generate(1).is_err());
}

#[test]
fn members_of_a_batch_choose_as_if_alone() {
    let (model, _device) = demo("cuda").expect("a model");
    let drawn_by = SampleOptions {
        temperature: 1.0,
        top_p: 0.9,
        seed: 3,
    };
    let alone = |first: u32, sampling: SampleOptions| {
        let mut session = model.session(Mode::Launches).expect("a session");
        session.set_sampling(sampling);
        session.advance(first).expect("a step");
        session.generate(3).expect("tokens")
    };
    let expected = [alone(84, drawn_by), alone(66, SampleOptions::GREEDY)];
    for mode in [Mode::Launches, Mode::Graph, Mode::Persistent] {
        let mut batch = model.batch(mode).expect("a batch");
        let state = model.new_state().expect("a state");
        for _ in 0..3 {
            batch.join(&state).expect("there is room");
        }
        // The last one takes the place of the first one, with the way it chooses.
        batch.set_sampling(2, drawn_by).expect("a member");
        batch.leave(0).expect("a member");
        assert!(batch.set_sampling(2, drawn_by).is_err(), "it has moved");
        assert!(batch.generate(1).is_err(), "there are no logits yet");
        batch.advance(&[84, 66]).expect("a step");
        let tokens = batch.generate(3).expect("tokens");
        let of = |member: usize| tokens.iter().copied().skip(member).step_by(2).collect::<Vec<_>>();
        assert_eq!([of(0), of(1)], expected, "{mode:?}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let error = demo("cpu").err().expect("a CPU's code");
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
        "the program cannot run as one persistent megakernel: the code has no kernel `rwkvc_walk`"
    );
}
