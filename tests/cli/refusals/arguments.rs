//! Arguments that name nothing, or do not go with each other.

use crate::harness::*;

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
    fails(["verify", tiny(), "--backends", "gcc"], &["`gcc`"]);
    fails(["bench", tiny(), "--compare", "fast"], &["`fast`", "unfused"]);
    fails(["bench", tiny(), "--compare", "no-sparkle"], &["`sparkle`"]);
}

#[test]
fn arguments_for_another_device_are_refused() {
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
        fails([command, &options].concat(), &["--threads is for CPUs"]);
    }
    let narrow = ["--activations", "bf16"];
    let run = ["run", tiny(), "--tokens", "1"];
    fails([&run[..], &narrow].concat(), &["--activations bf16", "CPUs"]);
    let compiled = ["run", artifact(), "--tokens", "1"];
    let expected = &["compiled already", "--activations"];
    fails([&compiled[..], &narrow].concat(), expected);
    let expected = &["--activations bf16", "CPUs"];
    fails(["bench", tiny(), "--compare", "bf16-activations"], expected);
    fails(["verify", tiny(), "--modes", "graph"], &["--modes is for GPUs"]);
    fails(["verify", tiny(), "--device", "1"], &["--device is for GPUs"]);
    fails(
        ["verify", tiny(), "--target", "cuda", "--threads", "1"],
        &["--threads is for CPUs"],
    );
}

#[test]
fn measurements_that_mean_nothing_are_refused() {
    fails(["bench", tiny(), "--decode", "0"], &["--decode"]);
    let on_cpus: [(&[&str], &str); 3] = [
        (&["--modes", "graph"], "--modes is for GPUs"),
        (&["--device", "0"], "--device is for GPUs"),
        (&["--prefill", "4,8"], "--prefill has 2 lengths"),
    ];
    for (options, expected) in on_cpus {
        fails([&["bench", tiny()], options].concat(), &[expected]);
    }
    fails(["bench", artifact()], &["is compiled already"]);
    let cuda = ["bench", tiny(), "--target", "cuda"];
    fails([&cuda[..], &["--batch", "0"]].concat(), &["--batch 0"]);
    fails([&cuda[..], &["--threads", "1"]].concat(), &["--threads"]);
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
