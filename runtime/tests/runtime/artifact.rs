//! Artifacts: written, read, run, and refused when anything is wrong with them.

use crate::toy::{CODE, bytes, manifest, reference, weights};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rwkvc_abi::{Arg, Manifest, ProgramKind};
use rwkvc_runtime::artifact::ArtifactError;
use rwkvc_runtime::{Artifact, ArtifactWriter, Model, WorkspaceOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

fn write(path: &Path) {
    let mut writer = ArtifactWriter::create(path, manifest(), CODE).expect("a writer");
    for weight in weights() {
        let pieces = bytes(weight);
        let write = |out: &mut dyn Write| pieces.chunks(7).try_for_each(|piece| out.write_all(piece));
        writer.weight_with(write).expect("a weight");
    }
    writer.finish().expect("an artifact");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

#[test]
fn what_is_written_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("toy.rwkvc");
    std::fs::write(&path, "replaced").expect("a file");
    write(&path);
    assert_eq!(files(dir.path()), std::slice::from_ref(&path));
    let artifact = Artifact::open(&path).expect("a good artifact");
    assert_eq!(artifact.manifest(), &manifest());
    assert_eq!(artifact.code(), CODE);
    for (i, weight) in weights().iter().enumerate() {
        assert_eq!(artifact.weight(i), Some(&*bytes(weight)));
        assert_eq!(artifact.weight(i).map(|w| w.as_ptr() as usize % 64), Some(0));
    }
    assert_eq!(artifact.weight(3), None);
    artifact.verify().expect("good weights");

    let model = Model::from_artifact(artifact).expect("a model");
    let mut workspace = model
        .workspace(&WorkspaceOptions {
            threads: 2,
            pin: false,
        })
        .expect("a workspace");
    let mut state = model.new_state().expect("a state");
    let logits = model
        .prefill(&mut workspace, &mut state, &[4, 0, 3, 1])
        .expect("a prefill");
    let mut expected = crate::toy::INITIAL;
    let [.., last] = [4, 0, 3, 1].map(|t| reference(&mut expected, t));
    assert_eq!(logits, last);
}

#[test]
fn an_artifact_in_the_program_is_the_same_as_in_a_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("model.rwkvc");
    write(&path);
    let bytes = std::fs::read(&path).expect("the artifact");
    // Memory for good, from a multiple of 64 bytes on, as `include_bytes!` would have it with an aligned type.
    let room = Vec::leak(vec![0; bytes.len() + 64]);
    let start = room.as_ptr().align_offset(64);
    let place = &mut room[start..start + bytes.len()];
    place.copy_from_slice(&bytes);
    let place: &'static [u8] = place;
    let built_in = Artifact::from_static(place).expect("a good artifact");
    built_in.verify().expect("the weights");
    assert_eq!(
        built_in.manifest(),
        Artifact::open(&path).expect("a good artifact").manifest()
    );
    let model = Model::from_artifact(built_in).expect("a model");
    let mut workspace = model
        .workspace(&WorkspaceOptions::default())
        .expect("a workspace");
    let (mut state, mut expected) = (model.new_state().expect("a state"), crate::toy::INITIAL);
    let logits = model.step(&mut workspace, &mut state, 3).expect("a step");
    assert_eq!(logits, reference(&mut expected, 3));
    let error = Artifact::from_static(&place[..bytes.len() - 1]).expect_err("it is cut off");
    assert!(
        error.to_string().starts_with("the built-in artifact is damaged"),
        "{error}"
    );
}

#[test]
fn an_unfinished_artifact_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("toy.rwkvc");
    let mut writer = ArtifactWriter::create(&path, manifest(), CODE).expect("a writer");
    assert_eq!(files(dir.path()).len(), 1);
    let error = writer.weight(&[0; 79]).expect_err("too short").to_string();
    assert_eq!(error, "weight `table` has 79 bytes, expected 80");
    drop(writer);
    assert!(files(dir.path()).is_empty());

    let writer = ArtifactWriter::create(&path, manifest(), CODE).expect("a writer");
    assert_eq!(
        writer.finish().expect_err("no weights").to_string(),
        "0 weights were written, expected 3"
    );
    assert!(files(dir.path()).is_empty());

    let nowhere = dir.path().join("missing/toy.rwkvc");
    let error = ArtifactWriter::create(&nowhere, manifest(), CODE)
        .err()
        .expect("no directory")
        .to_string();
    assert!(error.starts_with(&format!("{}: ", nowhere.display())), "{error}");
}

#[test]
fn other_files_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("file");
    for content in [&b""[..], b"RWKVC", b"PK\x03\x04 a zip file", &[0; 5000]] {
        std::fs::write(&path, content).expect("a file");
        let error = Artifact::open(&path).expect_err("not an artifact").to_string();
        assert_eq!(error, format!("{} is not a compiled model", path.display()));
    }
    assert!(matches!(
        Artifact::open(dir.path()),
        Err(ArtifactError::NotAnArtifact { .. })
    ));
    assert!(matches!(
        Artifact::open(&dir.path().join("none")),
        Err(ArtifactError::Io { .. })
    ));

    write(&path);
    let mut content = std::fs::read(&path).expect("the artifact");
    content[8] = 200;
    std::fs::write(&path, &content).expect("a file");
    let error = Artifact::open(&path).expect_err("a later version").to_string();
    assert!(
        error.ends_with("has format version 200, this program reads version 1: compile the model again"),
        "{error}"
    );
}

#[test]
fn any_damage_is_noticed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("toy.rwkvc");
    write(&path);
    let good = std::fs::read(&path).expect("the artifact");
    let mut random = SmallRng::seed_from_u64(7);
    for round in 0..2000 {
        let mut bad = good.clone();
        match round % 3 {
            0 => bad.truncate(random.random_range(0..good.len())),
            1 => bad.extend(std::iter::repeat_n(0, random.random_range(1..5000))),
            _ => {
                // Half of the changes hit the header, where the structure is.
                let end = if round % 2 == 0 { 136 } else { good.len() };
                for _ in 0..random.random_range(1..4) {
                    bad[random.random_range(0..end)] ^= random.random_range(1..=255u8);
                }
            }
        }
        std::fs::write(&path, &bad).expect("a file");
        // Padding is not covered by a hash; everything else is.
        if let Ok(artifact) = Artifact::open(&path) {
            let same = artifact.manifest() == &manifest() && artifact.code() == CODE;
            assert!(
                same,
                "a change of the manifest or code was not noticed in round {round}"
            );
            if artifact.verify().is_ok() {
                let weights = weights().map(bytes);
                assert!(
                    (0..3).all(|i| artifact.weight(i) == Some(&*weights[i])),
                    "round {round}"
                );
            }
        }
    }
}

/// Changes one number or word of the JSON form.
fn mutate(value: &mut serde_json::Value, random: &mut SmallRng) {
    use serde_json::Value;
    match value {
        Value::Array(items) if !items.is_empty() => {
            let i = random.random_range(0..items.len());
            match random.random_range(0..12) {
                0 => drop(items.remove(i)),
                1 => items.push(items[i].clone()),
                _ => mutate(&mut items[i], random),
            }
        }
        Value::Object(fields) if !fields.is_empty() => {
            let i = random.random_range(0..fields.len());
            if let Some(field) = fields.values_mut().nth(i) {
                mutate(field, random);
            }
        }
        Value::Number(n) => {
            let n = n.as_u64().unwrap_or(0);
            let add = |by| n.wrapping_add(by);
            let other = [
                0,
                1,
                add(1),
                add(4),
                add(64),
                add(n),
                u64::MAX,
                i64::MAX as u64,
                u64::MAX / n.max(1),
                1 << 40,
            ];
            *value = other[random.random_range(0..other.len())].into();
        }
        Value::String(_) => {
            let words = [
                "", "f16", "i32", "mix", "read", "write", "decode", "score", "tokens", "logits", "x86_64",
            ];
            *value = words[random.random_range(0..words.len())].into();
        }
        other => *other = 3.into(),
    }
}

/// Programs take no more memory than any model needs, whatever the number of states.
#[test]
fn a_batch_of_too_many_states_is_refused() {
    let mut manifest = manifest();
    let mut batch = manifest.programs[2].clone();
    batch.kind = ProgramKind::Batch;
    batch.launches.clear();
    batch.max_tokens = 1 << 20;
    manifest.state[0].shape = vec![1 << 20];
    manifest.state[0].init = None;
    manifest.programs = vec![batch];
    let error = manifest.check().expect_err("4 TiB of states").to_string();
    assert_eq!(
        error,
        "program `batch` advances 4398046511104 bytes of states, more than any model"
    );
}

/// A manifest with a true hash may still say anything: what passes the check must not leave its buffers.
#[test]
fn a_manifest_cannot_lead_the_code_astray() {
    let good = serde_json::to_value(manifest()).expect("JSON");
    let expected: Vec<_> = manifest()
        .kernels
        .iter()
        .map(|k| (k.symbol.clone(), k.clone()))
        .collect();
    let mut random = SmallRng::seed_from_u64(11);
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut json = good.clone();
        for _ in 0..random.random_range(1..4) {
            mutate(&mut json, &mut random);
        }
        let Ok(manifest) = serde_json::from_value::<Manifest>(json) else {
            continue;
        };
        if manifest.check().is_err() || manifest.arena_bytes > 1 << 20 {
            continue;
        }
        // What a kernel touches is the compiler's word; only true words can be kept.
        let honest = manifest
            .kernels
            .iter()
            .all(|k| expected.iter().any(|(s, e)| s == &k.symbol && e == k));
        let small = manifest.programs.iter().all(|p| p.max_tokens < 1000) && manifest.state_len() < 1000;
        // The embedding kernel looks up as many rows as the fixture was compiled with.
        if !honest || !small || manifest.model.vocab > crate::toy::VOCAB {
            continue;
        }
        accepted += 1;
        let data = manifest
            .weights
            .iter()
            .map(|w| rwkvc_runtime::Buffer::zeroed(w.bytes).expect("memory").into());
        let Ok(model) = Model::from_parts(manifest.clone(), CODE, data.collect()) else {
            continue;
        };
        let mut workspace = model
            .workspace(&WorkspaceOptions {
                threads: 1,
                pin: false,
            })
            .expect("a workspace");
        let mut state = model.new_state().expect("a state");
        let _ = model.step(&mut workspace, &mut state, 0);
        let _ = model.prefill(&mut workspace, &mut state, &[0; 5]);
        let _ = model.score(&mut workspace, &mut state, &[0; 5], &mut |_, _| {});
        workspace.probes().for_each(drop);
    }
    assert!(accepted > 1000, "only {accepted} manifests were run");
}

#[test]
fn messages_name_the_place() {
    let check = |change: fn(&mut Manifest)| {
        let mut manifest = manifest();
        change(&mut manifest);
        manifest.check().expect_err("a bad manifest").to_string()
    };
    assert_eq!(
        check(|m| m.arena_bytes = 100),
        "program `prefill` has probe `x` outside of the scratch memory"
    );
    assert_eq!(
        check(|m| m.programs[0].launches[1].args[0] = Arg::State(4)),
        "program `decode`, launch 1 (`mix`) passes State(4) as buffer 0 of `mix`, which has 12 bytes, but 16 are needed"
    );
    assert_eq!(
        check(|m| m.programs[0].launches[0].args[2] = Arg::Weight(1)),
        "program `decode`, launch 0 (`embed`) passes Weight(1) as buffer 2 of `embed`, which it must not write to"
    );
    assert_eq!(
        check(|m| m.programs[0].launches[1].args[0] = Arg::Arena(68)),
        "program `decode`, launch 1 (`mix`) passes overlapping memory as buffers 0 and 1 of `mix`"
    );
    assert_eq!(
        check(|m| m.weights[0].bytes = 81),
        "weight `table` has 81 bytes, but f32 [5, 4] has 80"
    );
    assert_eq!(
        check(|m| m.state[0].init = Some(0)),
        "state `memory` starts as 80 bytes of f32, expected 4 f32 values"
    );
    assert_eq!(
        check(|m| m.model.vocab = 0),
        "the vocabulary is 0, expected 1 to 2147483647"
    );
    assert_eq!(
        check(|m| m.programs[0].max_tokens = 2),
        "program `decode` takes up to 2 tokens, expected 1 to 1"
    );
    assert_eq!(
        check(|m| m.programs[0].launches[0].args[0] = Arg::Sampler),
        "program `decode`, launch 0 (`embed`) passes Sampler as buffer 0 of `embed`, which only a sample program has"
    );
    assert_eq!(
        check(|m| m.programs[0].kind = ProgramKind::Sample),
        "program `sample` is for `x86_64`, but only GPUs choose tokens"
    );
}
