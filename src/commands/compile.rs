//! `rwkvc compile`

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rwkvc::compile::{Options, PROGRAMS, compile, graph, kernels, plan_model};
use rwkvc::weights::weights;
use rwkvc_abi::ProgramKind;
use rwkvc_backend_api::{Arch, Listing};
use rwkvc_frontend::model::Model;
use rwkvc_ir::kernel::Kernel;
use rwkvc_runtime::ArtifactWriter;
use serde_json::json;

use crate::cli::{Compile, Emit, Format};
use crate::sass::sass;
use crate::{options, output, progress};

/// Runs the command.
pub(crate) fn run(args: &Compile) -> Result<()> {
    let start = Instant::now();
    let to_stdout = args.output.as_os_str() == "-";
    if to_stdout && matches!(args.emit, Emit::Artifact | Emit::Obj) {
        bail!("an artifact or object is not text: give a file with -o");
    }
    if super::same_file(&args.model, &args.output) {
        bail!(
            "`{}` is the checkpoint itself: give another file with -o",
            args.output.display()
        );
    }
    let model = options::checkpoint(&args.model)?;
    let mut after = options::printer(&args.codegen.passes)?;
    let mut options = options::compile_options(&args.codegen, &[], &mut after)?;
    options::choose_formats(&args.codegen, &model, &mut options);
    options::check_activations(options.passes.activations(), &model)?;
    options.programs = PROGRAMS.to_vec();
    options::tune(&args.codegen, &args.model, &model, &mut options)?;
    match (options.target.arch, args.emit) {
        (Arch::Cuda, Emit::Obj | Emit::Asm) => {
            bail!("code for {} is PTX: give --emit ptx or sass", options.target)
        }
        (Arch::X86_64 | Arch::Aarch64, Emit::Ptx | Emit::Sass) => {
            bail!("code for {} is no PTX: give --emit obj or asm", options.target)
        }
        _ => {}
    }
    let bytes = match args.emit {
        Emit::Artifact => {
            artifact(&model, &mut options, &args.output)?;
            None
        }
        emit => Some(stage(&model, &mut options, emit)?),
    };
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
            "emit": format!("{:?}", args.emit).to_lowercase(),
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

/// A stage on the way to the artifact.
fn stage(model: &Model, options: &mut Options<'_>, emit: Emit) -> Result<Vec<u8>> {
    if matches!(emit, Emit::Graph | Emit::Dot) {
        let graph = graph(model, ProgramKind::Decode, options)?;
        let text = if emit == Emit::Dot {
            graph.to_dot()
        } else {
            graph.to_string()
        };
        return Ok(text.into_bytes());
    }
    let kernels = kernels(&plan_model(model, options)?);
    let listing = |l| {
        Ok(options
            .backend
            .listing(&kernels, &options.target, l)?
            .into_bytes())
    };
    match emit {
        Emit::Obj => Ok(options.backend.lower(&kernels, &options.target)?),
        Emit::Asm | Emit::Ptx => listing(Listing::Asm),
        Emit::Sass => sass(&listing(Listing::Asm)?, &options.target.cpu),
        Emit::Llvm => listing(Listing::Llvm),
        Emit::Clif => listing(Listing::Clif),
        _ => Ok(kernels
            .iter()
            .map(Kernel::to_string)
            .collect::<Vec<_>>()
            .join("\n")
            .into_bytes()),
    }
}

/// Writes the artifact, weight after weight.
fn artifact(model: &Arc<Model>, options: &mut Options<'_>, path: &Path) -> Result<()> {
    let compiled = compile(model, options)?;
    let total: u64 = compiled.manifest.weights.iter().map(|w| w.bytes).sum();
    let mut writer = ArtifactWriter::create(path, compiled.manifest, &compiled.object)
        .with_context(|| format!("writing `{}`", path.display()))?;
    let bar = progress::bar(total, "bytes of weights");
    for weight in &weights(model, &compiled.plan)? {
        let bytes = weight.bytes().context("a weight is gone")?;
        writer.weight(bytes)?;
        bar.inc(bytes.len() as u64);
    }
    bar.finish_and_clear();
    Ok(writer.finish()?)
}

/// Writes a file that appears whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    rwkvc_runtime::write_whole(path, bytes).with_context(|| format!("writing `{}`", path.display()))
}
