//! `rwkvc tune`, and what other commands make of the file that it writes.

use std::path::Path;

use serde_json::{Value, json as value};

use crate::harness::*;

const QUICK: [&str; 6] = ["--backend", "cranelift", "--budget", "1s", "--threads", "1"];

/// A tiny model in a folder of its own, and the file that `tune` writes beside it.
fn tuned(folder: &Folder) -> (String, String) {
    let model = folder.join("model.safetensors");
    std::fs::copy(tiny(), &model).expect("a copy");
    succeeds([&["tune", &model][..], &QUICK].concat());
    let file = format!("{model}.tuning.json");
    assert!(Path::new(&file).exists());
    (model, file)
}

/// Changes the file.
fn change(file: &str, change: impl FnOnce(&mut Value)) {
    let mut tuning: Value = serde_json::from_slice(&std::fs::read(file).expect("the file")).expect("JSON");
    change(&mut tuning);
    std::fs::write(file, tuning.to_string()).expect("writing it");
}

/// Runs the program, which must succeed; its result and what it says beside it.
fn both(args: &[&str]) -> (String, String) {
    let output = program().args(args).output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    (String::from_utf8_lossy(&output.stdout).into_owned(), stderr)
}

fn logits<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let args = [
        "logits",
        model,
        "--tokens",
        "1,2,3",
        "--backend",
        "cranelift",
        "--format",
        "json",
    ];
    [&args[..], more].concat()
}

#[test]
fn tune_reports_what_it_did() {
    let folder = Folder::new();
    let output = folder.join("found.json");
    let report = json([&["tune", tiny(), "-o", &output][..], &QUICK].concat());
    assert_eq!(
        keys(&report),
        [
            "changes", "default", "output", "seconds", "trials", "tuned", "untried"
        ]
    );
    assert_eq!(report["output"], output);
    assert_eq!(keys(&report["tuned"]), ["schedule", "threads"]);
    assert_eq!(report["tuned"]["threads"], 1, "as asked for");
    assert_eq!(report["default"]["schedule"]["streams"], "4");
    assert_eq!(folder.names(), ["found.json"], "nothing else is written");
    for trial in report["trials"].as_array().expect("trials") {
        // This backend has no prefetch, so what says how far is the same code.
        assert_ne!(trial["choice"], "prefetch_bytes");
        assert!(trial["times"].as_f64() > Some(0.0), "{trial}");
    }
    let text = std::fs::read_to_string(&output).expect("the file");
    let file: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(file["subject"]["backend"], "cranelift");
    assert_eq!(file["threads"], 1);
}

#[test]
fn a_model_that_was_tuned_is_run_so() {
    let folder = Folder::new();
    let (model, file) = tuned(&folder);
    change(&file, |t| {
        t["schedule"]["streams"] = value!(8);
        t["schedule"]["square"] = value!("4x6");
        t["threads"] = value!(2);
    });
    let said = format!("tuned by `{file}`");
    let (found, stderr) = both(&logits(&model, &[]));
    assert_eq!(stderr.trim(), said);
    let (plain, stderr) = both(&logits(&model, &["--tuning", "none"]));
    assert_eq!(stderr, "");
    let numbers_of = |text: &str| numbers(&document(text)["logits"]);
    for (a, b) in numbers_of(&found).iter().zip(numbers_of(&plain)) {
        assert!((a - b).abs() < 1e-4, "{a}, {b}");
    }
    // The same file for the model elsewhere.
    let (again, stderr) = both(&logits(tiny(), &["--tuning", &file]));
    assert_eq!((again, stderr.trim()), (found, &*said));

    let compiled = folder.join("model.rwkvc");
    let (_, stderr) = both(&[
        "compile",
        &model,
        "-o",
        &compiled,
        "--backend",
        "cranelift",
        "--tuning",
        &file,
    ]);
    assert!(stderr.starts_with(&said), "{stderr}");
    let manifest = json(["inspect", &compiled]);
    assert_eq!(manifest["schedule"]["streams"], "8");
    assert_eq!(manifest["schedule"]["square"], "4x6");
    assert!(succeeds(["inspect", &compiled]).contains("streams=8"));

    let sizes = [
        "--samples",
        "1",
        "--decode",
        "1",
        "--prefill",
        "2",
        "--no-kernels",
    ];
    let variants = ["--compare", "fused,untuned,int8", "--backend", "cranelift"];
    let report = json([&["bench", &model][..], &sizes, &variants].concat());
    assert_eq!(report["threads"], 2);
    let is_tuned = |i: usize| report["variants"][i]["tuned"].as_bool();
    assert_eq!(
        [0, 1, 2].map(is_tuned),
        [Some(true), Some(false), Some(false)],
        "a tuning is for its formats"
    );
    let (_, stderr) = both(&["verify", &model, "--length", "2", "--backends", "cranelift"]);
    assert_eq!(stderr.trim(), said);
}

/// What is said of a file that was changed so.
type Case = (&'static str, fn(&mut Value));

#[test]
fn a_tuning_for_something_else_is_not_used() {
    let folder = Folder::new();
    let (model, file) = tuned(&folder);
    let whole = std::fs::read(&file).expect("the file");
    let cases: [Case; 3] = [
        ("on `Z80`, and this is `", |t| {
            t["subject"]["machine"]["cpu"] = value!("Z80")
        }),
        ("by rwkvc 9.9.9, and this is rwkvc ", |t| {
            t["producer"] = value!("rwkvc 9.9.9")
        }),
        ("for weights `int4`, and this is `stored`", |t| {
            t["subject"]["weights"] = value!("int4")
        }),
    ];
    for (reason, other) in cases {
        std::fs::write(&file, &whole).expect("the file as it was");
        change(&file, other);
        let (_, stderr) = both(&logits(&model, &[]));
        let said = format!("not tuned: the tuning `{file}` was measured {reason}");
        assert!(stderr.starts_with(&said), "{stderr}");
        // A file that was asked for must fit.
        folder.refuses(logits(&model, &["--tuning", &file]), &[&file, reason]);
    }
}

#[test]
fn a_damaged_tuning_is_refused_by_every_command() {
    let folder = Folder::new();
    let (model, file) = tuned(&folder);
    change(&file, |t| t["schedule"]["streams"] = value!(3));
    let named = [&*file, "`streams` is 3, expected 1, 2, 4, 8", "--tuning none"];
    let cranelift = ["--backend", "cranelift"];
    let commands: [&[&str]; 5] = [
        &["run", &model, "--tokens", "1", "--max-tokens", "1"],
        &["logits", &model, "--tokens", "1"],
        &["compile", &model, "-o", "out"],
        &["bench", &model, "--samples", "1"],
        &["eval", &model, "--text", &file],
    ];
    for command in commands {
        folder.refuses([command, &cranelift].concat(), &named);
    }
    folder.refuses(["verify", &model, "--backends", "cranelift"], &named);
    folder.file("model.safetensors.tuning.json", "{");
    folder.refuses(logits(&model, &[]), &[&file, "damaged"]);
    both(&logits(&model, &["--tuning", "none"]));
    folder.refuses(logits(&model, &["--tuning", "gone"]), &["gone", "No such file"]);
    // Measuring again mends it.
    succeeds([&["tune", &model][..], &QUICK].concat());
    both(&logits(&model, &[]));
}

#[test]
fn of_a_compiled_file_only_threads_are_chosen() {
    let folder = Folder::new();
    let compiled = folder.join("model.rwkvc");
    succeeds(["compile", tiny(), "-o", &compiled, "--backend", "cranelift"]);
    let report = json(["tune", &compiled, "--budget", "1s"]);
    assert_eq!(report["tuned"]["schedule"], Value::Null);
    let threads = &report["tuned"]["threads"];
    assert!(threads.as_u64() > Some(0), "{threads}");
    let file = format!("{compiled}.tuning.json");
    let (_, stderr) = both(&["logits", &compiled, "--tokens", "1"]);
    assert_eq!(stderr.trim(), format!("tuned by `{file}`"));
    let (_, stderr) = both(&["logits", &compiled, "--tokens", "1", "--tuning", "none"]);
    assert_eq!(stderr, "");
    for option in [
        ["--backend", "cranelift"],
        ["--weights", "int8"],
        ["--threads", "1"],
    ] {
        let args = [&["tune", &compiled][..], &option].concat();
        folder.refuses(args, &["model.rwkvc", "is compiled already", option[0]]);
    }
    let args = ["logits", tiny(), "--tokens", "1", "--tuning", &file];
    folder.refuses(args, &[&file, "and this is"]);
}

#[test]
fn where_nothing_can_be_tuned_it_is_said() {
    fails(["tune", tiny(), "--backend", "evaluator"], &["generates no code"]);
    fails(["tune", tiny(), "--target", "cuda"], &["GPUs", "cuda:sm_80"]);
    fails(["tune", "gone.safetensors"], &["gone.safetensors"]);
    fails(["tune", tiny(), "-o", tiny()], &["is the model itself"]);
    // Before anything is measured.
    let args = ["tune", tiny(), "--budget", "1000m", "-o", "nowhere/file"];
    fails(args, &["writing `nowhere/file`"]);
    let args = ["logits", tiny(), "--tokens", "1", "--tuning", "x"];
    fails(
        [&args[..], &["--backend", "evaluator"]].concat(),
        &["--tuning", "evaluator"],
    );
    fails([&args[..], &["--target", "cuda"]].concat(), &["--tuning", "GPUs"]);
}
