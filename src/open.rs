//! Opens a model as the command line says: an artifact, a checkpoint that is compiled now, or the evaluator.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rwkvc::reference::Reference;
use rwkvc::tune::Choice;
use rwkvc::tune::record::Subject;
use rwkvc::{backends, load};
use rwkvc_abi::ProgramKind;
use rwkvc_backend_api::Arch;
use rwkvc_frontend::model::Model;
use rwkvc_runtime::gpu::{CudaDriver, GpuModel, Mode};
use rwkvc_runtime::{Artifact, Session, WorkspaceOptions};

use crate::args::{Codegen, Device, GpuMode, OnGpu, Threads};
use crate::{options, output, tuned};

/// Opens an artifact, or compiles a checkpoint with the programs that are asked for.
pub(crate) fn open(
    path: &Path,
    codegen: &Codegen,
    threads: Threads,
    gpu: OnGpu,
    programs: &[ProgramKind],
) -> Result<Session> {
    if load::is_artifact(path)? {
        open_artifact(path, codegen, threads, gpu, programs)
    } else if codegen.backend.as_deref() == Some(backends::EVALUATOR) {
        evaluate(path, codegen, gpu)
    } else {
        compile(path, codegen, threads, gpu, programs)
    }
}

/// Opens what was compiled before.
fn open_artifact(
    path: &Path,
    codegen: &Codegen,
    threads: Threads,
    gpu: OnGpu,
    programs: &[ProgramKind],
) -> Result<Session> {
    if let Some(option) = options::codegen_option(codegen) {
        bail!(
            "`{}` is compiled already: --{option} goes with a checkpoint",
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
        tuned::refuse_tuning(codegen, "schedules for GPUs are not tuned")?;
        let model = GpuModel::from_artifact(artifact, driver(gpu.device)?).with_context(opening)?;
        return Ok(Session::on(model.session(mode(gpu.gpu_mode))?));
    }
    refuse_on_cpus(gpu)?;
    let tuned = tuned::tuned(codegen.tuning.as_deref(), path, || {
        Subject::compiled(artifact.manifest())
    })?;
    let model = rwkvc_runtime::Model::from_artifact(artifact).with_context(opening)?;
    load::use_huge_pages(&model);
    Ok(Session::new(&model, &workspace(threads, tuned))?)
}

/// Reads a checkpoint for the reference evaluator, which generates no code.
fn evaluate(path: &Path, codegen: &Codegen, gpu: OnGpu) -> Result<Session> {
    if let Some(option) = options::option_of_code(codegen) {
        bail!("the evaluator generates no code: --{option} goes with another --backend");
    }
    refuse_on_cpus(gpu)?;
    tuned::refuse_tuning(codegen, "the evaluator generates no code")?;
    let model = checkpoint(path)?;
    let settings = &codegen.passes.settings.0;
    options::check_activations(settings, &model)?;
    Ok(Session::on(Reference::new(model, settings)?))
}

/// Compiles a checkpoint and loads the code.
fn compile(
    path: &Path,
    codegen: &Codegen,
    threads: Threads,
    gpu: OnGpu,
    programs: &[ProgramKind],
) -> Result<Session> {
    let model = checkpoint(path)?;
    let mut after = options::printer(&codegen.passes)?;
    let mut options = options::compile_options(codegen, programs, &mut after)?;
    options::choose_formats(codegen, &model, &mut options);
    options::check_activations(options.passes.settings(), &model)?;
    if options.target.arch == Arch::Cuda {
        refuse_on_gpus(threads)?;
        // First, so that nothing is compiled where nothing can run.
        let driver = driver(gpu.device)?;
        let model = load::load_on_gpu(&model, &mut options, driver)?;
        return Ok(Session::on(model.session(mode(gpu.gpu_mode))?));
    }
    refuse_on_cpus(gpu)?;
    let tuned = tuned::tune(codegen, path, &model, &mut options)?;
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

/// As many threads as are asked for, or were found to be best, or else one a core.
pub(crate) fn workspace(threads: Threads, tuned: Option<Choice>) -> WorkspaceOptions {
    let default = WorkspaceOptions::default();
    let tuned = tuned.map_or(default.threads, |choice| choice.threads);
    WorkspaceOptions {
        threads: threads.threads.map_or(tuned, usize::from),
        ..default
    }
}

/// Refuses the arguments for GPUs where a model runs on a CPU.
fn refuse_on_cpus(gpu: OnGpu) -> Result<()> {
    let given = [
        ("--gpu-mode", gpu.gpu_mode.is_some()),
        ("--device", gpu.device.device.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((option, _)) => bail!(
            "{option} is for GPUs, and this model runs on a CPU: give --target cuda, or a file that was compiled with it"
        ),
        None => Ok(()),
    }
}

/// Refuses `--threads` where a model runs on a GPU.
fn refuse_on_gpus(threads: Threads) -> Result<()> {
    if threads.threads.is_some() {
        bail!("--threads is for CPUs, and this model runs on a GPU");
    }
    Ok(())
}
