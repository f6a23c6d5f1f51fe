//! Models of any shape: random small configurations with every part that a model may have, on every backend, fused and
//! unfused, by every program, against the f64 evaluator.

use rwkvc::backends;
use rwkvc_frontend::generate::GenerateOptions;
use rwkvc_runtime::State;
use rwkvc_tests::cases::{Case, PROGRAMS, cases};
use rwkvc_tests::fixtures::open_bytes;
use rwkvc_tests::numbers::{difference, largest};
use rwkvc_tests::random::{self, Extras, Random};
use rwkvc_tests::reference::{Expected, evaluate};
use rwkvc_tests::session::Session;

/// Largest difference of a logit or a part of the state, relative to the largest value of its tensor, or to 1.
const TOLERANCE: f64 = 3e-6;

/// The same for a model of a published depth and width.
const DEEP_TOLERANCE: f64 = 6e-6;

fn check(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    let found = difference(found, expected);
    let most = tolerance * largest(expected).max(1.0);
    assert!(
        found <= most,
        "{what} differs by {found:e}, at most {most:e} is expected"
    );
}

fn check_state(what: &str, state: &State, expected: &Expected, tolerance: f64) {
    assert_eq!(state.slots().len(), expected.state.len(), "{what}: as many parts");
    for (name, values) in &expected.state {
        let found = state
            .slot(name)
            .unwrap_or_else(|| panic!("{what}: no `{name}` in the state"));
        check(&format!("{what}: {name}"), found, values, tolerance);
    }
}

/// By every program.
fn check_case(what: &str, code: &rwkvc_runtime::Model, tokens: &[u32], expected: &Expected, tolerance: f64) {
    let mut decode = Session::new(code, 1);
    check(
        &format!("{what}: decode"),
        &decode.decode(tokens),
        &expected.logits,
        tolerance,
    );
    check_state(&format!("{what}: decode"), &decode.state(), expected, tolerance);
    let mut score = Session::new(code, 2);
    check(
        &format!("{what}: score"),
        &score.score(tokens),
        &expected.logits,
        tolerance,
    );
    check_state(&format!("{what}: score"), &score.state(), expected, tolerance);
    let mut prefill = Session::new(code, 3);
    let last = &expected.logits[(tokens.len() - 1) * code.vocab()..];
    check(
        &format!("{what}: prefill"),
        &prefill.prefill(tokens),
        last,
        tolerance,
    );
    check_state(&format!("{what}: prefill"), &prefill.state(), expected, tolerance);
}

#[test]
fn random_models_on_every_backend() {
    let mut random = Random(7);
    for seed in 0..10 {
        let generated = random::sizes(&mut random, 3, seed);
        let extras = Extras::draw(&mut random);
        let model = open_bytes(&random::file_with(&generated, extras, &mut random));
        let length = random.range(1, 37);
        let tokens = random.tokens(length, generated.vocab);
        let expected = evaluate(&model, &tokens);
        for case in cases() {
            let what = format!("{generated:?}, {extras:?}, {case}");
            check_case(
                &what,
                &case.load(&model, &PROGRAMS),
                &tokens,
                &expected,
                TOLERANCE,
            );
        }
    }
}

#[test]
fn a_published_size_in_bf16() {
    // The shape of the 0.1B model but for its vocabulary, which is all table look-up and one product.
    let preset = GenerateOptions::preset("0.1b").expect("a preset");
    let model = open_bytes(&random::file(&GenerateOptions {
        vocab: 2048,
        ..preset
    }));
    let tokens = [1, 77, 2047, 500];
    let expected = evaluate(&model, &tokens);
    let case = Case::fused(backends::all()[0]);
    check_case(
        &case.to_string(),
        &case.load(&model, &PROGRAMS),
        &tokens,
        &expected,
        DEEP_TOLERANCE,
    );
}

/// Few and many zeros in the channel mix, whose matrix then has more than one panel.
#[test]
fn activations_that_are_mostly_zero() {
    for zero_share in [0.95, 0.7, 0.1] {
        let model = open_bytes(&random::file(&GenerateOptions {
            vocab: 64,
            n_layers: 2,
            width: 576,
            ffn: 203,
            zero_share: Some(zero_share),
            ..GenerateOptions::preset("0.1b").expect("a preset")
        }));
        let tokens = [1, 63, 5, 20, 41];
        let expected = evaluate(&model, &tokens);
        for case in cases() {
            let what = format!("{zero_share}, {case}");
            let code = case.load(&model, &PROGRAMS);
            check_case(&what, &code, &tokens, &expected, TOLERANCE);
        }
    }
}
