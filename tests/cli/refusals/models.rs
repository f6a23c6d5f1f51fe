//! Files that are no model: every command that reads one names it.

use serde_json::json as value;

use crate::harness::*;

/// The commands that read a model, and whether each takes an artifact too.
fn readers(model: &str) -> Vec<(Vec<&str>, bool)> {
    vec![
        (
            vec!["compile", model, "-o", "out", "--backend", "cranelift"],
            false,
        ),
        (
            vec![
                "run",
                model,
                "--tokens",
                "1",
                "--max-tokens",
                "1",
                "--backend",
                "cranelift",
            ],
            true,
        ),
        (
            vec![
                "run",
                model,
                "--tokens",
                "1",
                "--state-out",
                "out",
                "--backend",
                "evaluator",
            ],
            true,
        ),
        (
            vec!["logits", model, "--tokens", "1", "--backend", "cranelift"],
            true,
        ),
        (
            vec!["verify", model, "--length", "1", "--backends", "cranelift"],
            false,
        ),
        (
            vec!["bench", model, "--backend", "cranelift", "--samples", "1"],
            false,
        ),
        (vec!["inspect", model], true),
        (vec!["inspect", model, "--check", "--format", "json"], true),
        (vec!["tokenize", model, "--text", "a"], true),
    ]
}

#[test]
fn files_that_are_no_model_are_refused_by_every_command() {
    let folder = Folder::new();
    // Bytes as random as a linear congruence makes them.
    let mut x = 1u32;
    let random: Vec<u8> = std::iter::repeat_with(|| {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (x >> 24) as u8
    })
    .take(5000)
    .collect();
    let checkpoint = std::fs::read(tiny()).expect("the tiny model");
    std::fs::create_dir(folder.path().join("folder")).expect("a folder");
    folder.file("empty.pth", "");
    folder.file("random.pth", &random);
    folder.file("random.safetensors", &random);
    folder.file("text.safetensors", "Once upon a time there was a model.");
    folder.file("short.safetensors", &checkpoint[..checkpoint.len() / 2]);
    folder.file("header.safetensors", &checkpoint[..100]);
    folder.file("long.safetensors", [&checkpoint[..], &[0]].concat());
    folder.file(
        "huge-header.safetensors",
        [&u64::MAX.to_le_bytes()[..], b"{}"].concat(),
    );
    let zip = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tracker.pth"));
    let zip = zip.expect("the fixture");
    folder.file("short-zip.pth", &zip[..zip.len() / 2]);
    folder.file("start-of-zip.pth", [b"PK\x03\x04", &random[..]].concat());
    folder.file(
        "short-pickle.pth",
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9",
    );
    let names = folder.names();
    assert_eq!(names.len(), 12);
    for name in names.iter().map(String::as_str).chain(["missing.pth"]) {
        for (args, _) in readers(name) {
            folder.refuses(args, &[name]);
        }
    }
}

#[test]
fn tensors_that_make_no_model_are_named() {
    let folder = Folder::new();
    let bytes = std::fs::read(tiny()).expect("the tiny model");
    let weights = &bytes[data_start(&bytes)..];
    let refused = |name: &str, change: &dyn Fn(&mut serde_json::Map<String, serde_json::Value>)| {
        let mut header = tiny_header();
        change(header.as_object_mut().expect("an object"));
        let model = folder.file("changed.safetensors", with_header(&header, weights));
        for command in [&["inspect", &model][..], &["compile", &model, "-o", "out"]] {
            folder.refuses(command.iter(), &["changed.safetensors", name]);
        }
    };
    let renamed = "blocks.1.att.key.wait";
    refused("blocks.1.att.key.weight", &|tensors| {
        let tensor = tensors.remove("blocks.1.att.key.weight").expect("the tensor");
        tensors.insert(renamed.into(), tensor);
    });
    refused("blocks.0.ffn.key.weight", &|tensors| {
        tensors["blocks.0.ffn.key.weight"]["shape"] = value!([64, 256]);
    });
    refused("emb.weight", &|tensors| {
        tensors["emb.weight"]["dtype"] = value!("I16");
    });
    refused("head.weight", &|tensors| {
        tensors["head.weight"]["data_offsets"] = value!([0, 1u64 << 60]);
    });
}

#[test]
fn weights_that_are_no_numbers_are_found() {
    let folder = Folder::new();
    let mut bytes = std::fs::read(tiny()).expect("the tiny model");
    let name = "blocks.1.ffn.key.weight";
    let start = tiny_header()[name]["data_offsets"][0]
        .as_u64()
        .expect("an offset") as usize;
    // Element 5 of a bf16 tensor becomes a NaN.
    let at = data_start(&bytes) + start + 10;
    bytes[at..at + 2].copy_from_slice(&0x7FC0u16.to_le_bytes());
    let model = folder.file("nan.safetensors", bytes);

    let output = program()
        .args(["inspect", &model, "--check", "--format", "json"])
        .output();
    let output = output.expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("error: ") && stderr.contains(name), "{stderr}");
    let report = document(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(report["not_finite"][0]["name"], name);

    // Whoever runs it hears that the logits are no numbers.
    folder.refuses(
        [
            "run",
            &model,
            "--prompt",
            "a",
            "--backend",
            "cranelift",
            "--format",
            "json",
        ],
        &["logit", "NaN"],
    );
    let text = folder.file("text", "abc");
    folder.refuses(
        ["eval", &model, "--text", &text, "--backend", "cranelift"],
        &["logits are not numbers"],
    );
}

#[test]
fn damaged_artifacts_are_refused() {
    let folder = Folder::new();
    let whole = std::fs::read(artifact()).expect("the artifact");
    let with_changed = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    for length in [9, 135, 136, 5000, whole.len() / 2, whole.len() - 1] {
        folder.file("cut.rwkvc", &whole[..length]);
        for (args, _) in readers("cut.rwkvc")
            .iter()
            .filter(|(args, takes)| *takes && !args.contains(&"--backend"))
        {
            folder.refuses(args, &["cut.rwkvc"]);
        }
        folder.refuses(["run", "cut.rwkvc", "--tokens", "1"], &["cut.rwkvc"]);
        folder.refuses(["eval", "cut.rwkvc", "--text", "cut.rwkvc"], &["cut.rwkvc"]);
    }
    // Magic, version, a hash, the manifest, the code.
    for at in [0, 8, 40, 200, 4000] {
        folder.file("changed.rwkvc", with_changed(at));
        folder.refuses(["run", "changed.rwkvc", "--tokens", "1"], &["changed.rwkvc"]);
        folder.refuses(["inspect", "changed.rwkvc"], &["changed.rwkvc"]);
    }
    // The weights are looked at on request.
    folder.file("changed.rwkvc", with_changed(whole.len() - 100));
    folder.refuses(
        ["inspect", "changed.rwkvc", "--check"],
        &["changed.rwkvc", "weights"],
    );
}

#[test]
fn artifacts_are_not_checkpoints() {
    for (args, takes_artifacts) in readers(artifact()) {
        if !takes_artifacts {
            fails(args, &["demo.rwkvc", "is compiled already"]);
        }
    }
    // What an artifact is compiled with cannot be changed any more.
    for option in [
        ["--backend", "cranelift"],
        ["--target", "cpu:x86-64-v3"],
        ["--passes", "none"],
        ["--no-pass", "cse"],
        ["--print-after", "cse"],
        ["--fuel", "1"],
    ] {
        let args = ["run", artifact(), "--tokens", "1", "--max-tokens", "1"];
        fails([&args[..], &option].concat(), &["demo.rwkvc", option[0]]);
    }
}

#[test]
fn code_for_another_machine_is_refused() {
    let folder = Folder::new();
    let (other, here) = if cfg!(target_arch = "x86_64") {
        ("cpu:aarch64", "x86_64")
    } else {
        ("cpu:x86-64-v3", std::env::consts::ARCH)
    };
    let out = folder.join("other.rwkvc");
    succeeds([
        "compile",
        tiny(),
        "-o",
        &out,
        "--target",
        other,
        "--backend",
        "cranelift",
    ]);
    let found = if other == "cpu:aarch64" {
        "aarch64"
    } else {
        "x86_64"
    };
    folder.refuses(["run", &out, "--tokens", "1"], &["other.rwkvc", found, here]);
    let args = [
        "run",
        tiny(),
        "--tokens",
        "1",
        "--target",
        other,
        "--backend",
        "cranelift",
    ];
    folder.refuses(args, &[found, here]);
    // It can be looked at.
    assert_eq!(json(["inspect", &out])["target"]["arch"], found);
}
