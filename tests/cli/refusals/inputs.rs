//! Tokens, vocabularies, states, golden files and texts that do not fit.

use crate::harness::*;

#[test]
fn tokens_outside_the_vocabulary_are_refused() {
    let names = ["token 320", "vocabulary of 320"];
    fails(["run", artifact(), "--tokens", "1,320"], &names);
    fails(["logits", artifact(), "--tokens", "320"], &names);
    fails(["logits", artifact(), "--tokens", "320", "--all"], &names);
    fails(["logits", artifact(), "--tokens", "320", "--step"], &names);
    fails(
        ["logits", demo(), "--tokens", "320", "--backend", "evaluator"],
        &names,
    );
    fails(["tokenize", demo(), "--decode", "257"], &["token 257"]);
    fails(["tokenize", "--world", "--decode", "70000"], &["token 70000"]);
}

#[test]
fn vocabularies_that_do_not_fit_are_refused() {
    let folder = Folder::new();
    let model = folder.join("small.safetensors");
    succeeds([
        "generate", "-o", &model, "--layers", "1", "--dim", "64", "--vocab", "100",
    ]);
    let text = folder.file("text", "abc");
    let names = ["100 vocabulary rows"];
    folder.refuses(["run", &model, "--prompt", "a", "--backend", "cranelift"], &names);
    folder.refuses(
        ["eval", &model, "--text", &text, "--backend", "cranelift"],
        &names,
    );
    folder.refuses(["tokenize", &model, "--text", "a"], &names);
    // Tokens need no vocabulary.
    succeeds([
        "run",
        &model,
        "--tokens",
        "1",
        "--max-tokens",
        "1",
        "--backend",
        "cranelift",
    ]);

    for (name, content) in [
        ("empty", ""),
        ("words", "a b c"),
        ("length", "1 'a' 2"),
        ("twice", "1 'a' 1\n1 'b' 1"),
    ] {
        let vocab = folder.file(name, content);
        folder.refuses(["tokenize", "--vocab", &vocab, "--text", "a"], &[&vocab]);
        folder.refuses(["run", artifact(), "--vocab", &vocab, "--prompt", "a"], &[&vocab]);
    }
    folder.refuses(["tokenize", "--vocab", "missing", "--text", "a"], &["missing"]);
}

#[test]
fn states_that_do_not_fit_are_refused() {
    let folder = Folder::new();
    let state = folder.join("demo.state");
    let run = [
        "run",
        artifact(),
        "--tokens",
        "1",
        "--max-tokens",
        "1",
        "--threads",
        "1",
    ];
    succeeds([&run[..], &["--state-out", &state]].concat());
    let whole = std::fs::read(&state).expect("the state");

    let tiny = [
        "run",
        tiny(),
        "--tokens",
        "1",
        "--backend",
        "cranelift",
        "--state-in",
        &state,
    ];
    folder.refuses(tiny, &["demo.state", "demo.safetensors", "tiny.safetensors"]);
    let reference = [
        "run",
        demo(),
        "--tokens",
        "1",
        "--backend",
        "evaluator",
        "--state-in",
        &state,
    ];
    folder.refuses(reference, &["evaluator"]);

    let refused = |name: &str, bytes: &[u8]| {
        let bad = folder.file(name, bytes);
        folder.refuses([&run[..], &["--state-in", &bad]].concat(), &[&bad]);
    };
    refused("empty", b"");
    refused("random", &whole[100..1000]);
    for length in [4, 8, 20, 200, 1000, whole.len() - 1] {
        refused("cut", &whole[..length]);
    }
    refused("long", &[&whole[..], &[0]].concat());
    for at in [0, 9, 30, whole.len() / 2] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        refused("changed", &changed);
    }
}

#[test]
fn golden_files_that_do_not_fit_are_refused() {
    fails(["verify", tiny(), "--length", "0"], &["--length"]);
    let damaged = Folder::new();
    let damaged = (damaged.join("damaged"), damaged);
    let whole = std::fs::read(golden()).expect("the golden file");
    std::fs::write(&damaged.0, &whole[..whole.len() - 8]).expect("the file is written");
    for (file, expected) in [
        (demo(), "`tokens`"),
        (golden(), "[256, 320], expected [256, 300]"),
        (&damaged.0, "not a sound safetensors file"),
        ("missing", "missing"),
    ] {
        fails(["verify", tiny(), "--golden", file], &[expected]);
    }
    let too_long = ["verify", demo(), "--golden", golden(), "--length", "257"];
    fails(too_long, &["--length 257", "256 tokens"]);
}

#[test]
fn inputs_that_are_not_there_are_named() {
    fails(
        ["run", artifact(), "--prompt-file", "missing.txt"],
        &["missing.txt"],
    );
    fails(["run", artifact(), "--prompt-file", "."], &["`.`"]);
    fails(
        ["run", artifact(), "--tokens", "1", "--state-in", "missing.state"],
        &["missing.state"],
    );
    fails(["eval", artifact(), "--text", "missing.txt"], &["missing.txt"]);
    fails(["tokenize", "--world", "--file", "missing.txt"], &["missing.txt"]);
    fails(["opt", "missing.graph"], &["missing.graph"]);
    let folder = Folder::new();
    let empty = folder.file("empty.txt", "");
    folder.refuses(
        ["eval", artifact(), "--text", &empty],
        &["empty.txt", "nothing to predict"],
    );
}

#[test]
fn an_error_says_everything_once() {
    let output = program()
        .args(["inspect", "missing.pth"])
        .output()
        .expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr.matches("missing.pth").count(), 1, "{stderr}");
    let output = program()
        .args(["verify", "missing.pth"])
        .output()
        .expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr.matches("(os error").count(), 1, "{stderr}");
}
