//! The code for GPUs, through NVIDIA's assembler: every level of target, what each kernel takes of a multiprocessor, and
//! no spilled registers where a step waits for memory.
#![cfg(feature = "llvm")]

use std::path::{Path, PathBuf};
use std::process::Command;

use rwkvc::backends;
use rwkvc_abi::kernel::WALK;
use rwkvc_backend_api::{Arch, Target};
use rwkvc_frontend::generate::GenerateOptions;
use rwkvc_ir::Verified;
use rwkvc_ir::kernel::Kernel;
use rwkvc_passes::bf16_activations::Activations;
use rwkvc_passes::pipeline::Selection;
use rwkvc_passes::plan::Plan;
use rwkvc_tests::cases::planned_for_gpus;
use rwkvc_tests::{fixtures, random};

/// What is said of a kernel that keeps everything in registers.
const NO_SPILLS: &str = "0 bytes spill stores, 0 bytes spill loads";

/// The assembler: `PTXAS`, or what `scripts/setup` installed. Another version would take other registers.
fn assembler() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("PTXAS") {
        return Some(path.into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), |dir| root.join(dir));
    Some(target.join("tools/nvidia/bin/ptxas")).filter(|path| path.exists())
}

fn levels() -> Vec<(String, Target)> {
    let mut levels = Target::levels();
    levels.retain(|(_, target)| target.arch == Arch::Cuda);
    levels
}

/// The name of the file of machine code.
const OBJECT: &str = "kernels.cubin";

/// What `ptxas` says of each kernel, in the order of the kernels, and of the one that walks them. The machine code stays in
/// the folder.
fn assemble(ptxas: &Path, kernels: &[Verified<Kernel>], target: &Target, folder: &Path) -> Vec<String> {
    let (source, object) = (folder.join("kernels.ptx"), folder.join(OBJECT));
    let ptx = backends::all()[0]
        .lower(kernels, target)
        .unwrap_or_else(|e| panic!("{e}"));
    std::fs::write(&source, ptx.bytes()).expect("the code is written");
    let output = Command::new(ptxas)
        .arg(format!("-arch={}", target.cpu))
        .args(["-v", "-o"])
        .args([&object, &source])
        .output()
        .expect("ptxas runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{target}: {text}");
    let describe = |name: &str| {
        let start = format!("'{name}'");
        let mut lines = text.lines().skip_while(|line| !line.contains(&start));
        let spills = lines.find_map(|line| line.trim().split_once("stack frame, "));
        let used = lines.find_map(|line| line.split_once("Used "));
        let (Some((_, spills)), Some((_, used))) = (spills, used) else {
            panic!("{target}: nothing is said of {name}: {text}")
        };
        let shared = used
            .split(", ")
            .find(|part| part.ends_with("smem"))
            .unwrap_or("0 bytes smem");
        let registers = used.split(',').next().unwrap_or_default();
        format!("{name}: {registers}, {shared}, {spills}")
    };
    let names = kernels.iter().map(|kernel| kernel.name.as_str());
    names.chain([WALK]).map(describe).collect()
}

/// Machine code as text, by the program that is installed beside the assembler.
fn disassemble(ptxas: &Path, object: &Path) -> String {
    let mut command = Command::new(ptxas.with_file_name("nvdisasm"));
    let output = command.arg("-c").arg(object).output().expect("nvdisasm runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Each large matrix must be read by eight loads of a thread at once.
fn check_in_flight(plan: &Plan, code: &str) {
    let found = in_flight(code);
    let launches = &plan.programs[0].launches;
    let names = launches.iter().map(|l| plan.kernels[l.kernel].name.as_str());
    for name in names.filter(|name| name.contains("x2048") || name.contains("x8192")) {
        let loads = found.iter().find(|(found, _)| *found == name);
        let loads = loads.map(|(_, loads)| *loads);
        assert!(
            loads.is_some_and(|loads| loads >= 8),
            "{name}: {loads:?} loads in flight"
        );
    }
}

/// For each kernel, how many loads of 16 bytes it starts at most before it multiplies what one of them brought.
fn in_flight(code: &str) -> Vec<(&str, usize)> {
    let functions = code.split("//--------------------- .text.").skip(1);
    let of = |function: &str| {
        let mut most = [0; 2];
        for line in function.lines() {
            let [now, most] = &mut most;
            if line.contains("LDG.E.128") {
                *now += 1;
                *most = (*now).max(*most);
            } else if line.contains("FFMA") {
                *now = 0;
            }
        }
        most[1]
    };
    functions
        .map(|f| (f.split_whitespace().next().unwrap_or_default(), of(f)))
        .collect()
}

/// The kernels of the decode program must keep everything in registers.
fn check_decode(plan: &Plan, found: &[String]) {
    let launches = &plan.programs[0].launches;
    let step = launches.iter().map(|launch| &found[launch.kernel]);
    for line in step.chain(found.last()) {
        assert!(line.ends_with(NO_SPILLS), "{line}");
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a check that is left out must not go unseen")]
fn every_target_assembles_without_spills() {
    let Some(ptxas) = assembler() else {
        eprintln!("there is no ptxas: the code for GPUs was NOT assembled; scripts/setup installs it");
        return;
    };
    let demo = fixtures::open("demo.safetensors");
    let preset = GenerateOptions::preset("1.5b").expect("a preset");
    let large = fixtures::open_bytes(&random::file(&GenerateOptions {
        vocab: 512,
        n_layers: 2,
        ..preset
    }));
    for (name, target) in levels() {
        for (variant, passes) in [("fused", Selection::all()), ("unfused", Selection::unfused())] {
            let plan = planned_for_gpus(&demo, &target, &passes);
            let folder = tempfile::tempdir().expect("a folder");
            let found = assemble(&ptxas, &plan.kernels, &target, folder.path());
            check_decode(&plan, &found);
            if (name.as_str(), variant) == ("cuda:sm_90", "fused") {
                let plan = planned_for_gpus(&large, &target, &passes);
                let exact = assemble(&ptxas, &plan.kernels, &target, folder.path());
                check_decode(&plan, &exact);
                check_in_flight(&plan, &disassemble(&ptxas, &folder.path().join(OBJECT)));
                let passes = passes.with(Activations::BF16);
                let plan = planned_for_gpus(&large, &target, &passes);
                let mut narrow = assemble(&ptxas, &plan.kernels, &target, folder.path());
                narrow.retain(|line| !exact.contains(line));
                // Those of wide tiles have all registers that there are.
                let wide = narrow.iter().filter(|line| line.contains(", 49152 bytes smem"));
                assert!(wide.clone().count() > 0 && wide.clone().all(|line| line.ends_with(NO_SPILLS)));
                let text = format!(
                    "demo\n{}\n\n1.5B\n{}\n\n1.5B, others with bf16 activations\n{}",
                    found.join("\n"),
                    exact.join("\n"),
                    narrow.join("\n")
                );
                insta::assert_snapshot!("resources_of_sm_90", text);
            }
        }
    }
}
