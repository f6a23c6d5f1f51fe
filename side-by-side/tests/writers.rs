//! What is written of results that are made up.

use std::path::Path;
use std::process::Command;

use rwkvc_frontend::generate::{GenerateOptions, generate};
use rwkvc_side_by_side::report::Report;
use rwkvc_side_by_side::{chart, tables};

const REPORT: &str = include_str!("report.json");

fn report() -> Report {
    serde_json::from_str(REPORT).expect("a report")
}

#[test]
fn tables_for_a_terminal() {
    insta::assert_snapshot!("text", tables::text(&report()));
}

#[test]
fn tables_for_the_documentation() {
    insta::assert_snapshot!("markdown", tables::markdown(&report()));
}

#[test]
fn chart_for_the_documentation() {
    let svg = chart::svg(&report()).expect("a picture");
    insta::assert_snapshot!("chart", svg);
    // A picture of one number of threads has half of the panels.
    let mut less = report();
    less.roofs.truncate(1);
    let svg = chart::svg(&less).expect("a picture");
    assert!(svg.contains("Prefill of 512, tokens/s, 1 thread") && !svg.contains("2 threads"));
    less.roofs.clear();
    assert!(chart::svg(&less).is_err());
}

#[test]
fn results_are_shown_again() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shown-again");
    let show = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_side-by-side"));
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/report.json");
        let output = command.args(["--from", path]).args(more).output();
        let output = output.expect("the program runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let text = show(&["--out", folder.to_str().expect("a path in UTF-8")]);
    assert_eq!(text, tables::text(&report()));
    let written = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a file");
    assert_eq!(written("side-by-side.json"), REPORT);
    assert_eq!(show(&["--format", "json"]), REPORT);
    assert_eq!(written("side-by-side.md"), tables::markdown(&report()));
    assert_eq!(
        written("side-by-side.svg"),
        chart::svg(&report()).expect("a picture")
    );
}

#[test]
fn what_is_missing_is_named() {
    let fails = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_side-by-side"))
            .args(args)
            .output();
        let output = output.expect("the program runs");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    let error = fails(&["--from", "no-such.json"]);
    assert!(error.starts_with("error: reading `no-such.json`: "), "{error}");
    let error = fails(&["--from", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    assert!(error.contains("is no report of side-by-side"), "{error}");

    let here = env!("CARGO_BIN_EXE_side-by-side");
    let tools = ["--rwkvc", here, "--rwkvc-worker", here];
    let error = fails(&[&["m.pth", "--llama-worker", "no-such"], &tools[..]].concat());
    assert_eq!(
        error,
        "error: `no-such` is missing: `scripts/side-by-side` builds it, --llama-worker says where it is\n"
    );
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("heads-of-32.safetensors");
    let options = GenerateOptions {
        n_layers: 1,
        width: 64,
        head_size: 32,
        ffn: 64,
        vocab: 64,
        ..GenerateOptions::preset("0.1b").expect("a published size")
    };
    let mut file = std::fs::File::create(&path).expect("a file");
    generate(&options, &mut file, &mut |_, _| {}).expect("a checkpoint");
    let path = path.to_str().expect("a path in UTF-8");
    let error = fails(&[&[path, "--llama-worker", here], &tools[..]].concat());
    assert!(error.contains("has heads of 32 channels, expected 64"), "{error}");
}
