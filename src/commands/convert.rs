//! `rwkvc convert`

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use rwkvc_frontend::checkpoint::Storage;
use rwkvc_frontend::write::{Metadata, OutputLayout, Source, WEIGHTS, write};
use rwkvc_runtime::PendingFile;
use rwkvc_runtime::tokenizer::Tokenizer;
use serde_json::json;

use super::vocabulary;
use crate::args::{Format, Output};
use crate::{open, output, progress};

/// `rwkvc convert`
#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// The checkpoint
    input: PathBuf,
    /// Where to write: a .safetensors file with official names, or a .gguf file for llama.cpp
    output: PathBuf,
    /// Number format of the matrices: f32, f16, bf16 or, in a .gguf, q8_0. Default: as they are, f16 if they are
    /// quantised
    #[arg(long, value_name = "FORMAT")]
    weights: Option<String>,
    /// Vocabulary file (lines of `id repr length`) for a .gguf. Default: by the model's vocabulary size
    #[arg(long, value_name = "FILE")]
    vocab: Option<PathBuf>,
    #[command(flatten)]
    out: Output,
}

/// Runs the command.
pub(crate) fn run(args: &Convert) -> Result<()> {
    if !is_gguf(&args.output) && args.output.extension() != Some(OsStr::new("safetensors")) {
        bail!(
            "`{}` names no format, expected a name that ends in .safetensors or .gguf",
            args.output.display()
        );
    }
    if args.vocab.is_some() && !is_gguf(&args.output) {
        bail!("--vocab goes with a .gguf file: a .safetensors file has no vocabulary");
    }
    let weights = args.weights.as_deref().map(format).transpose()?;
    let model = open::checkpoint(&args.input)?;
    let total = write_checkpoint(&*model, &args.output, weights, args.vocab.as_deref())?;
    match args.out.format {
        Format::Json => output::json(&json!({ "output": args.output, "weight_bytes": total })),
        Format::Text => {
            output::note(&format!(
                "{} → {} ({:.1} MB)",
                args.input.display(),
                args.output.display(),
                total as f64 / 1e6
            ));
            Ok(())
        }
    }
}

/// A format of weights by its name.
fn format(name: &str) -> Result<Storage> {
    let Some(storage) = WEIGHTS.into_iter().find(|s| s.name() == name) else {
        let known: Vec<&str> = WEIGHTS.iter().map(|s| s.name()).collect();
        bail!(
            "there is no format `{name}` to write weights in; the formats are {}",
            known.join(", ")
        );
    };
    Ok(storage)
}

/// Whether a file is to be GGUF, by its name.
fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}

/// Channels of the heads that llama.cpp computes right on every machine.
const HEAD_SIZE: usize = 64;

/// Writes a checkpoint in the layout that the name of the file says, GGUF or else safetensors; the bytes of its tensors.
pub(super) fn write_checkpoint(
    source: &dyn Source,
    path: &Path,
    weights: Option<Storage>,
    vocab: Option<&Path>,
) -> Result<u64> {
    let writing = || format!("writing `{}`", path.display());
    let config = source.config();
    let tokenizer = if is_gguf(path) {
        tokens(config.vocab, vocab)?
    } else {
        None
    };
    let token = |id: u32| tokenizer.as_ref().and_then(|t| t.token(id));
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let layout = if is_gguf(path) {
        OutputLayout::Gguf(Metadata {
            name: &name,
            token: tokenizer.is_some().then_some(&token),
        })
    } else {
        OutputLayout::Safetensors
    };
    let mut file = PendingFile::create(path).with_context(writing)?;
    let bar = progress::bar(0, "bytes");
    let mut total = 0;
    write(source, &layout, weights, &mut file, &mut |done, all| {
        total = all;
        bar.set_length(all);
        bar.set_position(done);
    })
    .with_context(writing)?;
    file.finish().with_context(writing)?;
    bar.finish_and_clear();
    if is_gguf(path) && tokenizer.is_none() {
        output::note(&format!(
            "`{}` has no vocabulary: there is none for a model of {} rows",
            path.display(),
            config.vocab
        ));
    }
    if is_gguf(path) && config.head_size != HEAD_SIZE {
        output::note(&format!(
            "`{}` has heads of {} channels; llama.cpp is made for {HEAD_SIZE}",
            path.display(),
            config.head_size
        ));
    }
    Ok(total)
}

/// The vocabulary to write into a file: the given one, or that of models with so many rows if there is one.
fn tokens(rows: usize, vocab: Option<&Path>) -> Result<Option<Tokenizer>> {
    let Some(path) = vocab else {
        return Ok(Tokenizer::for_vocab(rows).ok());
    };
    let tokenizer = vocabulary(path)?;
    let highest = tokenizer.highest_id();
    if highest as usize >= rows {
        bail!(
            "vocabulary `{}` has a token {highest}, but the model has {rows} rows",
            path.display()
        );
    }
    Ok(Some(tokenizer))
}
