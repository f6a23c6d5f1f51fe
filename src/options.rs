//! Options that several commands share.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rwkvc::backends;
use rwkvc::compile::Options;
use rwkvc::load;
use rwkvc::reference::Reference;
use rwkvc::tune::Choice;
use rwkvc::tune::record::{self, RecordError, Subject};
use rwkvc_abi::ProgramKind;
use rwkvc_backend_api::Arch;
use rwkvc_frontend::model::Model;
use rwkvc_ir::graph::Graph;
use rwkvc_passes::narrow_activations::Activations;
use rwkvc_passes::pipeline::{STANDARD, Selection};
use rwkvc_passes::quantize::Formats;
use rwkvc_runtime::gpu::{CudaDriver, GpuModel, Mode};
use rwkvc_runtime::{Artifact, Session, WorkspaceOptions};

use crate::args::{Codegen, Device, GpuMode, OnGpu, PassOptions, Threads};
use crate::output;

/// Opens an artifact, or compiles a checkpoint with the programs that are asked for.
pub(crate) fn open(
    path: &Path,
    codegen: &Codegen,
    threads: Threads,
    gpu: OnGpu,
    programs: &[ProgramKind],
) -> Result<Session> {
    if load::is_artifact(path)? {
        if let Some(option) = codegen_option(codegen) {
            bail!(
                "`{}` is compiled already: {option} goes with a checkpoint",
                path.display()
            );
        }
        let opening = || format!("opening `{}`", path.display());
        let artifact = Artifact::open(path).with_context(opening)?;
        let has = |program: &&ProgramKind| artifact.manifest().program(**program).is_some();
        if let Some(missing) = programs.iter().find(|p| !has(p)) {
            bail!("`{}` was compiled without its {missing} program", path.display());
        }
        if artifact.manifest().is_for_gpus() {
            refuse_on_gpus(threads)?;
            refuse_tuning(codegen, "schedules for GPUs are not tuned")?;
            let model = GpuModel::from_artifact(artifact, driver(gpu.device)?).with_context(opening)?;
            return Ok(Session::on(model.session(mode(gpu.gpu_mode))?));
        }
        refuse_on_processors(gpu)?;
        let tuned = tuned(codegen.tuning.as_deref(), path, || {
            Subject::compiled(artifact.manifest())
        })?;
        let model = rwkvc_runtime::Model::from_artifact(artifact).with_context(opening)?;
        load::use_huge_pages(&model);
        return Ok(Session::new(&model, &workspace(threads, tuned))?);
    }
    let model = checkpoint(path)?;
    if codegen.backend.as_deref() == Some(backends::EVALUATOR) {
        let means_something = ["--backend", "--weights", "--activations"];
        let mut given = codegen_options(codegen);
        if let Some(option) = given.find(|option| !means_something.contains(option)) {
            bail!("the evaluator generates no code: {option} goes with another --backend");
        }
        refuse_on_processors(gpu)?;
        refuse_tuning(codegen, "the evaluator generates no code")?;
        let formats = codegen.passes.weights.clone().unwrap_or_default();
        let activations = codegen.passes.activations.unwrap_or_default();
        check_activations(activations, &model)?;
        return Ok(Session::on(Reference::new(model, &formats, activations)?));
    }
    let mut after = printer(&codegen.passes)?;
    let mut options = compile_options(codegen, programs, &mut after)?;
    choose_formats(codegen, &model, &mut options);
    check_activations(options.passes.activations(), &model)?;
    if options.target.arch == Arch::Cuda {
        refuse_on_gpus(threads)?;
        // First, so that nothing is compiled where nothing can run.
        let driver = driver(gpu.device)?;
        let model = load::load_on_gpu(&model, &mut options, driver)?;
        return Ok(Session::on(model.session(mode(gpu.gpu_mode))?));
    }
    refuse_on_processors(gpu)?;
    let tuned = tune(codegen, path, &model, &mut options)?;
    let model = load::load(&model, &mut options)?;
    load::use_huge_pages(&model);
    Ok(Session::new(&model, &workspace(threads, tuned))?)
}

/// Opens a checkpoint of any format and says what there is to know of it.
pub(crate) fn checkpoint(path: &Path) -> Result<Arc<Model>> {
    let model = load::open_checkpoint(path)?;
    for note in model.notes() {
        output::note(&format!("`{}`: {note}", path.display()));
    }
    Ok(model)
}

/// The driver of the GPU that is asked for.
pub(crate) fn driver(device: Device) -> Result<Arc<CudaDriver>> {
    Ok(Arc::new(CudaDriver::open(device.device.unwrap_or(0))?))
}

/// How steps are started. A graph needs nothing that some devices lack, and little time of this machine's.
pub(crate) fn mode(mode: Option<GpuMode>) -> Mode {
    match mode.unwrap_or(GpuMode::Auto) {
        GpuMode::Launches => Mode::Launches,
        GpuMode::Graph | GpuMode::Auto => Mode::Graph,
        GpuMode::Persistent => Mode::Persistent,
    }
}

/// The modes that are asked for, or all.
pub(crate) fn modes(modes: Option<&[GpuMode]>) -> Vec<Mode> {
    match modes {
        Some(modes) => modes.iter().map(|&m| mode(Some(m))).collect(),
        None => vec![Mode::Launches, Mode::Graph, Mode::Persistent],
    }
}

/// Options for GPUs say nothing about a processor.
fn refuse_on_processors(gpu: OnGpu) -> Result<()> {
    let given = [
        ("--gpu-mode", gpu.gpu_mode.is_some()),
        ("--device", gpu.device.device.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((option, _)) => bail!(
            "{option} is for GPUs, and this model runs on a processor: give --target cuda, or a file that was compiled with it"
        ),
        None => Ok(()),
    }
}

/// Threads are those of a processor.
fn refuse_on_gpus(threads: Threads) -> Result<()> {
    if threads.threads.is_some() {
        bail!("--threads is for processors, and this model runs on a GPU");
    }
    Ok(())
}

/// Rounded activations are multiplied with bf16 matrices only.
pub(crate) fn check_activations(activations: Activations, model: &Model) -> Result<()> {
    let formats = model.summary().parameters_by_dtype;
    if activations == Activations::BF16 && !formats.iter().any(|(name, _)| name == activations.name()) {
        let formats: Vec<&str> = formats.iter().map(|(name, _)| name.as_str()).collect();
        bail!(
            "--activations bf16 goes with bf16 matrices, and those of this model are {}",
            formats.join(" and ")
        );
    }
    Ok(())
}

/// Processors multiply in f32.
pub(crate) fn refuse_narrow_on_processors(passes: &Selection) -> Result<()> {
    if passes.activations() != Activations::F32 {
        bail!(
            "--activations {} is for the matrix units of GPUs: processors multiply in f32",
            passes.activations()
        );
    }
    Ok(())
}

/// An option that is given and says how to compile.
pub(crate) fn codegen_option(codegen: &Codegen) -> Option<&'static str> {
    codegen_options(codegen).next()
}

/// The options that are given and say how to compile.
fn codegen_options(codegen: &Codegen) -> impl Iterator<Item = &'static str> {
    let passes = &codegen.passes;
    let given = [
        ("--passes", passes.passes.is_some()),
        ("--no-pass", !passes.no_pass.is_empty()),
        ("--print-after", passes.print_after.is_some()),
        ("--fuel", passes.fuel.is_some()),
        ("--weights", passes.weights.is_some()),
        ("--activations", passes.activations.is_some()),
        ("--target", codegen.target != "cpu"),
        ("--backend", codegen.backend.is_some()),
    ];
    given
        .into_iter()
        .filter(|(_, given)| *given)
        .map(|(name, _)| name)
}

/// What the command line says about compiling.
pub(crate) fn compile_options<'o>(
    codegen: &Codegen,
    programs: &[ProgramKind],
    after_pass: &'o mut dyn FnMut(&'static str, &Graph),
) -> Result<Options<'o>> {
    let target = backends::target(&codegen.target)?;
    let passes = selection(&codegen.passes)?;
    if target.arch == Arch::Cuda && !passes.formats().are_stored() {
        bail!(
            "--weights {} is for processors: GPUs take weights as they are stored",
            passes.formats()
        );
    }
    if target.arch == Arch::Cuda {
        refuse_tuning(codegen, "schedules for GPUs are not tuned")?;
    } else {
        refuse_narrow_on_processors(&passes)?;
    }
    Ok(Options {
        backend: backends::find(codegen.backend.as_deref())?,
        target,
        passes,
        tuning: None,
        fuel: codegen.passes.fuel,
        programs: programs.to_vec(),
        probes: false,
        after_pass,
    })
}

/// The formats of matrices on a processor: where the command line says nothing, blocks of quantised checkpoints are multiplied as
/// they are.
pub(crate) fn formats(passes: &PassOptions, model: &Model) -> Formats {
    let groups = || model.groups().map(|(name, format)| (name.to_owned(), format));
    passes
        .weights
        .clone()
        .unwrap_or_else(|| Formats::as_stored(groups()))
}

/// Gives the matrices of a model their formats.
pub(crate) fn choose_formats(codegen: &Codegen, model: &Model, options: &mut Options<'_>) {
    if options.target.arch != Arch::Cuda {
        let formats = formats(&codegen.passes, model);
        options.passes = options.passes.clone().with_formats(formats);
    }
}

/// Gives the schedules of a checkpoint what was measured, if it was measured for this; all that was chosen.
pub(crate) fn tune(
    codegen: &Codegen,
    path: &Path,
    model: &Model,
    options: &mut Options<'_>,
) -> Result<Option<Choice>> {
    let tuned = match options.target.arch {
        Arch::Cuda => None,
        Arch::X86_64 | Arch::Aarch64 => tuned(codegen.tuning.as_deref(), path, || {
            let formats = options.passes.formats();
            Subject::checkpoint(model, options.backend, &options.target, formats)
        })?,
    };
    options.tuning = tuned.and_then(|choice| choice.tuning);
    Ok(tuned)
}

/// What was found for a model, in the file that is given or else beside the model. A file that was asked for must fit; another
/// one may be for something else.
pub(crate) fn tuned(
    file: Option<&Path>,
    model: &Path,
    subject: impl FnOnce() -> Subject,
) -> Result<Option<Choice>> {
    let beside = record::path(model);
    let path = file.unwrap_or(&beside);
    if file.is_some_and(|file| file.as_os_str() == "none") || file.is_none() && !path.exists() {
        return Ok(None);
    }
    match record::read(path, &subject()) {
        Ok(choice) => {
            output::note(&format!("tuned by `{}`", path.display()));
            Ok(Some(choice))
        }
        Err(other @ RecordError::Other { .. }) if file.is_none() => {
            output::note(&format!("not tuned: {other}"));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Refuses a tuning where there is nothing to be tuned.
fn refuse_tuning(codegen: &Codegen, reason: &str) -> Result<()> {
    match &codegen.tuning {
        Some(file) if file.as_os_str() != "none" => bail!("--tuning is for code for processors: {reason}"),
        _ => Ok(()),
    }
}

/// As many threads as are asked for, or were found to be best, or else one a core.
pub(crate) fn workspace(threads: Threads, tuned: Option<Choice>) -> WorkspaceOptions {
    let default = WorkspaceOptions::default();
    let tuned = tuned.map_or(default.threads, |choice| choice.threads);
    WorkspaceOptions {
        threads: threads.threads.map_or(tuned, usize::from),
        ..default
    }
}

/// The passes that `--passes` and `--no-pass` leave.
pub(crate) fn selection(options: &PassOptions) -> Result<Selection> {
    let all = match &options.passes {
        None => Selection::all(),
        Some(names) => match &names.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["none"] => Selection::only(&[] as &[&str])?,
            ["unfused"] => Selection::unfused(),
            names => Selection::only(names)?,
        },
    };
    let formats = options.weights.clone().unwrap_or_default();
    let activations = options.activations.unwrap_or_default();
    let all = all.without(&options.no_pass)?;
    Ok(all.with_formats(formats).with_activations(activations))
}

/// Prints the graph after the pass that `--print-after` names.
pub(crate) fn printer(options: &PassOptions) -> Result<impl FnMut(&'static str, &Graph) + use<>> {
    let wanted = options.print_after.clone();
    if let Some(name) = wanted.as_deref().filter(|&n| n != "all")
        && !STANDARD.iter().any(|p| p.name == name)
    {
        bail!("there is no pass `{name}` to print after; `rwkvc passes` lists them");
    }
    Ok(move |pass: &'static str, graph: &Graph| {
        if wanted.as_deref().is_some_and(|w| w == "all" || w == pass) {
            output::note(&format!("; after {pass}\n{graph}"));
        }
    })
}
