//! `rwkvc verify`: every backend, fused and unfused, against the f64 evaluator, layer by layer.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use rwkvc::backends;
use rwkvc::compile::{self, Options};
use rwkvc::golden::Golden;
use rwkvc::load;
use rwkvc::tables::table;
use rwkvc::tune::record::Subject;
use rwkvc::values::{Distance, Values, compare};
use rwkvc_abi::ProgramKind;
use rwkvc_backend_api::{Arch, Backend, Target};
use rwkvc_frontend::model::Model;
use rwkvc_passes::pipeline::Selection;
use rwkvc_passes::quantize::Formats;
use rwkvc_runtime::Session;
use rwkvc_runtime::gpu::{CudaDriver, Driver, Mode};
use serde::Serialize;

use crate::args::{Device, Format, GpuMode, Output, Threads};
use crate::{open, output, progress, tuned};

/// `rwkvc verify`
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The checkpoint
    model: PathBuf,
    /// Tokens to compare on. Default: 16, or all of the golden file
    #[arg(long, value_name = "N")]
    length: Option<usize>,
    /// Compare with the logits of another implementation too: a safetensors file with `tokens` (I32, [n]) and `logits_f64` or
    /// `logits` ([n, vocabulary]), from which no logit may be further than 2e-5
    #[arg(long, value_name = "FILE")]
    golden: Option<PathBuf>,
    /// Backends, separated by commas. Default: all that are built in
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    backends: Option<Vec<String>>,
    /// Machine to compile for, and to run on: `cpu` or `cuda`, or a level of one
    #[arg(long, default_value = "cpu")]
    target: String,
    /// How steps are started, separated by commas (GPUs). Default: launches,graph,persistent
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MODES")]
    modes: Option<Vec<GpuMode>>,
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    out: Output,
}

/// How far a value may be from the f64 evaluator, relative to the largest absolute value of its tensor. The official
/// package in f32 is within 5e-7 on the demo model's logits.
const TOLERANCE: f64 = 2e-6;

/// The same on GPUs, where sums are longer and in another order.
const GPU_TOLERANCE: f64 = 3e-6;

/// How far a logit may be from a golden file. The official package in f32 is within 1.7e-5 on the demo model; a wrong epsilon of
/// the group norm would show as 1e-4.
const GOLDEN_TOLERANCE: f64 = 2e-5;

/// Tokens that are compared if no number of them is given, nor a golden file.
const LENGTH: usize = 16;

#[derive(Serialize)]
struct Row {
    /// `blocks.3` (the residual stream after a block), `logits`, `logits of the golden file`, or a part of the state.
    value: String,
    backend: &'static str,
    variant: &'static str,
    program: ProgramKind,
    /// How steps were started; only on GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    /// Largest absolute difference.
    difference: f64,
    /// Largest absolute value of the reference.
    largest: f64,
    /// What the difference may be.
    tolerance: f64,
    ok: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Verify) -> Result<ExitCode> {
    if args.length == Some(0) {
        bail!("--length is 0: there is nothing to compare");
    }
    let target = backends::target(&args.target)?;
    let model = open::checkpoint(&args.model)?;
    let text = Text::of(args, model.config().vocab)?;
    let rows = if target.arch == Arch::Cuda {
        on_gpu(&model, &target, &text, args)?
    } else {
        on_cpu(&model, &target, &text, args)?
    };
    let ok = rows.iter().all(|r| r.ok);
    if args.out.format == Format::Json {
        output::json(&serde_json::json!({ "ok": ok, "tokens": text.tokens, "rows": rows }))?;
    } else {
        output::print(&as_text(&rows))?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is compared on.
struct Text {
    tokens: Vec<u32>,
    golden: Option<Golden>,
}

impl Text {
    fn of(args: &Verify, vocab: usize) -> Result<Self> {
        let Some(path) = &args.golden else {
            let tokens = tokens(args.length.unwrap_or(LENGTH), vocab);
            return Ok(Text { tokens, golden: None });
        };
        let golden = Golden::open(path, vocab)?;
        let all = golden.tokens.len();
        let length = args.length.unwrap_or(all);
        if length > all {
            bail!("--length {length}: `{}` has {all} tokens", path.display());
        }
        let golden = golden.first(length);
        Ok(Text {
            tokens: golden.tokens.clone(),
            golden: Some(golden),
        })
    }

    /// The logits of the golden file that a program should give.
    fn golden_of(&self, program: ProgramKind) -> Option<Values> {
        let golden = self.golden.as_ref()?;
        let all = Values(vec![("logits".into(), golden.logits.clone())]);
        Some(all.expected_of(program, self.tokens.len()))
    }
}

/// Tokens that differ from each other, the same at every run.
fn tokens(n: usize, vocab: usize) -> Vec<u32> {
    let spread = |i: usize| (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
    (0..n).map(|i| (spread(i) % vocab as u64) as u32).collect()
}

/// The backends that are asked for, or else `all`.
fn chosen(args: &Verify, all: Vec<&'static dyn Backend>) -> Result<Vec<&'static dyn Backend>> {
    match &args.backends {
        None => Ok(all),
        Some(names) => names.iter().map(|n| backends::find(Some(n))).collect(),
    }
}

fn variants() -> [(&'static str, Selection); 2] {
    [("fused", Selection::all()), ("unfused", Selection::unfused())]
}

/// Decode and score, with every backend.
fn on_cpu(model: &Arc<Model>, target: &Target, text: &Text, args: &Verify) -> Result<Vec<Row>> {
    let tokens = &text.tokens[..];
    let given = [
        ("--modes", args.modes.is_some()),
        ("--device", args.device.device.is_some()),
    ];
    if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
        bail!("{option} is for GPUs, and this is compared on a CPU: give --target cuda");
    }
    let backends = chosen(args, backends::all())?;
    let bar = progress::bar(1 + 4 * backends.len() as u64, "comparisons");
    let expected = Values::reference(model, tokens)?;
    bar.inc(1);
    let mut rows = vec![];
    for backend in backends {
        let subject = || Subject::checkpoint(model, backend, target, &Formats::default());
        let tuned = tuned::tuned(None, &args.model, subject)?;
        for (variant, passes) in variants() {
            for program in [ProgramKind::Decode, ProgramKind::Score] {
                let mut ignore = |_: &'static str, _: &_| {};
                let mut options = Options {
                    backend,
                    target: target.clone(),
                    passes: passes.clone(),
                    tuning: tuned.and_then(|choice| choice.tuning),
                    fuel: None,
                    programs: vec![program],
                    probes: true,
                    after_pass: &mut ignore,
                };
                let code = load::load(model, &mut options)?;
                let mut session = Session::new(&code, &open::workspace(args.threads, tuned))?;
                let found = Values::of_session(&mut session, code.manifest(), program, tokens)?;
                let way = Way {
                    backend: backend.name(),
                    variant,
                    program,
                    mode: None,
                };
                rows.extend(way.rows(&expected, &found, TOLERANCE)?);
                rows.extend(way.golden_row(text, &found)?);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(rows)
}

/// Every program in every mode.
fn on_gpu(model: &Arc<Model>, target: &Target, text: &Text, args: &Verify) -> Result<Vec<Row>> {
    let tokens = &text.tokens[..];
    if args.threads.threads.is_some() {
        bail!("--threads is for CPUs, and this is compared on a GPU");
    }
    let modes = open::modes(args.modes.as_deref());
    let backends = chosen(args, vec![backends::all()[0]])?;
    // First, so that nothing is computed where nothing can run.
    let driver: Arc<CudaDriver> = open::driver(args.device)?;
    let programs = compile::PROGRAMS;
    let comparisons = backends.len() * 2 * modes.len() * programs.len();
    let bar = progress::bar(1 + comparisons as u64, "comparisons");
    let reference = Values::reference(model, tokens)?;
    bar.inc(1);
    let mut rows = vec![];
    for backend in backends {
        for (variant, passes) in variants() {
            let mut ignore = |_: &'static str, _: &_| {};
            let mut options = Options {
                backend,
                target: target.clone(),
                passes,
                tuning: None,
                fuel: None,
                programs: programs.to_vec(),
                probes: true,
                after_pass: &mut ignore,
            };
            let driver = Arc::clone(&driver) as Arc<dyn Driver>;
            let code = load::load_on_gpu(model, &mut options, driver)?;
            for &mode in &modes {
                for &program in &programs {
                    let way = Way {
                        backend: backend.name(),
                        variant,
                        program,
                        mode: Some(mode),
                    };
                    let expected = reference.expected_of(program, tokens.len());
                    let found = Values::of_gpu(&code, mode, program, tokens);
                    let found = found.with_context(|| format!("{variant} {program} as {}", mode.name()))?;
                    rows.extend(way.rows(&expected, &found, GPU_TOLERANCE)?);
                    rows.extend(way.golden_row(text, &found)?);
                    bar.inc(1);
                }
            }
        }
    }
    bar.finish_and_clear();
    Ok(rows)
}

/// How values were computed.
struct Way {
    backend: &'static str,
    variant: &'static str,
    program: ProgramKind,
    mode: Option<Mode>,
}

impl Way {
    fn rows(&self, expected: &Values, found: &Values, tolerance: f64) -> Result<Vec<Row>> {
        let distances = compare(expected, found).with_context(|| format!("backend `{}`", self.backend))?;
        let row = |(value, d): (String, Distance)| self.row(value, d, d.largest * tolerance);
        Ok(distances.into_iter().map(row).collect())
    }

    /// The logits beside those of the golden file, if there is one.
    fn golden_row(&self, text: &Text, found: &Values) -> Result<Option<Row>> {
        let Some(golden) = text.golden_of(self.program) else {
            return Ok(None);
        };
        let distances = compare(&golden, found)?;
        let row = |(name, d): (String, Distance)| {
            self.row(format!("{name} of the golden file"), d, GOLDEN_TOLERANCE)
        };
        Ok(distances.into_iter().map(row).next())
    }

    fn row(&self, value: String, d: Distance, tolerance: f64) -> Row {
        Row {
            value,
            backend: self.backend,
            variant: self.variant,
            program: self.program,
            mode: self.mode.map(Mode::name),
            difference: d.difference,
            largest: d.largest,
            tolerance,
            ok: d.difference <= tolerance,
        }
    }
}

fn as_text(rows: &[Row]) -> String {
    let cells = |r: &Row| {
        vec![
            r.value.clone(),
            r.backend.into(),
            match r.mode {
                Some(mode) => format!("{} {mode}", r.variant),
                None => r.variant.into(),
            },
            r.program.to_string(),
            format!("{:.1e}", r.difference),
            format!("{:.1e}", r.tolerance),
            format!("{:.3}", r.largest),
            if r.ok { "ok".into() } else { "BEYOND".into() },
        ]
    };
    let head = [
        "value",
        "backend",
        "variant",
        "program",
        "difference",
        "tolerance",
        "largest",
        "",
    ];
    let beyond = rows.iter().filter(|r| !r.ok).count();
    let end = match beyond {
        0 => format!("all {} comparisons are within their tolerance\n", rows.len()),
        n => format!("{n} of {} comparisons are beyond their tolerance\n", rows.len()),
    };
    table(&head, &rows.iter().map(cells).collect::<Vec<_>>()) + "\n" + &end
}
