//! `rwkvc tune`: the fastest schedules and threads for a model on this machine.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use rwkvc::load;
use rwkvc::tables::table;
use rwkvc::tune::lab::{Checkpoint, Compiled};
use rwkvc::tune::record::{self, Subject};
use rwkvc::tune::search::{Bench, Change, Outcome, Trial, search};
use rwkvc::tune::{Choice, Knob};
use rwkvc_backend_api::{Arch, Features};
use rwkvc_passes::quantize::Formats;
use rwkvc_passes::settings::Settings;
use rwkvc_runtime::{Artifact, Model, PendingFile, WorkspaceOptions};
use serde_json::{Value, json};

use crate::args::{Codegen, Format, Output, PassOptions, PassSettings};
use crate::{open, options, output, progress};

/// `rwkvc tune`
#[derive(Debug, Args)]
#[command(
    after_help = "The choice is written to MODEL.tuning.json, with the CPU, the model, backend, target and weights that it was \
        measured for. `run`, `compile`, `bench` and the other commands that compile the model use it wherever all of this is the \
        same, and say so; --tuning none leaves it out. Nothing else should run meanwhile.\n\n\
        Of a file that is compiled already only the threads are chosen: its schedules were when it was compiled."
)]
pub(crate) struct Tune {
    /// A checkpoint or an artifact
    model: PathBuf,
    /// About how long to measure: seconds, or as `90s`, `5m`. A larger model needs more
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    budget: Duration,
    /// Where to write. Default: MODEL.tuning.json
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Code generator: see `rwkvc compile`
    #[arg(long)]
    backend: Option<String>,
    /// Machine to compile for, which this one can run: see `rwkvc targets`
    #[arg(long, default_value = "cpu")]
    target: String,
    /// How matrices are stored: see `rwkvc compile`
    #[arg(long, value_name = "FORMATS")]
    weights: Option<Formats>,
    /// Threads of the step. Default: as many as are fastest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    #[command(flatten)]
    out: Output,
}

/// `90`, `90s` or `5m`: at least a second, at most a day.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(number) => (number, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let seconds = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    match seconds {
        Some(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("expected a time from 1s to 1440m".into()),
    }
}

/// Runs the command.
pub(crate) fn run(args: &Tune) -> Result<()> {
    let is_compiled = load::is_artifact(&args.model)?;
    let beside = || record::path(&args.model);
    let path = args.output.clone().unwrap_or_else(beside);
    if super::same_file(&args.model, &path) {
        bail!(
            "`{}` is the model itself: give another file with -o",
            path.display()
        );
    }
    // First, so that nothing is measured that cannot be written.
    let writing = || format!("writing `{}`", path.display());
    let mut file = PendingFile::create(&path).with_context(writing)?;
    let (subject, found, seconds) = match is_compiled {
        true => compiled(args)?,
        false => checkpoint(args)?,
    };
    let about = about(&subject);
    let text = record::text(subject, &found)?;
    file.write_all(text.as_bytes()).with_context(writing)?;
    file.finish().with_context(writing)?;
    if args.out.format == Format::Json {
        return output::json(&report(&path, &found, seconds));
    }
    output::print(&format!("{}: {about}\n\n{}", args.model.display(), shown(&found)))?;
    output::note(&format!("written to `{}` after {seconds:.0} s", path.display()));
    Ok(())
}

type Found = (Subject, Outcome, f64);

/// Of a checkpoint everything can be chosen.
fn checkpoint(args: &Tune) -> Result<Found> {
    let codegen = Codegen {
        backend: args.backend.clone(),
        target: args.target.clone(),
        tuning: None,
        passes: PassOptions {
            settings: PassSettings(
                args.weights
                    .iter()
                    .cloned()
                    .fold(Settings::default(), Settings::with),
            ),
            ..PassOptions::default()
        },
    };
    let mut after = options::printer(&codegen.passes)?;
    let mut options = options::compile_options(&codegen, &[], &mut after)?;
    let Features::Cpu(features) = options.features()? else {
        bail!("schedules for GPUs are not tuned: {} is no CPU", options.target);
    };
    let model = open::checkpoint(&args.model)?;
    options::choose_formats(&codegen, &model, &mut options);
    let formats = options.passes.setting::<Formats>();
    let subject = Subject::checkpoint(&model, options.backend, &options.target, &formats);
    let start = Choice {
        threads: threads(args),
        tuning: Some(features.tuning),
    };
    let knobs: Vec<Knob> = knob_of_threads(args).into_iter().chain(Knob::fields()).collect();
    let (found, seconds) = measure(args, &mut Checkpoint::new(model, &mut options), start, &knobs)?;
    Ok((subject, found, seconds))
}

/// Of a compiled file only the threads can be chosen.
fn compiled(args: &Tune) -> Result<Found> {
    let given = [
        ("--backend", args.backend.is_some()),
        ("--target", args.target != "cpu"),
        ("--weights", args.weights.is_some()),
    ];
    if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
        bail!(
            "`{}` is compiled already: {option} goes with a checkpoint",
            args.model.display()
        );
    }
    if args.threads.is_some() {
        bail!(
            "`{}` is compiled already, so that only the threads can be chosen: leave out --threads, or tune the checkpoint \
             and compile it again",
            args.model.display()
        );
    }
    let opening = || format!("opening `{}`", args.model.display());
    let artifact = Artifact::open(&args.model).with_context(opening)?;
    if artifact.manifest().target.arch == Arch::Cuda.name() {
        bail!(
            "schedules for GPUs are not tuned: `{}` was compiled for one",
            args.model.display()
        );
    }
    let subject = Subject::compiled(artifact.manifest());
    let model = Model::from_artifact(artifact).with_context(opening)?;
    let start = Choice {
        threads: threads(args),
        tuning: None,
    };
    let knobs: Vec<Knob> = knob_of_threads(args).into_iter().collect();
    let (found, seconds) = measure(args, &mut Compiled::new(model)?, start, &knobs)?;
    Ok((subject, found, seconds))
}

/// The threads to begin with.
fn threads(args: &Tune) -> usize {
    let default = WorkspaceOptions::default().threads;
    args.threads.map_or(default, usize::from)
}

/// The numbers of threads that are tried, unless one is given.
fn knob_of_threads(args: &Tune) -> Option<Knob> {
    let cores = WorkspaceOptions::default().threads;
    args.threads.is_none().then(|| Knob::threads(cores))
}

fn measure(args: &Tune, bench: &mut dyn Bench, start: Choice, knobs: &[Knob]) -> Result<(Outcome, f64)> {
    let clock = Instant::now();
    let seconds = args.budget.as_secs_f64();
    let bar = progress::bar(args.budget.as_secs(), "s");
    let found = search(bench, start, knobs, args.budget, &mut |name, part| {
        bar.set_position((part * seconds) as u64);
        bar.set_message(format!("s, measuring {name}"));
    })?;
    bar.finish_and_clear();
    Ok((found, clock.elapsed().as_secs_f64()))
}

/// What was measured, in a line.
fn about(subject: &Subject) -> String {
    format!(
        "{} for {}, weights {}, on {} with {} cores",
        subject.backend, subject.target, subject.weights, subject.machine.cpu, subject.machine.cores
    )
}

/// What a call of so many tokens is.
fn call(tokens: usize) -> String {
    match tokens {
        1 => "decode".into(),
        n => format!("prompt of {n}"),
    }
}

/// Knobs that were turned: name, before and after.
fn turned(found: &Outcome) -> Vec<(&'static str, String, String)> {
    let knobs = [Knob::Threads(vec![])].into_iter().chain(Knob::fields());
    let values = knobs.filter_map(|knob| {
        let (before, after) = (knob.get(&found.start)?, knob.get(&found.best)?);
        (before != after).then(|| (knob.name(), before, after))
    });
    values.collect()
}

fn shown(found: &Outcome) -> String {
    let turned = turned(found);
    let mut text = if turned.is_empty() {
        "nothing was faster than the defaults\n".to_owned()
    } else {
        let rows: Vec<_> = turned
            .into_iter()
            .map(|(name, before, after)| vec![name.to_owned(), before, after])
            .collect();
        table(&["choice", "default", "tuned"], &rows)
    };
    if !found.changes.is_empty() {
        let row = |c: &Change| {
            vec![
                call(c.tokens),
                format!("{:.1}", c.before),
                format!("{:.1}", c.after),
                format!("{:.3}", 1.0 / c.verdict.ratio),
                format!("{:.3}", c.verdict.noise),
            ]
        };
        let rows: Vec<_> = found.changes.iter().map(row).collect();
        text += "\n";
        text += &table(&["call", "default tok/s", "tuned tok/s", "×", "±"], &rows);
    }
    if !found.trials.is_empty() {
        let row = |t: &Trial| {
            vec![
                t.knob.to_owned(),
                t.from.clone(),
                t.to.clone(),
                format!("{:.3}", 1.0 / t.verdict.ratio),
                format!("{:.3}", t.verdict.noise),
                t.verdict.pairs.to_string(),
                if t.is_taken { "yes" } else { "" }.to_owned(),
            ]
        };
        let rows: Vec<_> = found.trials.iter().map(row).collect();
        text += "\n";
        text += &table(&["tried", "from", "to", "×", "±", "pairs", "taken"], &rows);
    }
    if !found.untried.is_empty() {
        text += &format!(
            "\nnot tried for want of time: {}; a longer --budget gets there\n",
            found.untried.join(", ")
        );
    }
    text
}

fn report(path: &Path, found: &Outcome, seconds: f64) -> Value {
    let choice = |choice: &Choice| {
        let fields = |tuning: rwkvc_backend_api::Tuning| {
            let fields = tuning
                .fields()
                .map(|(name, value)| (name.to_owned(), json!(value)));
            Value::Object(fields.collect())
        };
        json!({ "threads": choice.threads, "schedule": choice.tuning.map(fields) })
    };
    let change = |c: &Change| {
        json!({
            "tokens": c.tokens, "default": c.before, "tuned": c.after,
            "times": 1.0 / c.verdict.ratio, "noise": c.verdict.noise, "pairs": c.verdict.pairs,
        })
    };
    let trial = |t: &Trial| {
        json!({
            "choice": t.knob, "from": t.from, "to": t.to, "times": 1.0 / t.verdict.ratio,
            "noise": t.verdict.noise, "pairs": t.verdict.pairs, "taken": t.is_taken,
        })
    };
    json!({
        "output": path,
        "seconds": seconds,
        "default": choice(&found.start),
        "tuned": choice(&found.best),
        "changes": found.changes.iter().map(change).collect::<Vec<_>>(),
        "trials": found.trials.iter().map(trial).collect::<Vec<_>>(),
        "untried": found.untried,
    })
}
