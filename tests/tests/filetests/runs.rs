//! Files of `filetests/run`: planned for several machines, fused and unfused, and run by the evaluator of kernels and
//! every backend; what is for GPUs, on fibers. Kernels agree bit by bit with their evaluator; results are close to those of the graph in f64.

use std::collections::HashSet;

use rwkvc::backends;
use rwkvc_abi::ProgramKind;
use rwkvc_backend_api::{CpuFeatures, Features, GpuFeatures, Target};
use rwkvc_ir::graph::eval::eval;
use rwkvc_ir::graph::ops::OPS;
use rwkvc_ir::graph::{Dim, Graph, parse, verify};
use rwkvc_ir::kernel::Kernel;
use rwkvc_passes::fuel::Fuel;
use rwkvc_passes::pipeline::{Selection, run};
use rwkvc_passes::plan::{Plan, Shape, plan};
use rwkvc_tests::cases::fibers;
use rwkvc_tests::header::FileTest;
use rwkvc_tests::interpret::{Call, Evaluator, Interpreter, Machine};
use rwkvc_tests::native::Native;
use rwkvc_tests::tolerance::Tolerance;
use rwkvc_tests::values::Values;

use super::folder;

/// SSE or NEON, AVX2 and AVX-512, a mixture that no machine has, and GPUs.
const MACHINES: [Features; 5] = [
    cpu(4, 16),
    cpu(8, 16),
    cpu(16, 32),
    cpu(4, 32),
    Features::Gpu(GpuFeatures::PORTABLE),
];

const fn cpu(f32_lanes: u32, vector_registers: u32) -> Features {
    Features::Cpu(CpuFeatures::new(f32_lanes, vector_registers, f32_lanes == 8))
}

/// Tokens of each call of a run: one, around the tiles of every schedule, and one call after another.
const PREFILL: &[&[usize]] = &[&[1], &[2], &[3], &[5], &[7], &[33], &[3, 4]];
const DECODE: &[&[usize]] = &[&[1], &[1, 1, 1]];
/// States of each batch.
const BATCHES: &[&[usize]] = &[&[1], &[2], &[3], &[5], &[8], &[19]];

/// The most states of a batch.
const MAX_BATCH: usize = 19;

/// One way to run a graph.
struct Variant {
    name: String,
    plan: Plan,
    /// What is free in it.
    free: Free,
    /// Whether this machine may run its code.
    on_cpu: bool,
}

/// What of a graph is not fixed to 1 before it is planned.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Free {
    Nothing,
    Time,
    Batch,
}

impl Free {
    fn specialise(self, graph: Graph) -> Graph {
        match self {
            Free::Nothing => graph.specialise(Some(1), Some(1)),
            Free::Time => graph.specialise(Some(1), None),
            Free::Batch => graph.specialise(None, Some(1)),
        }
    }

    fn max_tokens(self) -> usize {
        match self {
            Free::Nothing => 1,
            Free::Time => 33,
            Free::Batch => MAX_BATCH,
        }
    }

    fn calls(self) -> &'static [&'static [usize]] {
        match self {
            Free::Nothing => DECODE,
            Free::Time => PREFILL,
            Free::Batch => BATCHES,
        }
    }
}

#[test]
fn results_are_those_of_the_graph() {
    let files = FileTest::read_all(&folder("run"), "rwir");
    // Code generation takes most of the time.
    let (even, odd): (Vec<_>, Vec<_>) = files.iter().enumerate().partition(|(i, _)| i % 2 == 0);
    std::thread::scope(|scope| {
        for half in [even, odd] {
            scope.spawn(move || half.into_iter().for_each(|(_, file)| check(file)));
        }
    });
}

fn check(file: &FileTest) {
    assert_eq!(file.test, "run", "{}", file.name);
    let tolerance = file
        .tolerance
        .unwrap_or_else(|| panic!("{}: no tolerance", file.name));
    for (name, text) in file.instances() {
        let graph = verify(parse(&text).unwrap_or_else(|e| panic!("{name}: {e} (lines after the header)")))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let canonical = graph.to_string();
        let again = parse(&canonical).expect("printed text parses");
        assert_eq!(again.to_string(), canonical, "{name}: round trip");

        let variants = variants(&name, &graph);
        let for_cpus: Vec<Vec<&Kernel>> = variants
            .iter()
            .filter(|v| v.on_cpu)
            .map(|v| v.plan.kernels.iter().map(|k| &**k).collect())
            .collect();
        let natives: Vec<(&str, Vec<Native>)> = backends::all()
            .into_iter()
            .map(|b| {
                let code = Native::compile(b, &for_cpus);
                (b.name(), code.unwrap_or_else(|e| panic!("{name}: {e}")))
            })
            .collect();
        for (i, variant) in variants.iter().enumerate() {
            let fibers = match variant.on_cpu {
                true => None,
                false => fibers(&variant.plan.kernels, &Target::parse("cuda").expect("a target")),
            };
            let natives = natives.iter().filter_map(|(name, all)| {
                let native: &dyn Machine = all.get(i)?;
                Some((*name, native))
            });
            let fibers = fibers.as_deref().map(|fibers| ("fibers", fibers));
            let machine = Agreeing {
                machines: natives.chain(fibers).collect(),
            };
            for calls in variant.free.calls() {
                compare(&graph, variant, calls, tolerance, &machine);
            }
        }
    }
}

fn variants(name: &str, graph: &Graph) -> Vec<Variant> {
    let mut variants = vec![];
    for free in [Free::Nothing, Free::Time, Free::Batch] {
        let graph = free.specialise(graph.clone());
        let mut seen = HashSet::new();
        for (fused, selection) in [("unfused", Selection::unfused()), ("fused", Selection::all())] {
            let mut fuel = Fuel::new(None);
            let graph = run(graph.clone(), &selection, &mut fuel, &mut |_, _| {})
                .unwrap_or_else(|e| panic!("{name}, {fused}: {e}"));
            if !seen.insert(graph.to_string()) {
                continue;
            }
            for features in MACHINES {
                let shape = Shape {
                    kind: ProgramKind::Score,
                    graph: &graph,
                    max_tokens: free.max_tokens(),
                };
                let name = format!("{name}, free {free:?}, {fused}, {features:?}");
                let plan = plan(&[shape], &features);
                if features == Features::Gpu(GpuFeatures::PORTABLE) && !graph.nodes_of("quantize").is_empty()
                {
                    plan.expect_err("GPUs have no schedules for quantised values");
                    continue;
                }
                let plan = plan.unwrap_or_else(|e| panic!("{name}: {e}"));
                variants.push(Variant {
                    name,
                    plan,
                    free,
                    on_cpu: matches!(features, Features::Cpu(_)),
                });
            }
        }
    }
    // Those with code come first.
    variants.sort_by_key(|v| !v.on_cpu);
    variants
}

fn compare(graph: &Graph, variant: &Variant, calls: &[usize], tolerance: Tolerance, machine: &dyn Machine) {
    let is_batch = variant.free == Free::Batch;
    let count: usize = calls.iter().sum();
    let (batch, time) = if is_batch { (count, 1) } else { (1, count) };
    let values = Values::random(graph, batch, time, count as u64);
    let fail = |e: String| -> ! { panic!("{}, calls of {calls:?} tokens: {e}", variant.name) };
    let expected = eval(graph, &values.bindings()).unwrap_or_else(|e| fail(e.to_string()));
    let states = if is_batch { MAX_BATCH } else { 1 };
    let mut run = Interpreter::of_batch(&variant.plan, &values.params, states).unwrap_or_else(|e| fail(e));
    let mut tokens = vec![];
    for (name, value) in &values.inputs {
        match name.as_str() {
            "tokens" => tokens = value.values().iter().map(|&t| t as u32).collect(),
            _ => run.set_state(name, value.values()),
        }
    }
    let mut rest = tokens.as_slice();
    for &n in calls {
        let (now, later) = rest.split_at(n);
        run.call(0, now, machine).unwrap_or_else(|e| fail(e));
        rest = later;
    }
    let outputs = run.outputs(0);
    for ((name, expected), (_, value)) in expected.iter().zip(graph.outputs()) {
        let Some((_, found)) = outputs.iter().find(|(n, _)| n == name) else {
            fail(format!("there is no output `{name}`"));
        };
        let mut expected = expected.values();
        if !is_batch && graph.ty(*value).shape.contains(&Dim::Time) {
            // The last call has its own tokens only.
            let last = calls.last().map_or(0, |n| expected.len() / time * n);
            expected = &expected[expected.len() - last..];
        }
        if let Err(e) = tolerance.check(found, expected) {
            fail(format!("`{name}`: {e}"));
        }
    }
}

/// The evaluator of kernels, and code that must leave the same bits.
struct Agreeing<'m> {
    machines: Vec<(&'static str, &'m dyn Machine)>,
}

impl Machine for Agreeing<'_> {
    fn launch(&self, call: &Call<'_>, buffers: &mut [Vec<u8>]) -> Result<(), String> {
        let before = buffers.to_vec();
        Evaluator.launch(call, buffers)?;
        for (name, machine) in &self.machines {
            let mut found = before.clone();
            machine.launch(call, &mut found)?;
            for ((found, expected), param) in found.iter().zip(&*buffers).zip(&call.kernel.params) {
                let size = param.dtype.size();
                if let Some(at) = (0..found.len()).find(|&i| found[i] != expected[i]) {
                    let i = at / size;
                    return Err(format!(
                        "{name}: element {i} of `{}` is {}, by the evaluator {}\n{}",
                        param.name,
                        param.dtype.read(found, i),
                        param.dtype.read(expected, i),
                        call.kernel
                    ));
                }
            }
        }
        Ok(())
    }
}

#[test]
fn every_op_has_a_filetest() {
    let mut seen = HashSet::new();
    for file in FileTest::read_all(&folder("run"), "rwir") {
        let (_, text) = &file.instances()[0];
        let graph = parse(text).unwrap_or_else(|e| panic!("{}: {e}", file.name));
        seen.extend(graph.topological().into_iter().map(|n| graph.op(n).mnemonic()));
    }
    for op in OPS {
        assert!(
            seen.contains(op.mnemonic),
            "no file of filetests/run has `{}`",
            op.mnemonic
        );
    }
}
