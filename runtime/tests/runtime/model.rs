//! A model made of its parts runs: steps, chunks, scores, probes, states and errors.

use crate::toy::{CODE, INITIAL, VOCAB, data, manifest, model, reference};
use rwkvc_abi::ProgramKind;
use rwkvc_runtime::model::{LoadError, StepError};
use rwkvc_runtime::object::Code;
use rwkvc_runtime::{Buffer, Model, Session, WorkspaceOptions};

const TOKENS: [u32; 8] = [0, 3, 1, 4, 2, 2, 0, 1];

fn threads(threads: usize) -> WorkspaceOptions {
    WorkspaceOptions { threads, pin: false }
}

#[test]
fn steps_give_the_reference_logits() {
    let model = model();
    for n in [1, 2, 3, 7] {
        let mut workspace = model.workspace(&threads(n)).expect("a workspace");
        let (mut state, mut expected) = (model.new_state().expect("a state"), INITIAL);
        assert_eq!(state.values(), INITIAL);
        for token in TOKENS {
            let logits = reference(&mut expected, token);
            assert_eq!(
                model.step(&mut workspace, &mut state, token).expect("a step"),
                logits
            );
            assert_eq!(state.values(), expected, "{n} threads");
        }
    }
}

#[test]
fn prefill_is_many_steps() {
    let model = model();
    let mut workspace = model.workspace(&threads(2)).expect("a workspace");
    for len in 1..=TOKENS.len() {
        let (mut state, mut expected) = (model.new_state().expect("a state"), INITIAL);
        let logits = TOKENS[..len]
            .iter()
            .fold(vec![], |_, t| reference(&mut expected, *t));
        let found = model
            .prefill(&mut workspace, &mut state, &TOKENS[..len])
            .expect("a prefill");
        assert_eq!(found, logits, "{len} tokens");
        assert_eq!(state.values(), expected);
    }
}

#[test]
fn score_gives_the_logits_of_every_position() {
    let model = model();
    let mut workspace = model.workspace(&threads(1)).expect("a workspace");
    let (mut state, mut expected) = (model.new_state().expect("a state"), INITIAL);
    let mut next = 0;
    let mut each = |position: usize, logits: &[f32]| {
        assert_eq!(position, next);
        assert_eq!(logits, reference(&mut expected, TOKENS[position]));
        next += 1;
    };
    model
        .score(&mut workspace, &mut state, &TOKENS, &mut each)
        .expect("scores");
    assert_eq!(next, TOKENS.len());
    assert_eq!(state.values(), expected);
}

#[test]
fn probes_show_the_last_chunk() {
    let model = model();
    let mut workspace = model.workspace(&threads(1)).expect("a workspace");
    assert_eq!(workspace.probes().count(), 0);
    let (mut state, mut expected) = (model.new_state().expect("a state"), INITIAL);
    TOKENS[..4]
        .iter()
        .for_each(|t| drop(reference(&mut expected, *t)));
    model
        .prefill(&mut workspace, &mut state, &TOKENS[..4])
        .expect("a prefill");
    let probes: Vec<_> = workspace.probes().collect();
    assert_eq!(probes, [("x", &expected[..])]);
}

#[test]
fn profiles_add_up() {
    let model = model();
    let mut workspace = model.workspace(&threads(2)).expect("a workspace");
    let mut state = model.new_state().expect("a state");
    let mut times = [0; 3];
    model
        .step_profiled(&mut workspace, &mut state, 1, &mut times)
        .expect("a step");
    model
        .prefill_profiled(&mut workspace, &mut state, &TOKENS, &mut times)
        .expect("a prefill");
    assert!(times.iter().sum::<u64>() > 0);
    let error = model
        .step_profiled(&mut workspace, &mut state, 1, &mut times[..2])
        .expect_err("2 places");
    assert_eq!(
        error.to_string(),
        "places for the times of 2 launches, expected 3"
    );
}

#[test]
fn bad_calls_change_nothing() {
    let model = model();
    let mut workspace = model.workspace(&threads(1)).expect("a workspace");
    let mut state = model.new_state().expect("a state");
    let error = model
        .prefill(&mut workspace, &mut state, &[0, 1, 2, 3, 5])
        .expect_err("a bad token");
    assert_eq!(
        error.to_string(),
        "token 5 at position 4 is not in the vocabulary of 5"
    );
    let error = model
        .step(&mut workspace, &mut state, u32::MAX)
        .expect_err("a bad token");
    assert!(matches!(
        error,
        StepError::Token {
            token: u32::MAX,
            position: 0,
            vocab: VOCAB
        }
    ));
    assert!(matches!(
        model.prefill(&mut workspace, &mut state, &[]),
        Err(StepError::NoTokens)
    ));
    assert_eq!(state.values(), INITIAL);

    let other = crate::toy::model();
    assert!(matches!(
        other.step(&mut workspace, &mut state, 0),
        Err(StepError::Workspace)
    ));
    // A state of the same model, loaded a second time, is as good.
    let mut twin = other.new_state().expect("a state");
    model.step(&mut workspace, &mut twin, 0).expect("a step");
}

#[test]
fn a_missing_program_is_an_error() {
    let mut only_decode = manifest();
    only_decode.programs.truncate(1);
    let model = Model::from_parts(only_decode, CODE, data()).expect("a model");
    let mut workspace = model.workspace(&threads(1)).expect("a workspace");
    let mut state = model.new_state().expect("a state");
    assert!(!model.has(ProgramKind::Prefill));
    let error = model
        .prefill(&mut workspace, &mut state, &[1])
        .expect_err("no program")
        .to_string();
    assert_eq!(error, "the model was compiled without a prefill program");
    let error = model
        .score(&mut workspace, &mut state, &[1], &mut |_, _| {})
        .expect_err("no program");
    assert!(matches!(error, StepError::Program(ProgramKind::Score)));
}

#[test]
fn parts_must_fit_together() {
    let load = |manifest, data| Model::from_parts(manifest, CODE, data).expect_err("parts that do not fit");
    let mut renamed = manifest();
    renamed.kernels[1].symbol = "mixer".into();
    assert_eq!(
        load(renamed, data()).to_string(),
        "the code has no kernel `mixer`"
    );
    let mut short = data();
    short.pop();
    assert_eq!(load(manifest(), short).to_string(), "2 weights, expected 3");
    let mut other = data();
    other[1] = Buffer::zeroed(12).expect("memory").into();
    assert_eq!(
        load(manifest(), other).to_string(),
        "weight `head` has 12 bytes, expected 80"
    );
    let mut elsewhere = manifest();
    elsewhere.target.arch = "aarch64".into();
    assert!(matches!(load(elsewhere, data()), LoadError::Machine(_)));
}

#[test]
fn a_workspace_moves_to_another_thread() {
    let model = model();
    let mut workspace = model.workspace(&threads(3)).expect("a workspace");
    let mut state = model.new_state().expect("a state");
    std::thread::scope(|scope| {
        let step = scope.spawn(|| {
            model
                .step(&mut workspace, &mut state, 3)
                .map(|logits| logits.to_vec())
        });
        let logits = step.join().expect("no panic").expect("a step");
        assert_eq!(logits, reference(&mut INITIAL.clone(), 3));
    });
}

#[test]
fn linked_kernels_are_those_that_are_loaded() {
    let code = Code::load(CODE).expect("the code");
    let manifest = manifest();
    let symbols: Vec<String> = manifest.kernels.iter().map(|k| k.symbol.clone()).collect();
    let kernels: Vec<_> = symbols
        .iter()
        .map(|symbol| (symbol.as_str(), code.kernel(symbol).expect("a kernel")))
        .collect();
    // SAFETY: the functions are those of the object that the manifest was written for, and `code` outlives the models.
    let link = |kernels: &[_]| unsafe { Model::from_linked(manifest.clone(), kernels, data()) };
    let linked = link(&kernels).expect("a model");
    let mut session = Session::new(&linked, &threads(2)).expect("a session");
    let mut expected = INITIAL;
    for token in TOKENS {
        let logits = reference(&mut expected, token);
        assert_eq!(session.step(token).expect("a step"), logits);
    }
    let error = link(&kernels[1..]).expect_err("a kernel is missing");
    assert!(matches!(error, LoadError::Kernel { symbol } if symbol == symbols[0]));
}
