//! `rwkvc generate`, `convert` and `inspect`.

use crate::harness::*;

#[test]
fn inspect_shows_a_checkpoint() {
    let summary = json(["inspect", demo()]);
    let expected = [
        ("n_layers", 4),
        ("width", 256),
        ("n_heads", 4),
        ("head_size", 64),
        ("ffn", 1024),
        ("vocab", 320),
        ("parameters", 3_616_512),
        ("weight_bytes", 7_233_024),
    ];
    for (name, value) in expected {
        assert_eq!(summary[name], value, "{name}");
    }
    assert_eq!(summary["dtype"], "bf16");
    assert_eq!(summary["ranks"]["gate"], 64);
    let tensors = summary["tensors"].as_array().expect("tensors");
    assert_eq!(keys(&tensors[0]), ["bytes", "dtype", "name", "shape", "storage"]);

    let text = succeeds(["inspect", demo()]);
    assert!(
        text.contains("256 (4 heads of 64)") && !text.contains("blocks.3.att.k_k"),
        "{text}"
    );
    let text = succeeds(["inspect", demo(), "--tensors", "--check"]);
    assert!(text.contains("blocks.3.att.k_k"), "{text}");
    assert!(text.ends_with("every weight is a finite number\n"), "{text}");
    let checked = json(["inspect", demo(), "--check"]);
    assert_eq!(checked["not_finite"], serde_json::json!([]));
    assert_eq!(checked["model"], summary);
}

#[test]
fn inspect_shows_an_artifact() {
    let manifest = json(["inspect", artifact(), "--check"]);
    assert_eq!(manifest["backend"], "cranelift");
    assert_eq!(manifest["model"]["vocab"], 320);
    let programs = manifest["programs"].as_array().expect("programs");
    let kinds: Vec<_> = programs.iter().map(|p| &p["kind"]).collect();
    assert_eq!(kinds, ["decode", "prefill", "score", "batch"]);
    let text = succeeds(["inspect", artifact(), "--tensors"]);
    assert!(
        text.contains("compiled by rwkvc") && text.contains("head.weight"),
        "{text}"
    );
}

#[test]
fn generate_makes_any_size_again_and_again() {
    let folder = Folder::new();
    let (a, b, c) = (folder.join("a"), folder.join("b"), folder.join("c"));
    let sizes = ["--layers", "1", "--dim", "64", "--vocab", "100", "--dtype", "f32"];
    let report = json([&["generate", "-o", &a][..], &sizes].concat());
    assert_eq!(keys(&report), ["output", "weight_bytes"]);
    assert_eq!(succeeds([&["generate", "-o", &b][..], &sizes].concat()), "");
    succeeds([&["generate", "-o", &c, "--seed", "2"][..], &sizes].concat());
    let read = |path| std::fs::read(path).expect("a checkpoint");
    assert!(read(&a) == read(&b) && read(&a) != read(&c));

    let summary = json(["inspect", &a, "--check"]);
    assert_eq!(summary["model"]["n_layers"], 1);
    assert_eq!(summary["model"]["width"], 64);
    assert_eq!(summary["model"]["ffn"], 256);
    assert_eq!(summary["model"]["vocab"], 100);
    assert_eq!(summary["model"]["dtype"], "f32");
    let bytes = read(&a);
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
    assert_eq!(report["weight_bytes"], bytes.len() as u64 - 8 - header);
    assert_eq!(folder.names(), ["a", "b", "c"]);
}

/// What a model says after some tokens, as it is printed.
fn logits(model: &str) -> String {
    let tokens = ["--tokens", "66,111,101,33", "--all", "--format", "json"];
    succeeds([&["logits", model, "--backend", "cranelift"][..], &tokens].concat())
}

#[test]
fn convert_keeps_every_bit() {
    let folder = Folder::new();
    let (gguf, back) = (folder.join("demo.gguf"), folder.join("back.safetensors"));
    assert_eq!(
        keys(&json(["convert", demo(), &gguf])),
        ["output", "weight_bytes"]
    );
    assert_eq!(succeeds(["convert", &gguf, &back]), "");
    let expected = logits(demo());
    assert!(logits(&gguf) == expected && logits(&back) == expected);
    let summary = json(["inspect", &gguf, "--check"]);
    assert_eq!(summary["model"]["file_format"], "gguf");
    assert_eq!(summary["model"]["parameters"], 3_616_512);
    assert_eq!(folder.names(), ["back.safetensors", "demo.gguf"]);
}

#[test]
fn quantised_files_run() {
    let folder = Folder::new();
    let small = folder.join("small.gguf");
    succeeds(["convert", demo(), &small, "--weights", "q8_0"]);
    let output = program()
        .args(["inspect", &small, "--tensors"])
        .output()
        .expect("the program starts");
    let (text, note) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        text.contains("stored as") && text.contains("q8_0 as f16"),
        "{text}"
    );
    assert!(
        note.contains("it has quantised tensors (26 in q8_0); what is not multiplied in blocks is decoded to f16 in memory"),
        "{note}"
    );
    let file = |path: &str| std::fs::metadata(path).expect("a file").len();
    assert!(file(&small) < file(demo()) * 2 / 3);
    // The bytes of the blocks, not of what they are decoded to.
    let bytes = json(["inspect", &small])["weight_bytes"].as_u64();
    assert!(
        bytes > Some(file(&small) * 9 / 10) && bytes < Some(file(&small)),
        "{bytes:?}"
    );
    let evaluated = |model: &str| {
        let text = heldout(&folder);
        json(["eval", model, "--text", &text, "--backend", "cranelift"])["bits_per_byte"]
            .as_f64()
            .expect("a number")
    };
    assert!((evaluated(&small) - evaluated(demo())).abs() < 0.01);
}

#[test]
fn generate_makes_gguf_too() {
    let folder = Folder::new();
    let path = folder.join("a.gguf");
    let sizes = ["--layers", "1", "--dim", "64", "--vocab", "300"];
    succeeds([&["generate", "-o", &path][..], &sizes].concat());
    let summary = json(["inspect", &path, "--check"]);
    assert_eq!(summary["model"]["file_format"], "gguf");
    assert_eq!(summary["model"]["width"], 64);
}

#[test]
fn convert_refuses_what_it_cannot_write() {
    let folder = Folder::new();
    let vocabulary = folder.file("vocabulary.txt", "400 'a' 1\n");
    let cases: [(&[&str], &[&str]); 6] = [
        (&["out.pth"], &["`out.pth`", ".safetensors or .gguf"]),
        (
            &["out.gguf", "--weights", "q3"],
            &["`q3`", "f32, f16, bf16, q8_0"],
        ),
        (
            &["out.safetensors", "--weights", "q8_0"],
            &["out.safetensors", "q8_0"],
        ),
        (
            &["out.gguf", "--vocab", &vocabulary],
            &["a token 400", "320 rows"],
        ),
        (&["out.safetensors", "--vocab", &vocabulary], &["--vocab"]),
        (&["nowhere/out.gguf"], &["nowhere/out.gguf"]),
    ];
    for (args, names) in cases {
        folder.refuses([&["convert", demo()][..], args].concat(), names);
    }
    fails(["convert", artifact(), "out.gguf"], &["compiled already"]);
    let deep = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/deepembed-random.pth");
    fails(["convert", deep, "out.gguf"], &["out.gguf", "`blocks.0.ffn.s"]);
}
