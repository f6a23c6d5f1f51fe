//! Bad input of every kind: one clear error that names the thing, exit code 1, no result, no file.

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
fn unknown_names_are_refused_with_those_that_are_known() {
    let compile = ["compile", tiny(), "-o", "out"];
    let cases: &[(&[&str], &[&str])] = &[
        (&["--backend", "gcc"], &["`gcc`", "cranelift", "evaluator"]),
        (&["--backend", "evaluator"], &["generates no code"]),
        (&["--target", "gpu"], &["`gpu`", "cpu"]),
        (&["--target", "cpu:pentium"], &["`pentium`", "x86-64-v3"]),
        (&["--target", "cpu:x86-64-v3+mmx2"], &["`mmx2`"]),
        (&["--passes", "sparkle"], &["`sparkle`", "cse"]),
        (&["--no-pass", "sparkle"], &["`sparkle`", "cse"]),
        (&["--print-after", "sparkle"], &["`sparkle`"]),
        (
            &["--emit", "llvm", "--backend", "cranelift"],
            &["cranelift", "`llvm`"],
        ),
        (&["--emit", "llvm", "--backend", "gcc"], &["`gcc`"]),
    ];
    for (options, names) in cases {
        fails([&compile[..], options].concat(), names);
    }
    if !cfg!(feature = "llvm") {
        fails(
            [&compile[..], &["--backend", "llvm"]].concat(),
            &["not compiled into", "--features llvm"],
        );
        fails(
            [&compile[..], &["--emit", "llvm"]].concat(),
            &["`llvm`", "not compiled into"],
        );
    }
    fails(["compile", tiny(), "-o", "-"], &["not text"]);
    fails(["compile", tiny(), "-o", "-", "--emit", "obj"], &["not text"]);
    fails(["run", tiny(), "--tokens", "1", "--backend", "gcc"], &["`gcc`"]);
    fails(
        [
            "run",
            tiny(),
            "--tokens",
            "1",
            "--backend",
            "evaluator",
            "--passes",
            "none",
        ],
        &["--passes"],
    );
    fails(
        [
            "run",
            tiny(),
            "--tokens",
            "1",
            "--backend",
            "evaluator",
            "--target",
            "gpu",
        ],
        &["--target"],
    );
    for option in [["--gpu-mode", "graph"], ["--device", "0"]] {
        let expected = &[option[0], "is for GPUs", "--target cuda"];
        for command in [
            ["run", tiny(), "--tokens", "1"],
            ["run", artifact(), "--tokens", "1"],
            ["logits", tiny(), "--tokens", "1"],
            ["eval", tiny(), "--text", tiny()],
        ] {
            fails([&command[..], &option].concat(), expected);
        }
        let evaluator = ["logits", tiny(), "--tokens", "1", "--backend", "evaluator"];
        fails([&evaluator[..], &option].concat(), expected);
    }
    for command in [
        &["run", tiny(), "--tokens", "1"][..],
        &["logits", tiny(), "--tokens", "1"],
        &["eval", tiny(), "--text", tiny()],
    ] {
        let options = ["--target", "cuda", "--threads", "1"];
        fails([command, &options].concat(), &["--threads is for processors"]);
    }
    let narrow = ["--activations", "bf16"];
    let run = ["run", tiny(), "--tokens", "1"];
    fails(
        [&run[..], &narrow].concat(),
        &["--activations bf16", "processors"],
    );
    let compiled = ["run", artifact(), "--tokens", "1"];
    let expected = &["compiled already", "--activations"];
    fails([&compiled[..], &narrow].concat(), expected);
    let expected = &["--activations bf16", "processors"];
    fails(["bench", tiny(), "--compare", "bf16-activations"], expected);
    fails(["verify", tiny(), "--backends", "gcc"], &["`gcc`"]);
    fails(["verify", tiny(), "--length", "0"], &["--length"]);
    fails(["bench", tiny(), "--compare", "fast"], &["`fast`", "unfused"]);
    fails(["bench", tiny(), "--compare", "no-sparkle"], &["`sparkle`"]);
    fails(["bench", tiny(), "--decode", "0"], &["--decode"]);
    let on_processors: [(&[&str], &str); 3] = [
        (&["--modes", "graph"], "--modes is for GPUs"),
        (&["--device", "0"], "--device is for GPUs"),
        (&["--prefill", "4,8"], "--prefill has 2 lengths"),
    ];
    for (options, expected) in on_processors {
        fails([&["bench", tiny()], options].concat(), &[expected]);
    }
    fails(["bench", artifact()], &["is compiled already"]);
    let cuda = ["bench", tiny(), "--target", "cuda"];
    fails([&cuda[..], &["--batch", "0"]].concat(), &["--batch 0"]);
    fails([&cuda[..], &["--threads", "1"]].concat(), &["--threads"]);
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
    fails(["verify", tiny(), "--modes", "graph"], &["--modes is for GPUs"]);
    fails(["verify", tiny(), "--device", "1"], &["--device is for GPUs"]);
    fails(
        ["verify", tiny(), "--target", "cuda", "--threads", "1"],
        &["--threads is for processors"],
    );
    for sizes in ["0", "1,65"] {
        fails(["bench", tiny(), "--batch", sizes], &["--batch", "1 to 64"]);
    }
}

#[test]
fn generate_refuses_sizes_that_make_no_model() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["--preset", "100t"], &["`100t`", "0.1b"]),
        (&["--dtype", "q8"], &["`q8`", "bf16"]),
        (&["--dtype", "i32"], &["bf16"]),
        (&["--layers", "0"], &["out"]),
        (&["--dim", "65"], &["65", "64"]),
        (&["--vocab", "0"], &["out"]),
        (&["--head-size", "0"], &["out"]),
        (&["--vocab", "18446744073709551615"], &["out"]),
        (&["--dim", "18446744073709551615"], &["out"]),
        (&["--zeros", "2"], &["2"]),
        (&["--zeros", "NaN"], &["NaN"]),
    ];
    for (options, names) in cases {
        fails([&["generate", "-o", "out"], *options].concat(), names);
    }
}

#[test]
fn sampler_options_out_of_range_are_refused() {
    for (option, value) in [
        ("temperature", "-1"),
        ("temperature", "NaN"),
        ("temperature", "inf"),
        ("top-p", "2"),
        ("top-p", "-0.5"),
        ("penalty-decay", "1.5"),
        ("presence-penalty", "-0.5"),
        ("frequency-penalty", "inf"),
    ] {
        let option = format!("--{option}");
        let name = option[2..].replace('-', "_");
        fails(
            ["run", artifact(), "--prompt", "a", &option, value],
            &[&name, value],
        );
    }
    fails(
        ["run", artifact(), "--prompt", "a", "--stop", ""],
        &["stop string", "empty"],
    );
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
fn places_that_cannot_be_written_are_left_alone() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path().join("taken")).expect("a folder");
    let sizes = ["--layers", "1", "--dim", "64", "--vocab", "100"];
    for out in ["no/such/folder/out", "taken"] {
        folder.refuses([&["generate", "-o", out][..], &sizes].concat(), &[out]);
        for stage in ["artifact", "obj", "graph"] {
            let args = [
                "compile",
                tiny(),
                "-o",
                out,
                "--emit",
                stage,
                "--backend",
                "cranelift",
            ];
            folder.refuses(args, &[out]);
        }
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
        folder.refuses(
            [&run[..], &["--format", "json", "--state-out", out]].concat(),
            &[out],
        );
    }
}

#[test]
fn malformed_graphs_are_refused_with_their_place() {
    let folder = Folder::new();
    let cases: &[(&[u8], &[&str])] = &[
        (b"", &["1:1", "expected `func`"]),
        (b"func", &["1:5"]),
        (b"func @f() -> () { %x = frobnicate %y : f32[1] }", &["1:"]),
        (b"func @f(\n  %x: f99[4]\n) {\n}\n", &["2:"]),
        (b"\xff\xfe", &["not text"]),
    ];
    for (text, names) in cases {
        let file = folder.file("bad.graph", text);
        folder.refuses(["opt", &file], &[&["bad.graph"], *names].concat());
    }
    let whole = succeeds([
        "compile",
        tiny(),
        "--emit",
        "graph",
        "--backend",
        "cranelift",
        "-o",
        "-",
    ]);
    let file = folder.file("bad.graph", &whole[..whole.len() / 2]);
    folder.refuses(["opt", &file], &["bad.graph"]);
    let file = folder.file("good.graph", &whole);
    folder.refuses(["opt", &file, "--passes", "sparkle"], &["`sparkle`"]);
}
