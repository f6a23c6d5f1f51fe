//! The files that are measured, made out of one checkpoint.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rwkvc::load::open_checkpoint;
use rwkvc::measure::arithmetic;
use rwkvc_abi::ProgramKind;
use rwkvc_runtime::Artifact;

use crate::args::{Plan, Programs, Weights};
use crate::report::Engine;

/// Channels of the heads that llama.cpp computes right on every machine.
const HEAD_SIZE: usize = 64;

/// The programs that are there.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The compiler's command line.
    pub rwkvc: PathBuf,
    /// rwkvc's runtime as an engine.
    pub rwkvc_worker: PathBuf,
    /// llama.cpp as an engine.
    pub llama_worker: PathBuf,
}

impl Tools {
    /// Those that the command line names, else those beside this program.
    ///
    /// # Errors
    /// If one is missing.
    pub fn find(programs: &Programs) -> Result<Self> {
        let here = std::env::current_exe().context("the place of this program")?;
        let find = |given: &Option<PathBuf>, name: &str| {
            let beside = || here.with_file_name(format!("{name}{}", std::env::consts::EXE_SUFFIX));
            let path = given.clone().unwrap_or_else(beside);
            if !path.is_file() {
                bail!(
                    "`{}` is missing: `scripts/side-by-side` builds it, --{name} says where it is",
                    path.display()
                );
            }
            Ok(path)
        };
        Ok(Tools {
            rwkvc: find(&programs.rwkvc, "rwkvc")?,
            rwkvc_worker: find(&programs.rwkvc_worker, "rwkvc-worker")?,
            llama_worker: find(&programs.llama_worker, "llama-worker")?,
        })
    }
}

/// A file that an engine runs.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Bits of most weights.
    pub bits: u8,
    /// Who runs it.
    pub engine: Engine,
    /// The format of the file that both engines read, or one of rwkvc's own.
    pub weights: String,
    /// What the engine opens.
    pub path: PathBuf,
    /// Bytes of all weights.
    pub weight_bytes: u64,
    /// Weight bytes of a token.
    pub bytes_per_token: u64,
    /// Operations of the products with weights of each prompt; absent of integers.
    pub prefill_work: Vec<Option<f64>>,
}

impl Entry {
    /// The process that runs it.
    pub fn command(&self, tools: &Tools, threads: u16) -> Command {
        let mut command = match self.engine {
            Engine::Llama => {
                let mut command = Command::new(&tools.llama_worker);
                command.arg("serve");
                command
            }
            Engine::Rwkvc => Command::new(&tools.rwkvc_worker),
        };
        command.arg(&self.path).args(["--threads", &threads.to_string()]);
        command
    }
}

/// Converts, quantises and compiles a checkpoint: for each format what llama.cpp runs, what rwkvc makes of the same file,
/// and of the checkpoint by itself.
///
/// # Errors
/// If the checkpoint is not fit for both engines, or one of the programs fails.
pub fn prepare(
    model: &Path,
    plan: &Plan,
    tools: &Tools,
    work: &Path,
    note: &mut dyn FnMut(&str),
) -> Result<Vec<Entry>> {
    let head_size = open_checkpoint(model)?.config().head_size;
    if head_size != HEAD_SIZE {
        bail!(
            "`{}` has heads of {head_size} channels, expected {HEAD_SIZE}: llama.cpp computes others wrongly on some CPUs",
            model.display()
        );
    }
    std::fs::create_dir_all(work).with_context(|| format!("creating `{}`", work.display()))?;
    let gguf = |weights: Weights| work.join(format!("{}.gguf", weights.name()));

    note("converting the checkpoint for llama.cpp");
    let original = gguf(Weights::Bf16);
    let mut convert = Command::new(&tools.rwkvc);
    run(convert
        .arg("convert")
        .arg(model)
        .arg(&original)
        .args(["--weights", "bf16"]))?;

    let mut entries = vec![];
    for &weights in &plan.weights {
        let (name, file) = (weights.name(), gguf(weights));
        if weights != Weights::Bf16 {
            note(&format!("quantising to {name} with llama.cpp"));
            let mut quantize = Command::new(&tools.llama_worker);
            run(quantize.arg("quantize").arg(&original).arg(&file).arg(name))?;
        }
        let mut compiled = |label: &str, source: &Path, options: &[&str]| {
            note(&format!("compiling {label}"));
            let path = work.join(format!("{label}.rwkvc"));
            let mut compile = Command::new(&tools.rwkvc);
            run(compile
                .arg("compile")
                .arg(source)
                .arg("-o")
                .arg(&path)
                .args(options))?;
            of_rwkvc(weights.bits(), label, path, &plan.prefill)
        };
        let same = compiled(name, &file, &[])?;
        let own = weights.own();
        let own = own
            .map(|own| compiled(own, model, &["--weights", own]))
            .transpose()?;
        let summary = open_checkpoint(&file)?.summary();
        entries.push(Entry {
            engine: Engine::Llama,
            path: file,
            weight_bytes: summary.weight_bytes,
            bytes_per_token: summary.bytes_per_token,
            ..same.clone()
        });
        entries.push(same);
        entries.extend(own);
    }
    Ok(entries)
}

fn of_rwkvc(bits: u8, weights: &str, path: PathBuf, prefill: &[u16]) -> Result<Entry> {
    let artifact = Artifact::open(&path).with_context(|| format!("opening `{}`", path.display()))?;
    let manifest = artifact.manifest();
    let program = manifest.program(ProgramKind::Prefill);
    let program = program.context("a compiled model has a prefill program")?;
    Ok(Entry {
        bits,
        engine: Engine::Rwkvc,
        weights: weights.into(),
        weight_bytes: manifest.weights.iter().map(|w| w.bytes).sum(),
        bytes_per_token: manifest.model.bytes_per_token,
        prefill_work: prefill
            .iter()
            .map(|&n| arithmetic(manifest, program, usize::from(n)))
            .collect(),
        path,
    })
}

/// Runs a program to its end; what it prints is of no interest.
///
/// # Errors
/// If it cannot be started, or fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.with_context(|| format!("starting `{name}`"))?;
    if !status.success() {
        bail!("`{name}` failed: {status}");
    }
    Ok(())
}
