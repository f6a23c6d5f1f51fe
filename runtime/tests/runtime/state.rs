//! States: saved, loaded, forked, and refused when they are of another model or damaged.

use crate::toy::{CODE, data, manifest, model};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rwkvc_runtime::state::StateError;
use rwkvc_runtime::{Model, State, WorkspaceOptions};

/// A state that has seen some tokens.
fn used(model: &Model) -> State {
    let mut workspace = model
        .workspace(&WorkspaceOptions {
            threads: 1,
            pin: false,
        })
        .expect("a workspace");
    let mut state = model.new_state().expect("a state");
    model
        .prefill(&mut workspace, &mut state, &[3, 1, 4, 1])
        .expect("a prefill");
    state
}

#[test]
fn saved_states_come_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("chat.state");
    let state = used(&model());
    state.save(&path).expect("saved");
    let again = State::load(&model(), &path).expect("loaded");
    assert_eq!(again.values(), state.values());
    assert_eq!(again.slot("memory"), Some(state.values()));
    assert_eq!(again.slot("nothing"), None);
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 1);
    assert!(matches!(
        State::load(&model(), dir.path()),
        Err(StateError::Io { .. })
    ));
}

#[test]
fn clones_go_their_own_way() {
    let model = model();
    let state = used(&model);
    let mut clone = state.clone();
    clone.values_mut()[0] = 99.0;
    assert_ne!(clone.values(), state.values());
    clone.copy_from(&state).expect("the same model");
    assert_eq!(clone.values(), state.values());
}

#[test]
fn states_of_another_model_are_refused() {
    let state = used(&model());
    let bytes = state.to_bytes().expect("bytes");

    let mut other = manifest();
    other.model.name = "other.pth".into();
    other.model.fingerprint = "ffff456789abcdef".into();
    let other = Model::from_parts(other, CODE, data()).expect("a model");
    let expected = "the state belongs to model `toy` (0123456789ab), not to `other.pth` (ffff456789ab)";
    assert_eq!(
        State::from_bytes(&other, &bytes)
            .expect_err("another model")
            .to_string(),
        expected
    );
    let mut workspace = other
        .workspace(&WorkspaceOptions {
            threads: 1,
            pin: false,
        })
        .expect("a workspace");
    let error = other
        .step(&mut workspace, &mut state.clone(), 0)
        .expect_err("another model")
        .to_string();
    assert_eq!(error, expected);
    assert!(other.new_state().expect("a state").copy_from(&state).is_err());

    let mut renamed = manifest();
    renamed.state[0].name = "recollection".into();
    let renamed = Model::from_parts(renamed, CODE, data()).expect("a model");
    assert_eq!(
        State::from_bytes(&renamed, &bytes)
            .expect_err("other parts")
            .to_string(),
        "the state of model `toy` has other parts than this program's: `memory` [4] where `recollection` [4] is expected"
    );
}

#[test]
fn any_damage_is_noticed() {
    let model = model();
    let good = used(&model).to_bytes().expect("bytes");
    assert!(matches!(
        State::from_bytes(&model, b"no state"),
        Err(StateError::NotAState)
    ));
    for len in 0..good.len() {
        assert!(State::from_bytes(&model, &good[..len]).is_err(), "{len} bytes");
    }
    let mut random = SmallRng::seed_from_u64(3);
    for _ in 0..20_000 {
        let mut bad = good.clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..bad.len());
            bad[at] = random.random();
        }
        assert!(bad == good || State::from_bytes(&model, &bad).is_err());
    }
}
