//! `rwkvc bench`: decode, prefill and batches of variants, interleaved, beside the memory bandwidth and the arithmetic peak
//! measured in the same run.

mod batch;
mod cpu;
mod gpu;
mod prefill;
mod report;
mod variant;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use rwkvc::{backends, load};
use rwkvc_backend_api::Arch;
use rwkvc_passes::bf16_activations::Activations;
use rwkvc_passes::pipeline::{STANDARD, Selection};
use rwkvc_passes::quantize::Formats;
use rwkvc_runtime::Artifact;

use crate::args::{Codegen, Device, GpuMode, Output, Threads};
use crate::options;

/// `rwkvc bench`
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The checkpoint, or a file that was compiled for GPUs
    model: PathBuf,
    /// What to compare: `fused`, `unfused`, `no-PASS` for all but one pass; `untuned` for schedules that were not measured,
    /// `stored`, `int8` or `int4` for other weights, `bf16-activations` for other activations. Default: fused,unfused
    #[arg(long, value_delimiter = ',', value_name = "VARIANTS")]
    compare: Option<Vec<String>>,
    /// Also switch off each fusion alone
    #[arg(long)]
    ablation: bool,
    /// Tokens of one decode sample
    #[arg(long, value_name = "N", default_value_t = 16)]
    decode: usize,
    /// Tokens of one prefill sample; 0 for none. Several lengths, separated by commas, on a GPU. Default: 128, on a GPU
    /// 512,2048
    #[arg(long, value_delimiter = ',', value_name = "N")]
    prefill: Option<Vec<usize>>,
    /// Also measure batches of so many states, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "SIZES")]
    batch: Vec<usize>,
    /// How steps are started, separated by commas (GPUs). Default: launches,graph,persistent
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MODES")]
    modes: Option<Vec<GpuMode>>,
    #[command(flatten)]
    device: Device,
    /// Samples of each variant, taken in turn
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    samples: u16,
    /// Leave out the table of kernels
    #[arg(long)]
    no_kernels: bool,
    #[command(flatten)]
    codegen: Codegen,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    out: Output,
}

/// The variant with schedules that were not measured.
const UNTUNED: &str = "untuned";

/// Runs the command.
pub(crate) fn run(args: &Bench) -> Result<()> {
    if args.decode == 0 {
        bail!("--decode is 0: there is nothing to measure");
    }
    if load::is_artifact(&args.model)? {
        let artifact =
            Artifact::open(&args.model).with_context(|| format!("opening `{}`", args.model.display()))?;
        if artifact.manifest().is_for_gpus() {
            return gpu::artifact(args, artifact);
        }
    } else if backends::target(&args.codegen.target)?.arch == Arch::Cuda {
        return gpu::checkpoint(args);
    }
    cpu::checkpoint(args)
}

/// The variants to compare, by name.
fn selections(args: &Bench, formats: Formats) -> Result<Vec<(String, Selection)>> {
    let base = options::selection(&args.codegen.passes)?.with(formats);
    let default = || ["fused", "unfused"].map(String::from).to_vec();
    let mut names = args.compare.clone().unwrap_or_else(default);
    let compared = names.clone();
    if args.ablation {
        let fusions = STANDARD
            .iter()
            .filter(|p| p.fuses)
            .map(|p| format!("no-{}", p.name));
        names.extend(fusions.filter(|n| !compared.contains(n)).collect::<Vec<_>>());
    }
    let selection = |name: &String| match (name.as_str(), name.strip_prefix("no-")) {
        ("fused" | UNTUNED, _) => Ok(base.clone()),
        ("unfused", _) => Ok(Selection::unfused().with_settings(base.settings().clone())),
        ("stored" | "int8" | "int4", _) => Ok(base.clone().with(name.parse::<Formats>()?)),
        ("bf16-activations", _) => Ok(base.clone().with(Activations::BF16)),
        (_, Some(pass)) => Ok(base.clone().without(&[pass])?),
        _ => bail!(
            "there is no variant `{name}`: expected fused, unfused, untuned, no-PASS, stored, int8, int4 or \
             bf16-activations"
        ),
    };
    names.iter().map(|n| Ok((n.clone(), selection(n)?))).collect()
}
