//! Measuring, in turn.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rwkvc::backends;
use rwkvc::compile::Options;
use rwkvc::load::open_checkpoint;
use rwkvc::measure::Spread;
use rwkvc::roof::Roof;
use rwkvc_passes::pipeline::Selection;
use rwkvc_runtime::WorkspaceOptions;
use rwkvc_side_by_side_protocol::{Ready, Worker};

use crate::args::{Cli, Plan};
use crate::files::{Entry, Tools, prepare, run};
use crate::report::{LoadRow, PrefillRow, Report, RoofRow, SpeedRow, StartRow, threads as in_words};

/// Tokens after which logits are compared.
const COMPARED: usize = 32;

/// Measures a checkpoint as the command line says; `note` hears what is going on.
///
/// # Errors
/// If a program is missing or fails.
pub fn measure(cli: &Cli, note: &mut dyn FnMut(&str)) -> Result<Report> {
    let plan = &cli.plan;
    plan.check()?;
    let path = cli.model.as_deref().context("there is no model to measure")?;
    let tools = Tools::find(&cli.programs)?;
    let summary = open_checkpoint(path)?.summary();
    let entries = prepare(path, plan, &tools, &cli.programs.work, note)?;

    let mut engines: Vec<(String, String)> = vec![];
    let loads = loads(&entries, plan, &tools, &mut engines, note)?;
    let (mut roofs, mut speeds) = (vec![], vec![]);
    for &threads in &plan.threads {
        let (roof, rows) = rates(&entries, plan, &tools, threads, note)?;
        roofs.push(roof);
        speeds.extend(rows);
    }
    note("from the checkpoint to the first token");
    let mut starts = vec![];
    for (backend, seconds) in first_tokens(path, plan, &tools)? {
        starts.push(StartRow {
            backend,
            weights: summary.dtype.clone(),
            seconds,
        });
    }
    Ok(Report {
        model: summary.name,
        parameters: summary.parameters,
        date: cli.date.clone(),
        machine: machine(),
        engines,
        samples: usize::from(plan.samples),
        decode_tokens: usize::from(plan.decode),
        roofs,
        speeds,
        loads,
        starts,
    })
}

/// Opens each file again and again, each time in a new process. The first time warms the system's cache, and is when
/// memory is looked at.
fn loads(
    entries: &[Entry],
    plan: &Plan,
    tools: &Tools,
    engines: &mut Vec<(String, String)>,
    note: &mut dyn FnMut(&str),
) -> Result<Vec<LoadRow>> {
    note("opening the files");
    let threads = most_threads(plan);
    let longest = plan.prefill.iter().max().copied().unwrap_or(1);
    let mut peaks = vec![];
    for entry in entries {
        let (mut worker, ready) = Worker::start(&mut entry.command(tools, threads))?;
        let engine = (ready.engine, ready.built);
        if !engines.contains(&engine) {
            engines.push(engine);
        }
        worker.decode(usize::from(plan.decode))?;
        let decode = worker.peak()?;
        worker.prefill(usize::from(longest))?;
        peaks.push((decode, worker.peak()?));
    }
    let mut found: Vec<Vec<Ready>> = vec![vec![]; entries.len()];
    for _ in 0..plan.loads {
        for (entry, found) in entries.iter().zip(&mut found) {
            found.push(Worker::start(&mut entry.command(tools, threads))?.1);
        }
    }
    let rows = entries.iter().zip(found).zip(peaks);
    rows.map(|((entry, found), (peak_decode, peak_prefill))| {
        let ms = |of: fn(&Ready) -> f64| spread(found.iter().map(|r| 1e3 * of(r)).collect());
        Ok(LoadRow {
            bits: entry.bits,
            engine: entry.engine,
            weights: entry.weights.clone(),
            weight_bytes: entry.weight_bytes,
            load_ms: ms(|r| r.load_s)?,
            first_token_ms: ms(|r| r.first_token_s)?,
            peak_decode,
            peak_prefill,
        })
    })
    .collect()
}

/// Samples of an engine.
struct Running<'e> {
    entry: &'e Entry,
    worker: Worker,
    logits: Vec<f32>,
    /// Tokens a second.
    decode: Vec<f64>,
    /// The same, of each prompt.
    prefill: Vec<Vec<f64>>,
}

/// Decode and prefill of all engines, a sample of each after the other, and of the roofs.
fn rates(
    entries: &[Entry],
    plan: &Plan,
    tools: &Tools,
    threads: u16,
    note: &mut dyn FnMut(&str),
) -> Result<(RoofRow, Vec<SpeedRow>)> {
    let mut after = |_: &'static str, _: &_| {};
    let options = Options {
        backend: backends::find(None)?,
        target: backends::target("cpu")?,
        passes: Selection::all(),
        tuning: None,
        fuel: None,
        programs: vec![],
        probes: false,
        after_pass: &mut after,
    };
    let workspace = WorkspaceOptions {
        threads: usize::from(threads),
        ..WorkspaceOptions::default()
    };
    let mut roof = Roof::new(&options, &workspace)?;
    let (mut memory, mut arithmetic) = (vec![], vec![]);
    let mut rows: Vec<(Running<'_>, usize)> = vec![];
    for bits in plan.weights.iter().map(|w| w.bits()) {
        let of_format = || entries.iter().filter(|e| e.bits == bits);
        let names: Vec<String> = of_format()
            .map(|e| format!("{} {}", e.engine.name(), e.weights))
            .collect();
        note(&format!("{}: {}", in_words(threads), names.join(", ")));
        let mut running = of_format()
            .map(|entry| Running::start(entry, plan, tools, threads))
            .collect::<Result<Vec<_>>>()?;
        for _ in 0..plan.samples {
            for engine in &mut running {
                engine.decode(plan)?;
            }
            for prompt in 0..plan.prefill.len() {
                for engine in &mut running {
                    engine.prefill(plan, prompt)?;
                }
            }
            let roofs = roof.measure()?;
            memory.push(roofs.memory);
            arithmetic.push(roofs.arithmetic);
        }
        // The one that the others of the format are compared with comes first.
        let peer = rows.len();
        rows.extend(running.into_iter().map(|engine| (engine, peer)));
    }
    let roof = RoofRow {
        threads,
        memory: spread(memory)?,
        arithmetic: spread(arithmetic)?,
    };
    let speeds = rows.iter().enumerate().map(|(i, (engine, peer))| {
        let compared = (i != 0).then(|| rows[0].0.logits.as_slice());
        engine.row(plan, &roof, (i != *peer).then(|| &rows[*peer].0), compared)
    });
    let speeds = speeds.collect::<Result<_>>()?;
    Ok((roof, speeds))
}

impl<'e> Running<'e> {
    fn start(entry: &'e Entry, plan: &Plan, tools: &Tools, threads: u16) -> Result<Self> {
        let (mut worker, _) = Worker::start(&mut entry.command(tools, threads))?;
        let logits = worker.logits(COMPARED)?;
        // Not a sample: what is made on the first use is there afterwards.
        for &tokens in &plan.prefill {
            worker.prefill(usize::from(tokens))?;
        }
        Ok(Running {
            entry,
            worker,
            logits,
            decode: vec![],
            prefill: vec![vec![]; plan.prefill.len()],
        })
    }

    fn decode(&mut self, plan: &Plan) -> Result<()> {
        let seconds = self.worker.decode(usize::from(plan.decode))?;
        self.decode.push(f64::from(plan.decode) / seconds);
        Ok(())
    }

    fn prefill(&mut self, plan: &Plan, prompt: usize) -> Result<()> {
        let tokens = plan.prefill[prompt];
        let seconds = self.worker.prefill(usize::from(tokens))?;
        self.prefill[prompt].push(f64::from(tokens) / seconds);
        Ok(())
    }

    fn row(
        &self,
        plan: &Plan,
        roof: &RoofRow,
        peer: Option<&Running<'_>>,
        logits: Option<&[f32]>,
    ) -> Result<SpeedRow> {
        let decode = spread(self.decode.clone())?;
        let prompts = plan.prefill.iter().enumerate().map(|(i, &tokens)| {
            let speed = spread(self.prefill[i].clone())?;
            let gflop_s =
                self.entry.prefill_work[i].map(|work| speed.median / f64::from(tokens) * work / 1e9);
            Ok(PrefillRow {
                tokens: usize::from(tokens),
                times: peer.and_then(|p| times(&self.prefill[i], &p.prefill[i])),
                peak_share: gflop_s.map(|g| g / roof.arithmetic.max),
                speed,
            })
        });
        let prefill = prompts.collect::<Result<_>>()?;
        Ok(SpeedRow {
            threads: roof.threads,
            bits: self.entry.bits,
            engine: self.entry.engine,
            weights: self.entry.weights.clone(),
            bytes_per_token: self.entry.bytes_per_token,
            decode_times: peer.and_then(|p| times(&self.decode, &p.decode)),
            roof_share: decode.median * self.entry.bytes_per_token as f64 / 1e9 / roof.memory.max,
            decode,
            prefill,
            difference: logits
                .map(|logits| difference(&self.logits, logits))
                .transpose()?,
        })
    }
}

/// The time of `rwkvc logits` for each backend, in turn, after one time that does not count.
fn first_tokens(model: &std::path::Path, plan: &Plan, tools: &Tools) -> Result<Vec<(String, Spread)>> {
    let threads = most_threads(plan).to_string();
    let mut found: Vec<(&str, Vec<f64>)> = backends::all().iter().map(|b| (b.name(), vec![])).collect();
    for i in 0..=plan.loads {
        for (backend, seconds) in &mut found {
            let mut command = Command::new(&tools.rwkvc);
            command.arg("logits").arg(model);
            let start = Instant::now();
            run(command.args(["--tokens", "0", "--backend", backend, "--threads", &threads]))?;
            if i > 0 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let rows = found.into_iter();
    rows.map(|(backend, seconds)| Ok((backend.to_owned(), spread(seconds)?)))
        .collect()
}

fn most_threads(plan: &Plan) -> u16 {
    plan.threads.iter().max().copied().unwrap_or(1)
}

fn spread(samples: Vec<f64>) -> Result<Spread> {
    Spread::of(samples).context("there are no samples")
}

/// The median of the ratios of samples that were taken one after the other.
fn times(ours: &[f64], theirs: &[f64]) -> Option<f64> {
    let ratios = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
    Spread::of(ratios).map(|s| s.median)
}

/// The root of the mean square of the differences, of the deviation of the expected values.
fn difference(found: &[f32], expected: &[f32]) -> Result<f64> {
    if found.len() != expected.len() || expected.is_empty() {
        bail!(
            "one engine has {} logits, another {}",
            found.len(),
            expected.len()
        );
    }
    let n = expected.len() as f64;
    let mean = expected.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let square = |x: f64| x * x;
    let deviation: f64 = expected.iter().map(|&x| square(f64::from(x) - mean)).sum();
    let wrong: f64 = found
        .iter()
        .zip(expected)
        .map(|(&a, &b)| square(f64::from(a) - f64::from(b)))
        .sum();
    Ok((wrong / deviation).sqrt())
}

/// The CPU and how many threads run at once.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{name}, {cores} cores")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_neighbours() {
        // The machine was half as fast for the second pair.
        assert_eq!(times(&[20.0, 10.0, 22.0], &[10.0, 5.0, 10.0]), Some(2.0));
        assert_eq!(times(&[], &[]), None);
    }

    #[test]
    fn differences_are_relative_to_the_deviation() {
        let expected = [1.0, -1.0, 1.0, -1.0];
        assert_eq!(difference(&expected, &expected).expect("as many"), 0.0);
        let found = difference(&[1.5, -0.5, 0.5, -1.5], &expected).expect("as many");
        assert!((found - 0.5).abs() < 1e-12, "{found}");
        let error = difference(&[1.0], &expected).expect_err("not as many");
        assert_eq!(error.to_string(), "one engine has 1 logits, another 4");
    }
}
