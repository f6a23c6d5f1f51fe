//! Wrong usage, help, and readers that leave.

use std::io::Read;
use std::process::Stdio;

use crate::harness::*;

#[test]
fn wrong_usage_is_exit_code_2() {
    let cases: &[&[&str]] = &[
        &[],
        &["frobnicate"],
        &["compile", "model"],
        &["compile", "-o", "out"],
        &["compile", "model", "-o", "out", "--emit", "poetry"],
        &["run", "model"],
        &["run", "model", "more"],
        &["run", "model", "--prompt", "a", "--tokens", "1"],
        &["run", "model", "--tokens", "a"],
        &["run", "model", "--tokens", ""],
        &["run", "model", "--tokens", "-1"],
        &["run", "model", "--tokens", "1", "--threads", "0"],
        &["run", "model", "--tokens", "1", "--threads", "1025"],
        &["run", "model", "--tokens", "1", "--temperature", "hot"],
        &["run", "model", "--tokens", "1", "--format", "xml"],
        &["logits", "model"],
        &["logits", "model", "--tokens", "4294967296"],
        &["verify"],
        &["bench", "model", "--samples", "0"],
        &["inspect"],
        &["opt"],
        &["eval", "model"],
        &["tokenize"],
        &["tokenize", "--world"],
        &["tokenize", "--text", "a"],
        &["tokenize", "--world", "--text", "a", "--file", "b"],
        &["tokenize", "--world", "model", "--text", "a"],
        &["tokenize", "--world", "-", "--decode", "1"],
        &["convert", "model"],
        &["generate"],
        &["tune"],
        &["tune", "model", "--budget", "0"],
        &["tune", "model", "--budget", "soon"],
        &["tune", "model", "--budget", "99999999999999999m"],
        &["targets", "more"],
        &["passes", "--unknown"],
    ];
    for args in cases {
        let folder = Folder::new();
        let output = program()
            .args(*args)
            .current_dir(folder.path())
            .output()
            .expect("the program starts");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
        assert!(folder.names().is_empty(), "{args:?}");
    }
}

#[test]
fn help_and_version_are_results() {
    assert!(succeeds(["--version"]).starts_with("rwkvc "));
    let help = succeeds(["--help"]);
    for command in [
        "compile", "run", "logits", "verify", "bench", "inspect", "opt", "eval", "tokenize", "targets",
        "passes", "convert", "generate", "tune",
    ] {
        assert!(help.contains(command), "{command}");
        assert!(succeeds([command, "--help"]).contains("--format"), "{command}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let mut child = program()
        .args([
            "run",
            artifact(),
            "--prompt",
            "And",
            "--max-tokens",
            "1000000",
            "--threads",
            "1",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut [0]).expect("text");
    drop(stdout);
    let output = child.wait_with_output().expect("the program ends");
    assert_eq!(output.status.code(), Some(0));
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn nothing_beside_results_and_notes_is_printed() {
    // Progress is for terminals, of which there is none here.
    let folder = Folder::new();
    let output = program()
        .args(["eval", artifact(), "--text", &heldout(&folder), "--threads", "1"])
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(0));
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
