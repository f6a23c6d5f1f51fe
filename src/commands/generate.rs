//! `rwkvc generate`

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use rwkvc_frontend::generate::{GenerateOptions, Random};
use rwkvc_ir::DType;
use serde_json::json;

use super::convert::write_checkpoint;
use crate::args::{Format, Output};
use crate::output;

/// `rwkvc generate`
#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// Where to write: a .gguf file if it is named so, else a .safetensors file
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// A published size: 0.1b, 0.4b, 1.5b, 2.9b, 7.2b
    #[arg(long, default_value = "0.1b")]
    preset: String,
    /// Stored number format: bf16, f16 or f32
    #[arg(long, default_value = "bf16")]
    dtype: String,
    /// Equal seeds give equal files
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Blocks
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// Width of the residual stream
    #[arg(long, value_name = "N")]
    dim: Option<usize>,
    /// Channels of a head
    #[arg(long, value_name = "N")]
    head_size: Option<usize>,
    /// Hidden units of the channel mix
    #[arg(long, value_name = "N")]
    ffn: Option<usize>,
    /// Vocabulary rows
    #[arg(long, value_name = "N")]
    vocab: Option<usize>,
    /// Roughly this share of the channel mix's activations is zero
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    zeros: Option<f32>,
    #[command(flatten)]
    out: Output,
}

/// Runs the command.
pub(crate) fn run(args: &Generate) -> Result<()> {
    let Some(mut options) = GenerateOptions::preset(&args.preset) else {
        let known: Vec<&str> = GenerateOptions::presets().collect();
        bail!(
            "there is no preset `{}`; the presets are {}",
            args.preset,
            known.join(", ")
        );
    };
    options.dtype = args.dtype.parse::<DType>().map_err(anyhow::Error::msg)?;
    options.seed = args.seed;
    options.zero_share = args.zeros;
    if let Some(dim) = args.dim {
        options.width = dim;
        options.ffn = dim.saturating_mul(4);
    }
    options.n_layers = args.layers.unwrap_or(options.n_layers);
    options.head_size = args.head_size.unwrap_or(options.head_size);
    options.ffn = args.ffn.unwrap_or(options.ffn);
    options.vocab = args.vocab.unwrap_or(options.vocab);
    let random = Random::new(&options).with_context(|| format!("writing `{}`", args.output.display()))?;
    let total = write_checkpoint(&random, &args.output, None, None)?;
    match args.out.format {
        Format::Json => output::json(&json!({ "output": args.output, "weight_bytes": total })),
        Format::Text => {
            output::note(&format!(
                "{} ({:.1} MB of random weights)",
                args.output.display(),
                total as f64 / 1e6
            ));
            Ok(())
        }
    }
}
