//! `rwkvc generate`

use anyhow::{Context, Result, bail};
use rwkvc_frontend::generate::{GenerateOptions, generate};
use rwkvc_ir::DType;
use rwkvc_runtime::PendingFile;
use serde_json::json;

use crate::cli::{Format, Generate};
use crate::{output, progress};

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
    let writing = || format!("writing `{}`", args.output.display());
    let mut file = PendingFile::create(&args.output).with_context(writing)?;
    let bar = progress::bar(0, "bytes");
    let mut total = 0;
    generate(&options, &mut file, &mut |done, all| {
        total = all;
        bar.set_length(all);
        bar.set_position(done);
    })
    .with_context(writing)?;
    file.finish().with_context(writing)?;
    bar.finish_and_clear();
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
