//! The line from a checkpoint to code, as one function.

use anyhow::{Context, Result, bail};
use rwkvc_abi::{Manifest, ProgramKind};
use rwkvc_backend_api::{Backend, CpuFeatures, Features, Module, Target, Tuning, Unsupported};
use rwkvc_frontend::build::{Logits, build, initial_state};
use rwkvc_frontend::model::Model;
use rwkvc_ir::graph::{Graph, Verified};
use rwkvc_passes::fuel::Fuel;
use rwkvc_passes::pipeline::{self, Selection};
use rwkvc_passes::plan::{Plan, Shape, plan};

use crate::manifest::manifest;

/// The most states that a batch has on a GPU.
const MOST_STATES: usize = 256;

/// What to compile for, and how.
pub struct Options<'o> {
    /// Code generator.
    pub backend: &'o dyn Backend,
    /// Machine.
    pub target: Target,
    /// Passes.
    pub passes: Selection,
    /// What schedules choose on a CPU; without it, what is good everywhere.
    pub tuning: Option<Tuning>,
    /// Rewrites allowed in each graph.
    pub fuel: Option<u64>,
    /// The shapes of the step. Code for GPUs has a program that chooses tokens besides.
    pub programs: Vec<ProgramKind>,
    /// Whether the residual stream after each block is an output too.
    pub probes: bool,
    /// Sees the decode graph after each pass.
    pub after_pass: &'o mut dyn FnMut(&'static str, &Graph),
}

impl Options<'_> {
    /// What the schedules may use.
    ///
    /// # Errors
    /// If the backend has no code for the target.
    pub fn features(&self) -> Result<Features, Unsupported> {
        Ok(match (self.backend.supports(&self.target)?, self.tuning) {
            (Features::Cpu(features), Some(tuning)) => Features::Cpu(CpuFeatures { tuning, ..features }),
            (features, _) => features,
        })
    }
}

/// A compiled model: everything but the weights that stay in the checkpoint.
pub struct Compiled {
    /// What the runtime needs to know.
    pub manifest: Manifest,
    /// Kernels, launches and buffers.
    pub plan: Plan,
    /// The machine code.
    pub module: Module,
}

/// Checkpoint → graph → passes → plan → object.
///
/// # Errors
/// If the backend does not support the target, a schedule or the backend cannot express an op, or a weight is not there.
pub fn compile(model: &Model, options: &mut Options<'_>) -> Result<Compiled> {
    let plan = plan_model(model, options)?;
    lower(model, plan, options)
}

/// Checkpoint → graph → passes → plan.
///
/// # Errors
/// If the backend does not support the target, or an op has no schedule there.
pub fn plan_model(model: &Model, options: &mut Options<'_>) -> Result<Plan> {
    let programs = options.programs.clone();
    let graphs = programs
        .iter()
        .map(|&p| graph(model, p, options))
        .collect::<Result<Vec<_>>>()?;
    plan_graphs(model, &graphs, options)
}

/// Graphs → plan, one graph for each of the programs of the options.
///
/// # Errors
/// If the backend does not support the target, or an op has no schedule there.
pub fn plan_graphs(model: &Model, graphs: &[Verified<Graph>], options: &Options<'_>) -> Result<Plan> {
    let features = options.features()?;
    let shapes: Vec<Shape<'_>> = options
        .programs
        .iter()
        .zip(graphs)
        .map(|(&kind, graph)| Shape {
            kind,
            graph,
            max_tokens: max_tokens(kind, &features),
        })
        .collect();
    let mut plan = plan(&shapes, &features)?;
    for i in 0..plan.state.len() {
        if let Some((weight, value)) = initial_state(model, &plan.state[i].name)? {
            plan.set_initial(i, weight, value);
        }
    }
    if let Features::Gpu(gpu) = features {
        plan.add_sampler(model.config().vocab, MOST_STATES, &gpu)?;
    }
    Ok(plan)
}

/// Plan → object.
///
/// # Errors
/// If the backend refuses a kernel.
pub fn lower(model: &Model, plan: Plan, options: &Options<'_>) -> Result<Compiled> {
    let module = options.backend.lower(&plan.kernels, &options.target)?;
    let manifest = manifest(model, &plan, options)?;
    Ok(Compiled {
        manifest,
        plan,
        module,
    })
}

/// The optimised graph of one shape of the step.
///
/// # Errors
/// If a pass leaves a graph that does not verify; and for [`ProgramKind::Sample`], which has no graph.
pub fn graph(model: &Model, kind: ProgramKind, options: &mut Options<'_>) -> Result<Verified<Graph>> {
    let logits = if kind == ProgramKind::Prefill {
        Logits::Last
    } else {
        Logits::All
    };
    let graph = build(model, logits, options.probes).context("building the graph")?;
    let graph = match kind {
        ProgramKind::Decode => graph.specialise(Some(1), Some(1)),
        ProgramKind::Prefill | ProgramKind::Score => graph.specialise(Some(1), None),
        ProgramKind::Batch => graph.specialise(None, Some(1)),
        ProgramKind::Sample => bail!("choosing tokens has no graph"),
    };
    let mut fuel = Fuel::new(options.fuel);
    let mut ignore = |_: &'static str, _: &Graph| {};
    let after = if kind == ProgramKind::Decode {
        &mut *options.after_pass
    } else {
        &mut ignore
    };
    Ok(pipeline::run(graph, &options.passes, &mut fuel, after)?)
}

/// The shapes of the step that an artifact has.
pub const PROGRAMS: [ProgramKind; 4] = [
    ProgramKind::Decode,
    ProgramKind::Prefill,
    ProgramKind::Score,
    ProgramKind::Batch,
];

/// Tokens of one call: enough to use each weight often, few enough for the activations to stay in the caches.
fn max_tokens(kind: ProgramKind, features: &Features) -> usize {
    match (kind, features) {
        (ProgramKind::Decode, _) => 1,
        (ProgramKind::Prefill, Features::Cpu(cpu)) => cpu.tuning.chunk as usize,
        // A GPU needs as many rows to keep all its multiprocessors at work.
        (ProgramKind::Prefill, Features::Gpu(_)) => 2048,
        // A row of logits for each token: at 65,536 words this is 8 MiB.
        (ProgramKind::Score, _) => 32,
        // States of the whole batch are kept: on a CPU more members hardly make any of them faster.
        (ProgramKind::Batch, Features::Cpu(_)) => 64,
        (ProgramKind::Batch, Features::Gpu(_)) | (ProgramKind::Sample, _) => MOST_STATES,
    }
}
