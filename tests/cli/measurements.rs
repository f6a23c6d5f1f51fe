//! `rwkvc logits`, `verify`, `eval` and `bench`.

use serde_json::Value;

use crate::harness::*;

const TOKENS: &str = "0,34,105,110";

fn logits(model: &str, options: &[&str]) -> Value {
    json([&["logits", model, "--tokens", TOKENS, "--threads", "1"], options].concat())
}

/// The largest difference, relative to the largest value.
fn difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let largest = a.iter().fold(0f64, |m, x| m.max(x.abs()));
    a.iter().zip(b).fold(0f64, |m, (x, y)| m.max((x - y).abs())) / largest
}

#[test]
fn logits_are_the_same_by_every_way() {
    let last = logits(artifact(), &[]);
    assert_eq!(keys(&last), ["logits", "tokens"]);
    assert_eq!(ids(&last["tokens"]), [0, 34, 105, 110]);
    let last = numbers(&last["logits"]);
    assert_eq!(last.len(), 320);

    let jit = logits(demo(), &["--backend", "cranelift"]);
    assert_eq!(numbers(&jit["logits"]), last, "artifact and checkpoint");
    let reference = logits(demo(), &["--backend", "evaluator", "--all"]);
    let rows = reference["logits"].as_array().expect("a list for each position");
    assert_eq!(rows.len(), 4);
    assert!(difference(&numbers(&rows[3]), &last) < 2e-6);

    for way in [&["--all"][..], &["--all", "--step"], &["--all", "--threads", "2"]] {
        let mut options = vec![];
        if way.contains(&"--threads") {
            options.extend(["logits", artifact(), "--tokens", TOKENS]);
        } else {
            options.extend(["logits", artifact(), "--tokens", TOKENS, "--threads", "1"]);
        }
        let all = json([&options[..], way].concat());
        let all = all["logits"].as_array().expect("a list for each position");
        assert_eq!(all.len(), 4, "{way:?}");
        for (row, expected) in all.iter().zip(rows) {
            assert!(difference(&numbers(expected), &numbers(row)) < 2e-6, "{way:?}");
        }
    }
}

#[test]
fn every_file_format_holds_the_same_model() {
    let expected = numbers(&logits(artifact(), &[])["logits"]);
    for name in ["demo.pth", "demo-fp16.pth", "demo-hf"] {
        let model = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
        let found = numbers(&logits(&model, &["--backend", "cranelift"])["logits"]);
        assert!(difference(&expected, &found) < 2e-6, "{name}");
    }
}

#[test]
fn verify_finds_the_backends_right() {
    let report = json([
        "verify",
        tiny(),
        "--length",
        "5",
        "--backends",
        "cranelift",
        "--threads",
        "1",
    ]);
    assert_eq!(report["ok"], true);
    assert_eq!(ids(&report["tokens"]).len(), 5);
    let rows = report["rows"].as_array().expect("rows");
    let expected = [
        "backend",
        "difference",
        "largest",
        "ok",
        "program",
        "tolerance",
        "value",
        "variant",
    ];
    assert_eq!(keys(&rows[0]), expected);
    for value in ["blocks.0", "blocks.1", "logits", "blocks.1.att.wkv"] {
        for variant in ["fused", "unfused"] {
            assert!(
                rows.iter()
                    .any(|r| r["value"] == value && r["variant"] == variant),
                "no comparison of {value}, {variant}"
            );
        }
    }
    let text = succeeds([
        "verify",
        tiny(),
        "--length",
        "2",
        "--backends",
        "cranelift",
        "--threads",
        "1",
    ]);
    assert!(text.contains("comparisons are within their tolerance"), "{text}");
}

#[test]
fn verify_compares_with_golden_files() {
    let options = [
        "--length",
        "6",
        "--backends",
        "cranelift",
        "--threads",
        "1",
        "--golden",
        golden(),
    ];
    let report = json([&["verify", demo()][..], &options].concat());
    assert_eq!(report["ok"], true);
    assert_eq!(ids(&report["tokens"]).len(), 6);
    let rows = report["rows"].as_array().expect("rows");
    let golden: Vec<&Value> = rows
        .iter()
        .filter(|r| r["value"] == "logits of the golden file")
        .collect();
    assert_eq!(golden.len(), 4, "decode and score, fused and unfused");
    for row in golden {
        assert_eq!(row["tolerance"], 2e-5);
        // That there is a difference at all shows that something else was compared than the evaluator's logits.
        assert!(row["difference"].as_f64().expect("a number") > 0.0);
    }

    // Another model than that of the file.
    let folder = Folder::new();
    let other = folder.join("other.safetensors");
    let sizes = ["--layers", "1", "--dim", "64", "--vocab", "320"];
    succeeds([&["generate", "-o", &other][..], &sizes].concat());
    let output = program()
        .args(["verify", &other])
        .args(options)
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("BEYOND"));
}

#[test]
fn eval_gives_the_bits_per_byte_of_the_official_package() {
    // The start of a chapter that the model was not trained on.
    let folder = Folder::new();
    let text = heldout(&folder);
    let result = json(["eval", artifact(), "--text", &text, "--threads", "1"]);
    let expected = [
        "accuracy",
        "bits_per_byte",
        "bytes",
        "nats_per_token",
        "perplexity",
        "tokens",
    ];
    assert_eq!(keys(&result), expected);
    assert_eq!(result["bytes"], 1500);
    assert_eq!(result["tokens"], 1500);
    let bits = result["bits_per_byte"].as_f64().expect("a number");
    assert!((bits - 1.263_596).abs() < 2e-5, "{bits}");
    let perplexity = result["perplexity"].as_f64().expect("a number");
    assert!((perplexity - bits.exp2()).abs() < 1e-6, "{perplexity}");
    let text = succeeds(["eval", artifact(), "--text", &text, "--threads", "1"]);
    assert!(text.starts_with("1.2636 bits per byte (1500 bytes)"), "{text}");
}

#[test]
fn bench_reports_every_variant() {
    let sizes = [
        "--samples",
        "1",
        "--decode",
        "2",
        "--prefill",
        "4",
        "--threads",
        "1",
        "--batch",
        "3,1",
    ];
    let args = [
        "bench",
        tiny(),
        "--compare",
        "fused,unfused,no-cse",
        "--backend",
        "cranelift",
    ];
    let report = json([&args[..], &sizes].concat());
    assert!(report["roof_gb_s"].as_f64().expect("a number") > 0.0);
    let variants = report["variants"].as_array().expect("variants");
    let names: Vec<_> = variants.iter().map(|v| &v["name"]).collect();
    assert_eq!(names, ["fused", "unfused", "no-cse"]);
    for v in variants {
        assert_eq!(v["threads"], 1);
        for what in ["decode", "prefill"] {
            assert_eq!(keys(&v[what]), ["max", "median", "min"]);
            assert!(v[what]["min"].as_f64() <= v[what]["max"].as_f64());
        }
        assert!(v["bytes_per_token"].as_u64() > Some(0));
        assert!(v["roof_share"].as_f64() > Some(0.0));
        let kernels = v["kernels"].as_array().expect("kernels");
        let calls: u64 = kernels.iter().filter_map(|k| k["calls"].as_u64()).sum();
        assert_eq!(v["launches"], calls);
        assert!(v["prefill_peak_share"].as_f64() > Some(0.0));
        let batches = v["batches"].as_array().expect("batches");
        let members: Vec<_> = batches.iter().map(|b| b["members"].as_u64()).collect();
        assert_eq!(members, [Some(3), Some(1)]);
        for b in batches {
            assert_eq!(keys(&b["tokens"]), ["max", "median", "min"]);
            for what in ["tokens_per_member", "factor", "roof_share", "peak_share"] {
                assert!(b[what].as_f64() > Some(0.0), "{what}");
            }
            // Every weight once, as for one token alone.
            assert_eq!(b["bytes_per_step"], v["bytes_per_token"]);
        }
    }
    // Fusing is what makes one launch of many.
    assert!(variants[0]["launches"].as_u64() < variants[1]["launches"].as_u64());
}
