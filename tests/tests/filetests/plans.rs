//! The launches of the small model that comes with the project: what a change of a pass or schedule does to them shows
//! here.

use std::fmt::Write;
use std::path::Path;

use rwkvc::compile::{Options, graph};
use rwkvc::{backends, load};
use rwkvc_abi::ProgramKind;
use rwkvc_backend_api::{CpuFeatures, Features, GpuFeatures, Target};
use rwkvc_ir::kernel::Extent;
use rwkvc_passes::pipeline::Selection;
use rwkvc_passes::plan::{Plan, Shape, plan};

use super::with_snapshots;

#[test]
fn launches_of_the_demo() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo.safetensors");
    let model = load::open_checkpoint(&path).expect("the model opens");
    // AVX2, whatever this machine has.
    let cpu = Features::Cpu(CpuFeatures::new(8, 16, true));
    for (program, passes, features, name) in [
        (ProgramKind::Decode, Selection::all(), cpu, "decode-fused"),
        (ProgramKind::Decode, Selection::unfused(), cpu, "decode-unfused"),
        (ProgramKind::Prefill, Selection::all(), cpu, "prefill-fused"),
        (
            ProgramKind::Decode,
            Selection::all(),
            Features::Gpu(GpuFeatures::PORTABLE),
            "decode-gpu",
        ),
    ] {
        let mut options = Options {
            backend: backends::all()[0],
            target: Target::host(),
            passes,
            tuning: None,
            fuel: None,
            programs: vec![program],
            probes: false,
            after_pass: &mut |_, _| {},
        };
        let graph = graph(&model, program, &mut options).expect("a graph");
        let shape = Shape {
            kind: program,
            graph: &graph,
            max_tokens: if program == ProgramKind::Decode { 1 } else { 128 },
        };
        let plan = plan(&[shape], &features).expect("a plan");
        with_snapshots("plan", || insta::assert_snapshot!(name, text(&plan)));
    }
}

fn text(plan: &Plan) -> String {
    let program = &plan.programs[0];
    let mut text = format!(
        "{} launches, {} kernels, {} bytes of arena\n",
        program.launches.len(),
        plan.kernels.len(),
        plan.arena_bytes
    );
    for launch in &program.launches {
        let kernel = &plan.kernels[launch.kernel].name;
        // Writing to a string cannot fail.
        _ = writeln!(
            text,
            "{:<24} {kernel}, grid {}, {} bytes of weights",
            launch.label,
            extent(plan.kernels[launch.kernel].grid),
            launch.weight_bytes
        );
    }
    text
}

fn extent(extent: Extent) -> String {
    match (extent.fixed, extent.per_token) {
        (n, 0) => n.to_string(),
        (0, n) => format!("{n} T"),
        (n, m) => format!("{m} T + {n}"),
    }
}
