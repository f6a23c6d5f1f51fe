//! One file a command.

pub(crate) mod bench;
pub(crate) mod compile;
pub(crate) mod convert;
pub(crate) mod eval;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod logits;
pub(crate) mod opt;
pub(crate) mod passes;
pub(crate) mod run;
pub(crate) mod targets;
pub(crate) mod tokenize;
pub(crate) mod tune;
pub(crate) mod verify;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use rwkvc_runtime::tokenizer::Tokenizer;

use crate::cli::Command;

/// Does what a command says. The exit code of a command that ran is 0, or 1 if it found something wrong.
pub(crate) fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Compile(args) => compile::run(&args)?,
        Command::Run(args) => run::run(&args)?,
        Command::Logits(args) => logits::run(&args)?,
        Command::Verify(args) => return verify::run(&args),
        Command::Bench(args) => bench::run(&args)?,
        Command::Tune(args) => tune::run(&args)?,
        Command::Inspect(args) => inspect::run(&args)?,
        Command::Opt(args) => opt::run(&args)?,
        Command::Eval(args) => eval::run(&args)?,
        Command::Tokenize(args) => return tokenize::run(&args),
        Command::Targets(args) => targets::run(&args)?,
        Command::Passes(args) => passes::run(&args)?,
        Command::Convert(args) => convert::run(&args)?,
        Command::Generate(args) => generate::run(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The tokenizer of a vocabulary file.
fn vocabulary(path: &Path) -> Result<Tokenizer> {
    Tokenizer::from_file(path).with_context(|| format!("vocabulary `{}`", path.display()))
}

/// The tokenizer of a vocabulary file, or else of a model with so many rows.
fn tokenizer(vocab: Option<&Path>, rows: usize) -> Result<Tokenizer> {
    Ok(match vocab {
        Some(path) => vocabulary(path)?,
        None => Tokenizer::for_vocab(rows)?,
    })
}

/// Whether two paths lead to one file.
fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
