//! `rwkvc compile` at every stage, `opt`, `passes`, `targets`.

use crate::harness::*;

#[test]
fn compile_reports_what_it_wrote() {
    let folder = Folder::new();
    let out = folder.join("tiny.rwkvc");
    let args = [
        "compile",
        tiny(),
        "-o",
        &out,
        "--target",
        "cpu",
        "--backend",
        "cranelift",
    ];
    let report = json(args);
    let expected = [
        "backend", "bytes", "emit", "output", "passes", "seconds", "target",
    ];
    assert_eq!(keys(&report), expected);
    assert_eq!(report["emit"], "artifact");
    assert_eq!(report["backend"], "cranelift");
    assert_eq!(report["output"], out);
    let written = std::fs::metadata(&out).expect("the artifact").len();
    assert_eq!(report["bytes"], written);

    // Equal input gives equal output, which replaces what was there.
    let first = std::fs::read(&out).expect("the artifact");
    std::fs::write(&out, "something else").expect("writing");
    assert_eq!(succeeds(args), "");
    assert!(std::fs::read(&out).expect("the artifact") == first);
    assert_eq!(folder.names(), ["tiny.rwkvc"]);
}

#[test]
fn every_stage_can_be_written() {
    let folder = Folder::new();
    let cases = [
        ("asm", "; kernel "),
        ("clif", "function"),
        ("kernel", "kernel @"),
        ("graph", "func @rwkv7("),
        ("dot", "digraph \"rwkv7\""),
    ];
    for (stage, start) in cases {
        let args = ["compile", tiny(), "--backend", "cranelift", "--emit", stage, "-o"];
        let printed = succeeds([&args[..], &["-"]].concat());
        assert!(printed.contains(start), "{stage}");
        let out = folder.join(stage);
        succeeds([&args[..], &[&out]].concat());
        assert_eq!(
            std::fs::read_to_string(&out).expect("the stage"),
            printed,
            "{stage}"
        );
    }
    let object = folder.join("tiny.o");
    succeeds([
        "compile",
        tiny(),
        "--backend",
        "cranelift",
        "--emit",
        "obj",
        "-o",
        &object,
    ]);
    assert!(
        std::fs::read(&object)
            .expect("the object")
            .starts_with(b"\x7fELF")
    );
}

#[test]
fn code_for_gpus_is_ptx() {
    let compile = ["compile", tiny(), "-o", "-"];
    let cuda = ["--target", "cuda:sm_90"];
    let refused = |more: &[&str], name| fails([&compile[..], more].concat(), &[name]);
    refused(&["--emit", "sass"], "has no form `sass`: give --emit ");
    refused(
        &[&cuda[..], &["--emit", "asm"]].concat(),
        "code for cuda:sm_90 has no form `asm`: give --emit sass",
    );
    refused(
        &[&cuda[..], &["--emit", "kernel", "--backend", "cranelift"]].concat(),
        "Cranelift has no code for GPUs; the `llvm` backend has",
    );

    if cfg!(feature = "llvm") {
        refused(&["--emit", "ptx"], "has no form `ptx`: give --emit ");
        let ptx = succeeds([&compile[..], &cuda, &["--emit", "ptx"]].concat());
        assert!(ptx.contains(".target sm_90") && ptx.contains(".visible .entry wkv7_block_"));
        let folder = Folder::new();
        let file = folder.join("tiny.rwkvc");
        succeeds(["compile", tiny(), "--target", "cuda", "-o", &file]);
        let programs = succeeds(["inspect", &file]);
        assert!(
            programs.contains("batch (") && programs.contains("needs             sm_80"),
            "{programs}"
        );
        fails(
            ["bench", &file, "--compare", "fused"],
            &["--compare goes with a checkpoint"],
        );
        fails(
            ["bench", &file, "--target", "cuda"],
            &["--target goes with a checkpoint"],
        );
        // Without a GPU this says what is missing; with one it runs.
        if !std::path::Path::new("/dev/nvidiactl").exists() {
            let missing = "no NVIDIA driver was found on this machine: the library libcuda cannot be loaded";
            fails(["run", &file, "--tokens", "1"], &[missing]);
            let cuda = ["run", tiny(), "--target", "cuda", "--tokens", "1"];
            fails(cuda, &[missing]);
            fails(["bench", &file, "--batch", "1,8"], &[missing]);
            fails(["bench", tiny(), "--target", "cuda"], &[missing]);
            fails(["verify", tiny(), "--target", "cuda"], &[missing]);
            fails(
                [&cuda[..], &["--gpu-mode", "persistent", "--device", "1"]].concat(),
                &[missing],
            );
        }
    }
}

#[cfg(feature = "llvm")]
#[test]
fn machine_code_of_gpus_is_printed_by_the_tools_of_cuda() {
    let compile = [
        "compile",
        tiny(),
        "-o",
        "-",
        "--target",
        "cuda:sm_90",
        "--emit",
        "sass",
    ];
    let with_path = |path: &str| {
        let mut command = program();
        command.args(compile).env("PATH", path);
        command.env_remove("CUDA_HOME").env_remove("CUDA_PATH");
        command.output().expect("it runs")
    };
    if !std::path::Path::new("/usr/local/cuda/bin/ptxas").exists() {
        let output = with_path("/nowhere");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            said.contains("ptxas was not found in PATH, CUDA_HOME/bin"),
            "{said}"
        );
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), std::path::PathBuf::from);
    let tools = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(target)
        .join("tools/nvidia/bin");
    if tools.join("ptxas").exists() && tools.join("nvdisasm").exists() {
        let output = with_path(tools.to_str().expect("a path in UTF-8"));
        let code = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        for expected in ["wkv7_block_", "rwkvc_walk", "LDG.E.128", "EXIT"] {
            assert!(code.contains(expected), "{expected}");
        }
    }
}

#[test]
fn opt_does_what_compile_does() {
    let args = [
        "compile",
        tiny(),
        "--backend",
        "cranelift",
        "--emit",
        "graph",
        "-o",
        "-",
    ];
    let optimised = succeeds(args);
    let plain = succeeds([&args[..], &["--passes", "none"]].concat());
    let unfused = succeeds([&args[..], &["--passes", "unfused"]].concat());
    assert_eq!(
        succeeds_with_input(["opt", "-", "--passes", "unfused"], plain.as_bytes()),
        unfused
    );
    assert_eq!(
        succeeds_with_input(["opt", "-", "--passes", "none"], plain.as_bytes()),
        plain
    );

    let folder = Folder::new();
    let file = folder.file("tiny.graph", &plain);
    let fused = succeeds(["opt", &file]);
    // Members of a group may come in another order.
    assert_eq!(fused.lines().count(), optimised.lines().count());
    assert!(fused.lines().count() < unfused.lines().count());
    assert!(succeeds(["opt", &file, "--dot"]).starts_with("digraph"));
    let report = json(["opt", &file]);
    assert_eq!(
        keys(&report),
        ["graph", "nodes_after", "nodes_before", "passes", "rewrites"]
    );
    assert_eq!(report["graph"], fused);
    assert!(report["nodes_after"].as_u64() < report["nodes_before"].as_u64());
    assert!(report["rewrites"].as_u64() > Some(0));
    let report = json(["opt", &file, "--fuel", "1"]);
    assert_eq!(report["rewrites"], 1);
}

#[test]
fn graphs_after_passes_go_to_standard_error() {
    let output = program()
        .args([
            "compile",
            tiny(),
            "-o",
            "-",
            "--emit",
            "graph",
            "--backend",
            "cranelift",
            "--print-after",
            "cse",
        ])
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("; after cse\nfunc @rwkv7("));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("func @rwkv7("));
}

#[test]
fn passes_and_targets_are_listed() {
    let passes = json(["passes"]);
    let passes = passes.as_array().expect("passes");
    assert_eq!(keys(&passes[0]), ["fuses", "name", "summary"]);
    assert!(passes.iter().any(|p| p["fuses"] == true));
    let text = succeeds(["passes"]);
    for pass in passes {
        let name = pass["name"].as_str().expect("a name");
        assert!(text.contains(name));
        // Every listed pass can be left out.
        let without = [
            "compile",
            tiny(),
            "--emit",
            "graph",
            "--backend",
            "cranelift",
            "-o",
            "-",
            "--no-pass",
            name,
        ];
        succeeds(without);
    }

    let targets = json(["targets"]);
    assert_eq!(keys(&targets), ["backends", "host", "levels"]);
    assert_eq!(keys(&targets["host"]), ["cpu", "extensions", "target"]);
    let backends = targets["backends"].as_array().expect("backends");
    assert!(backends.iter().any(|b| b["name"] == "cranelift"));
    let levels = targets["levels"].as_array().expect("levels");
    let text = succeeds(["targets"]);
    for level in levels {
        let name = level["name"].as_str().expect("a name");
        assert!(text.contains(name));
        let is_gpu = name.starts_with("cuda");
        if is_gpu && !cfg!(feature = "llvm") {
            continue;
        }
        let (stage, backend, start) = match is_gpu {
            true => ("kernel", "llvm", "kernel @"),
            false => ("clif", "cranelift", "function"),
        };
        let kernels = [
            "compile",
            tiny(),
            "--emit",
            stage,
            "--backend",
            backend,
            "-o",
            "-",
            "--target",
            name,
        ];
        assert!(succeeds(kernels).contains(start), "{name}");
    }
}
