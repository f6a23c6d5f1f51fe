//! `rwkvc generate`

use anyhow::{Context, Result, bail};
use rwkvc_frontend::generate::{GenerateOptions, Random};
use rwkvc_ir::DType;
use serde_json::json;

use super::convert::write_checkpoint;
use crate::cli::{Format, Generate};
use crate::output;

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
