//! Ctrl-C leaves no file behind.
#![cfg(unix)]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::*;

/// Signals a program as soon as it has begun to write into the folder.
fn interrupt(folder: &Folder, signal: &str, mut child: Child) {
    let start = Instant::now();
    while folder.names().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(30), "nothing was written");
        assert!(
            child.try_wait().expect("the program").is_none(),
            "ended before it wrote"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    let pid = child.id().to_string();
    let sent = Command::new("kill").args([signal, &pid]).status();
    assert!(sent.expect("kill starts").success());
    let output = child.wait_with_output().expect("the program ends");
    assert_eq!(
        output.status.code(),
        Some(130),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.stdout.is_empty());
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

fn start(args: &[&str]) -> Child {
    let mut command = program();
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

#[test]
fn an_interrupted_generate_leaves_nothing() {
    for signal in ["-INT", "-TERM"] {
        let folder = Folder::new();
        let child = start(&["generate", "--preset", "0.1b", "-o", &folder.join("out")]);
        interrupt(&folder, signal, child);
    }
}

#[test]
fn an_interrupted_compile_leaves_nothing() {
    let models = Folder::new();
    let model = models.join("wide.safetensors");
    widen(&model, 2_000_000);
    let folder = Folder::new();
    let args = [
        "compile",
        &model,
        "-o",
        &folder.join("out"),
        "--backend",
        "cranelift",
        "--no-pass",
        "fold-ln0",
    ];
    interrupt(&folder, "-INT", start(&args));
}

/// Writes a checkpoint with so many words, all weights zero: a file of holes, which takes no space and yet is long.
fn widen(path: &str, vocab: u64) {
    let mut header = tiny_header();
    let mut end = 0;
    for tensor in header.as_object_mut().expect("an object").values_mut() {
        if tensor["shape"][0] == 300 {
            tensor["shape"][0] = json!(vocab);
        }
        let shape = tensor["shape"].as_array().expect("a shape").iter();
        let start = end;
        end += 2 * shape.filter_map(Value::as_u64).product::<u64>();
        tensor["data_offsets"] = json!([start, end]);
    }
    let header = with_header(&header, &[]);
    let length = header.len() as u64 + end;
    std::fs::write(path, header).expect("writing the header");
    let file = std::fs::OpenOptions::new().write(true).open(path);
    file.expect("the file").set_len(length).expect("its length");
}
