//! `rwkvc tokenize`

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use rwkvc::load;
use rwkvc_runtime::tokenizer::Tokenizer;
use serde_json::json;

use crate::args::{Format, Output};
use crate::{commands, output};

/// `rwkvc tokenize`
#[derive(Debug, Args)]
pub(crate) struct Tokenize {
    /// A checkpoint or an artifact, whose vocabulary size chooses the vocabulary; `-` reads the text from standard input
    #[arg(value_name = "MODEL | -", num_args = 0..=2)]
    inputs: Vec<PathBuf>,
    /// The World vocabulary
    #[arg(long)]
    world: bool,
    /// A vocabulary file (lines of `id repr length`)
    #[arg(long, value_name = "FILE")]
    vocab: Option<PathBuf>,
    /// The text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    text: Option<String>,
    /// A file with the text
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Token ids separated by commas, to turn into text
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    decode: Option<Vec<u32>>,
    #[command(flatten)]
    out: Output,
}

/// Runs the command.
pub(crate) fn run(args: &Tokenize) -> Result<ExitCode> {
    // A lone `-` among the positional arguments stands for standard input.
    let is_dash = |p: &&Path| p.as_os_str() == "-";
    let paths: Vec<&Path> = args.inputs.iter().map(|p| p.as_path()).collect();
    let stdin = paths.iter().any(is_dash);
    let model = paths.iter().copied().find(|p| !is_dash(p));
    let vocabularies =
        usize::from(args.world) + usize::from(args.vocab.is_some()) + usize::from(model.is_some());
    let texts = usize::from(args.text.is_some())
        + usize::from(args.file.is_some())
        + usize::from(stdin)
        + usize::from(args.decode.is_some());
    if vocabularies != 1 || texts != 1 {
        output::note(
            "error: give one vocabulary (MODEL, --world or --vocab FILE) and one input \
             (--text TEXT, --file F, - or --decode IDS)",
        );
        return Ok(ExitCode::from(2));
    }
    let tokenizer = match (model, &args.vocab) {
        (Some(path), _) => commands::tokenizer(None, vocabulary_rows(path)?)?,
        (None, Some(path)) => commands::vocabulary(path)?,
        (None, None) => Tokenizer::world(),
    };
    if let Some(ids) = &args.decode {
        let text = String::from_utf8_lossy(&tokenizer.decode(ids)?).into_owned();
        match args.out.format {
            Format::Json => output::json(&json!({ "tokens": ids, "text": text }))?,
            Format::Text => output::print(&text)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let text = if let Some(text) = &args.text {
        text.clone().into_bytes()
    } else if let Some(path) = &args.file {
        std::fs::read(path).with_context(|| format!("reading `{}`", path.display()))?
    } else {
        let mut text = vec![];
        std::io::stdin()
            .lock()
            .read_to_end(&mut text)
            .context("reading standard input")?;
        text
    };
    let tokens = tokenizer.encode_bytes(&text)?;
    match args.out.format {
        Format::Json => output::json(&json!({ "tokens": tokens }))?,
        Format::Text => {
            let ids: Vec<String> = tokens.iter().map(u32::to_string).collect();
            output::print(&(ids.join(",") + "\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The vocabulary size of a checkpoint or artifact.
fn vocabulary_rows(path: &Path) -> Result<usize> {
    if load::is_artifact(path)? {
        Ok(rwkvc_runtime::Artifact::open(path)?.manifest().model.vocab)
    } else {
        Ok(load::open_checkpoint(path)?.config().vocab)
    }
}
