//! A state is a value: it can be saved, loaded, cloned and carried to another backend, in the middle of a text.

use std::sync::LazyLock;

use rwkvc_frontend::generate::GenerateOptions;
use rwkvc_runtime::state::StateError;
use rwkvc_runtime::{Model, State, WorkspaceOptions};
use rwkvc_tests::cases::{Case, PROGRAMS, cases};
use rwkvc_tests::fixtures::open;
use rwkvc_tests::numbers::difference;
use rwkvc_tests::random::{self, Random};
use rwkvc_tests::session::Session;

/// Largest difference of a logit between two ways to compute it, each as far from the exact one as the goldens allow.
const TWO_WAYS: f64 = 4e-5;

/// The demo model compiled in every way, from files of several formats.
static DEMO: LazyLock<Vec<(Case, Model)>> = LazyLock::new(|| {
    let files = ["demo.safetensors", "demo-fp16.pth", "demo-hf"];
    let load = |(case, file): (Case, &&str)| (case.clone(), case.load(&open(file), &PROGRAMS));
    cases().into_iter().zip(files.iter().cycle()).map(load).collect()
});

/// A text, of more than two chunks of the prefill program, and what follows.
fn text() -> (Vec<u32>, Vec<u32>) {
    let mut random = Random(5);
    (random.tokens(530, 257), random.tokens(50, 257))
}

#[test]
fn a_copy_goes_on_with_the_same_bits() {
    let (before, after) = text();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.state");
    for (case, code) in &*DEMO {
        let mut session = Session::new(code, 1);
        session.prefill(&before);
        session.state().save(&path).expect("a file");
        let middle = session.state();
        let expected = session.decode(&after);

        let mut copied = code.new_state().expect("memory");
        copied.copy_from(&middle).expect("a state of the same model");
        let copies = [
            ("clone", middle.clone()),
            ("fork", middle.fork().expect("memory")),
            ("copy", copied),
            ("file", State::load(code, &path).expect("the file")),
        ];
        for (how, state) in copies {
            assert_eq!(state.values(), middle.values(), "{case}: {how}");
            session.set_state(&state);
            assert_eq!(session.decode(&after), expected, "{case}: {how}");
        }
        assert_ne!(
            middle.values(),
            session.state().values(),
            "{case}: a copy goes its own way"
        );
    }
}

#[test]
fn prefill_then_decode_is_decode() {
    let (before, after) = text();
    for (case, code) in &*DEMO {
        let mut stepwise = Session::new(code, 1);
        stepwise.decode(&before);
        let expected = stepwise.decode(&after);
        for length in [1, 33, 256, 257, 530] {
            let mut session = Session::new(code, 1);
            session.prefill(&before[..length]);
            session.decode(&before[length..]);
            let most = difference(&session.decode(&after), &expected);
            assert!(
                most <= TWO_WAYS,
                "{case}: after a prefill of {length}, logits differ by {most:e}"
            );
        }
    }
}

#[test]
fn a_state_moves_between_backends_and_file_formats() {
    let (before, after) = text();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.state");
    let mut first = Session::new(&DEMO[0].1, 1);
    first.prefill(&before);
    first.state().save(&path).expect("a file");
    let expected = first.decode(&after);
    for (case, code) in &*DEMO {
        let mut session = Session::new(code, 1);
        let loaded = session.0.load_state(&path);
        loaded.unwrap_or_else(|error| panic!("{case}: {error}"));
        let most = difference(&session.decode(&after), &expected);
        assert!(most <= TWO_WAYS, "{case}: logits differ by {most:e}");
    }
}

#[test]
fn a_state_of_another_model_is_refused() {
    let options = GenerateOptions {
        n_layers: 1,
        width: 16,
        head_size: 8,
        ffn: 24,
        vocab: 20,
        ranks: [3; 4],
        ..GenerateOptions::preset("0.1b").expect("a preset")
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.state");
    let case: &Case = &cases()[0];
    let load = |seed| {
        let file = folder.path().join(format!("{seed}.safetensors"));
        std::fs::write(
            &file,
            random::file(&GenerateOptions {
                seed,
                ..options.clone()
            }),
        )
        .expect("a file");
        let model = rwkvc::load::open_checkpoint(&file).expect("a model");
        case.load(&model, &PROGRAMS)
    };
    // The second has the shapes of the first and other weights.
    let (one, same_shape) = (load(1), load(2));
    let other_shape = case.load(&open("tracker.pth"), &PROGRAMS);
    let mut state = one.new_state().expect("memory");
    state.save(&path).expect("a file");
    for other in [same_shape, other_shape] {
        let refused = State::load(&other, &path);
        assert!(
            matches!(refused, Err(StateError::OtherModel { .. })),
            "{refused:?}"
        );
        let mut workspace = other.workspace(&WorkspaceOptions::default()).expect("memory");
        let untouched = state.values().to_vec();
        assert!(other.step(&mut workspace, &mut state, 1).is_err());
        assert_eq!(state.values(), untouched);
        assert!(Session::new(&other, 1).0.set_state(&state).is_err());
    }
}
