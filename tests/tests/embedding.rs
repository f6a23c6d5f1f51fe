//! A program of the runtime alone: text in, text out.

use std::process::Command;

use rwkvc::backends;
use rwkvc_abi::ProgramKind;
use rwkvc_tests::cases::Case;
use rwkvc_tests::fixtures::open;

#[test]
fn the_example_of_the_runtime_writes_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("demo.rwkvc");
    let programs = [ProgramKind::Decode, ProgramKind::Prefill];
    Case::fused(backends::all()[0]).write_artifact(&open("demo.safetensors"), &programs, &path);
    let story = [
        "run",
        "--quiet",
        "--locked",
        "--package",
        "rwkvc-runtime",
        "--example",
        "story",
        "--",
    ];
    let output = Command::new(env!("CARGO"))
        .args(story)
        .arg(&path)
        .arg("And it came to pass")
        .output()
        .expect("cargo runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // The sampler's default seed and options: always the same text.
    assert!(text.len() > 100 && text.split_whitespace().count() > 20, "{text}");
}
