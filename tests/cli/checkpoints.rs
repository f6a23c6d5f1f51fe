//! `rwkvc generate` and `inspect`.

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
    assert_eq!(keys(&tensors[0]), ["bytes", "dtype", "name", "shape"]);

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
    assert_eq!(kinds, ["decode", "prefill", "score"]);
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
