//! From a plan to what the runtime is told.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use rwkvc_abi::*;
use rwkvc_backend_api::{Features, Tuning};
use rwkvc_frontend::model::Model;
use rwkvc_ir::kernel::{self, Extent, Kernel};
use rwkvc_passes::plan::{self, Place, Plan};

use crate::compile::Options;

/// This program and its version.
pub(crate) const PRODUCER: &str = concat!("rwkvc ", env!("CARGO_PKG_VERSION"));

/// The manifest of a planned model.
pub(crate) fn manifest(model: &Model, plan: &Plan, options: &Options<'_>) -> Result<Manifest> {
    let programs = &options.programs;
    let decode = programs
        .iter()
        .position(|&p| p == ProgramKind::Decode)
        .unwrap_or(0);
    let bytes_per_token = plan.programs[decode]
        .launches
        .iter()
        .map(|l| l.weight_bytes)
        .sum();
    let (threads, schedule) = match options.features() {
        Features::Cpu(features) => (0, schedule(&features.tuning)),
        Features::Gpu(features) => (features.threads, BTreeMap::new()),
    };
    let mut manifest = Manifest {
        format: FORMAT_VERSION,
        producer: PRODUCER.into(),
        model: model_info(model, options, bytes_per_token),
        target: TargetInfo {
            arch: options.target.arch.name().into(),
            extensions: options.target.extensions.clone(),
        },
        backend: options.backend.name().into(),
        passes: options.passes.names().iter().map(|n| n.to_string()).collect(),
        schedule,
        kernels: plan.kernels.iter().map(|k| kernel_info(k, threads)).collect(),
        weights: plan.weights.iter().map(weight_info).collect(),
        state: plan.state.iter().map(state_slot).collect(),
        arena_bytes: plan.arena_bytes,
        // What is planned beside the shapes of the step comes after them.
        programs: programs
            .iter()
            .copied()
            .chain([ProgramKind::Sample])
            .zip(&plan.programs)
            .map(|(kind, p)| program(kind, p))
            .collect(),
    };
    manifest.place_weights().context("placing the weights")?;
    Ok(manifest)
}

fn schedule(tuning: &Tuning) -> BTreeMap<String, String> {
    tuning
        .fields()
        .map(|(name, value)| (name.into(), value))
        .collect()
}

fn model_info(model: &Model, options: &Options<'_>, bytes_per_token: u64) -> ModelInfo {
    let config = model.config();
    let summary = model.summary();
    ModelInfo {
        name: model.name().into(),
        n_layers: config.n_layers,
        width: config.width,
        head_size: config.head_size,
        vocab: config.vocab,
        ffn: config.ffn,
        parameters: summary.parameters,
        dtype: match options.passes.formats() {
            formats if formats.are_stored() => summary.dtype.clone(),
            formats => formats.to_string(),
        },
        activations: options.passes.activations().to_string(),
        bytes_per_token,
        fingerprint: model.fingerprint(),
    }
}

fn size(extent: Extent, factor: u64) -> Size {
    // Extents of a verified kernel are not negative.
    Size {
        fixed: extent.fixed.unsigned_abs() * factor,
        per_token: extent.per_token.unsigned_abs() * factor,
    }
}

fn kernel_info(kernel: &Kernel, threads: u32) -> KernelInfo {
    let access = |a| match a {
        kernel::Access::Read => Access::Read,
        kernel::Access::Write => Access::Write,
        kernel::Access::ReadWrite => Access::ReadWrite,
    };
    let param = |p: &kernel::Param| ParamInfo {
        bytes: size(p.len, p.dtype.size() as u64),
        access: access(p.access),
    };
    KernelInfo {
        symbol: kernel.name.clone(),
        grid: size(kernel.grid, 1),
        threads,
        params: kernel.params.iter().map(param).collect(),
    }
}

fn weight_info(weight: &plan::Weight) -> WeightInfo {
    let (name, dtype) = (weight.name.clone(), weight.dtype.name().into());
    WeightInfo {
        name,
        dtype,
        shape: weight.shape.clone(),
        offset: 0,
        bytes: 0,
    }
}

fn state_slot(slot: &plan::State) -> StateSlot {
    StateSlot {
        name: slot.name.clone(),
        shape: slot.shape.clone(),
        offset: slot.offset,
        init: slot.init,
    }
}

fn program(kind: ProgramKind, program: &plan::Program) -> Program {
    let probe = |(name, offset, elements): &(String, u64, Extent)| Probe {
        name: name.clone(),
        offset: *offset,
        elements: size(*elements, 1),
    };
    let launch = |launch: &plan::Launch| Launch {
        kernel: launch.kernel,
        args: launch.args.iter().map(arg).collect(),
        weight_bytes: launch.weight_bytes,
        skips_zeros: launch.skips_zeros,
        label: launch.label.clone(),
    };
    Program {
        kind,
        max_tokens: program.max_tokens,
        probes: program.probes.iter().map(probe).collect(),
        launches: program.launches.iter().map(launch).collect(),
    }
}

fn arg(place: &Place) -> Arg {
    match *place {
        Place::Weight(index) => Arg::Weight(index),
        Place::State(offset) => Arg::State(offset),
        Place::Arena(offset) => Arg::Arena(offset),
        Place::Tokens => Arg::Tokens,
        Place::Logits => Arg::Logits,
        Place::Sampler => Arg::Sampler,
        Place::Counts => Arg::Counts,
    }
}
