//! From a plan to what the runtime is told.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use rwkvc_abi::*;
use rwkvc_backend_api::{Features, Tuning};
use rwkvc_frontend::model::Model;
use rwkvc_passes::bf16_activations::Activations;
use rwkvc_passes::plan::Plan;
use rwkvc_passes::quantize::Formats;

use crate::compile::Options;

/// This program and its version.
pub(crate) const PRODUCER: &str = concat!("rwkvc ", env!("CARGO_PKG_VERSION"));

/// The manifest of a planned model.
pub(crate) fn manifest(model: &Model, plan: &Plan, options: &Options<'_>) -> Result<Manifest> {
    let decode = plan.program(ProgramKind::Decode).or(plan.programs.first());
    let launches = decode.into_iter().flat_map(|program| &program.launches);
    let bytes_per_token = launches.map(|launch| launch.weight_bytes).sum();
    let (threads, schedule) = match options.features()? {
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
        kernels: plan.kernel_infos(threads),
        weights: plan.weight_infos(),
        state: plan.state.clone(),
        arena_bytes: plan.arena_bytes,
        programs: plan.programs.clone(),
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
        dtype: match options.passes.setting::<Formats>() {
            formats if formats.are_stored() => summary.dtype.clone(),
            formats => formats.to_string(),
        },
        activations: options.passes.setting::<Activations>().to_string(),
        bytes_per_token,
        fingerprint: model.fingerprint(),
    }
}
