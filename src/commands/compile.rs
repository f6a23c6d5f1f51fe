//! `rwkvc compile`

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use rwkvc::compile::PROGRAMS;
use serde_json::json;

use crate::args::{Codegen, Format, Output};
use crate::emit::Form;
use crate::{open, options, output, tuned};

/// `rwkvc compile`
#[derive(Debug, Args)]
pub(crate) struct Compile {
    /// The checkpoint
    model: PathBuf,
    /// Where to write; `-` for standard output (text stages)
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// What to write
    #[arg(long, value_parser = Form::parser(), default_value = "artifact")]
    emit: Form,
    #[command(flatten)]
    codegen: Codegen,
    #[command(flatten)]
    out: Output,
}

/// Runs the command.
pub(crate) fn run(args: &Compile) -> Result<()> {
    let start = Instant::now();
    let to_stdout = args.output.as_os_str() == "-";
    if to_stdout && !args.emit.is_text {
        bail!("`{}` is not text: give a file with -o", args.emit.name);
    }
    if super::same_file(&args.model, &args.output) {
        bail!(
            "`{}` is the checkpoint itself: give another file with -o",
            args.output.display()
        );
    }
    let model = open::checkpoint(&args.model)?;
    let mut after = options::printer(&args.codegen.passes)?;
    let mut options = options::compile_options(&args.codegen, &[], &mut after)?;
    options::choose_formats(&args.codegen, &model, &mut options);
    options::check_activations(options.passes.settings(), &model)?;
    options.programs = PROGRAMS.to_vec();
    tuned::tune(&args.codegen, &args.model, &model, &mut options)?;
    args.emit.check(&options)?;
    let bytes = args.emit.write(&model, &mut options, &args.output)?;
    match bytes {
        Some(text) if to_stdout => return output::print(&String::from_utf8_lossy(&text)),
        Some(bytes) => write_whole(&args.output, &bytes)?,
        None => {}
    }
    let written = std::fs::metadata(&args.output).map_or(0, |m| m.len());
    let seconds = start.elapsed().as_secs_f64();
    if args.out.format == Format::Json {
        return output::json(&json!({
            "output": args.output,
            "emit": args.emit.name,
            "bytes": written,
            "backend": options.backend.name(),
            "target": options.target.to_string(),
            "passes": options.passes.names(),
            "seconds": seconds,
        }));
    }
    output::note(&format!(
        "{} → {} ({:.1} MB, {} for {}) in {seconds:.2} s",
        args.model.display(),
        args.output.display(),
        written as f64 / 1e6,
        options.backend.name(),
        options.target,
    ));
    Ok(())
}

/// Writes a file that appears whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    rwkvc_runtime::write_whole(path, bytes).with_context(|| format!("writing `{}`", path.display()))
}
