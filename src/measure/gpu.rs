//! How fast a model is on a GPU, by the clock of the GPU, beside how fast the GPU copies memory.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rwkvc_abi::ProgramKind;
use rwkvc_abi::SampleOptions;
use rwkvc_runtime::gpu::{DeviceBuffer, Driver, GpuModel, GpuSession, Mode, Timer};
use serde::Serialize;

use super::{KernelRow, Spread, kernel_rows};

/// Bytes of which one half is copied to the other, to see how fast memory is; or a quarter of what is free if that is less.
const COPIED: u64 = 2 << 30;

/// Calls of one sample of a batch or a prompt: few, as each is long.
const CALLS: usize = 4;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Workload {
    /// How steps are started, one after the other.
    pub modes: Vec<Mode>,
    /// Tokens of one decode sample.
    pub decode: usize,
    /// Sizes of batches.
    pub batches: Vec<usize>,
    /// Lengths of prompts.
    pub prefills: Vec<usize>,
    /// Samples of each.
    pub samples: usize,
}

impl Workload {
    /// The programs that it runs.
    pub fn programs(&self) -> Vec<ProgramKind> {
        let mut programs = vec![ProgramKind::Decode];
        programs.extend((!self.prefills.is_empty()).then_some(ProgramKind::Prefill));
        programs.extend((!self.batches.is_empty()).then_some(ProgramKind::Batch));
        programs
    }
}

/// One way of running a model.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `decode`, `batch` or `prefill`, whose logits stay on the device; `sample` is decode with each token chosen there.
    pub what: ProgramKind,
    /// How it was started: `launches`, `graph` or `persistent`.
    pub mode: &'static str,
    /// Tokens of one call: 1, the states of a batch, or the length of the prompt.
    pub tokens: usize,
    /// Milliseconds of one call.
    pub ms: f64,
    /// Of all states together.
    pub tokens_per_s: Spread,
    /// Weight bytes a second; absent for prompts, which arithmetic bounds.
    pub gb_s: Option<f64>,
    /// Of the measured copy bandwidth.
    pub copy_share: Option<f64>,
}

/// What was measured of a model.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Launches of a decode step.
    pub launches: usize,
    /// Weight bytes that a decode step reads.
    pub bytes_per_token: u64,
    /// Bytes a second that the device copies, read and written, measured between the samples.
    pub copy_gb_s: Spread,
    /// One for each way.
    pub rows: Vec<Row>,
    /// Of a decode step, launch by launch, each with a mark before and after it.
    pub kernels: Vec<KernelRow>,
}

/// Memory that is copied from one half to the other.
pub struct Copying {
    memory: DeviceBuffer,
    timer: Timer,
}

impl Copying {
    /// Takes the memory.
    ///
    /// # Errors
    /// If the device has too little memory, or fails.
    pub fn new(driver: &Arc<dyn Driver>) -> Result<Self> {
        let bytes = (driver.free_memory()? / 4).min(COPIED) / 512 * 512;
        if bytes == 0 {
            bail!("`{}` has no free memory to copy", driver.info().name);
        }
        Ok(Copying {
            memory: DeviceBuffer::new(driver, bytes)?,
            timer: Timer::new(driver)?,
        })
    }

    /// GB/s, read and written, of the fastest of a few copies.
    ///
    /// # Errors
    /// If the device fails.
    pub fn measure(&self) -> Result<f64> {
        let (driver, start, bytes) = (
            self.memory.driver(),
            self.memory.address(),
            self.memory.bytes() / 2,
        );
        let mut best = u64::MAX;
        for _ in 0..4 {
            self.timer.start()?;
            driver.copy(start, start.offset(bytes), bytes)?;
            best = best.min(self.timer.stop()?);
        }
        Ok(2.0 * bytes as f64 / best.max(1) as f64)
    }
}

/// A token of a text without meaning, the same at every run.
fn token(i: usize, vocab: usize) -> u32 {
    (i * 7919 % vocab) as u32
}

/// Measures models on one device, sample after sample in turn, so that what disturbs one disturbs all.
///
/// # Errors
/// If there is no model, or the device fails, for want of memory, too: the states and activations of all are there at once.
pub fn measure(models: &[&GpuModel], work: &Workload) -> Result<Vec<Measured>> {
    let driver = models.first().context("there is nothing to measure")?.driver();
    let copying = Copying::new(driver)?;
    let timer = Timer::new(driver)?;
    let mut copies = vec![copying.measure()?];
    let mut rows = vec![vec![]; models.len()];
    let mut add = |what, mode, tokens, ns: Vec<Vec<f64>>| -> Result<()> {
        for (rows, ns) in rows.iter_mut().zip(ns) {
            rows.push(row(what, mode, tokens, ns, work)?);
        }
        Ok(())
    };
    for &mode in &work.modes {
        let mut sessions = models
            .iter()
            .map(|m| m.session(mode))
            .collect::<Result<Vec<_>, _>>()?;
        add(ProgramKind::Decode, mode, 1, decode(&timer, &mut sessions, work)?)?;
        if models.iter().all(|m| m.has(ProgramKind::Sample)) {
            let ns = generate(&timer, &mut sessions, work)?;
            add(ProgramKind::Sample, mode, 1, ns)?;
        }
        copies.push(copying.measure()?);
        for &length in &work.prefills {
            let ns = prefill(&timer, &mut sessions, length, work)?;
            add(ProgramKind::Prefill, mode, length, ns)?;
        }
        drop(sessions);
        for &states in &work.batches {
            let ns = batch(&timer, models, mode, states, work)?;
            add(ProgramKind::Batch, mode, states, ns)?;
            copies.push(copying.measure()?);
        }
    }
    let copy_gb_s = Spread::of(copies).context("no memory was copied")?;
    let measured = models.iter().zip(rows);
    measured
        .map(|(model, rows)| of_model(model, rows, copy_gb_s, work))
        .collect()
}

/// What is told of a model beside how long it took.
fn of_model(model: &GpuModel, mut rows: Vec<Row>, copy_gb_s: Spread, work: &Workload) -> Result<Measured> {
    let manifest = model.manifest();
    for row in rows.iter_mut().filter(|r| r.what != ProgramKind::Prefill) {
        let gb_s = manifest.model.bytes_per_token as f64 / row.ms / 1e6;
        (row.gb_s, row.copy_share) = (Some(gb_s), Some(gb_s / copy_gb_s.max));
    }
    let program = manifest
        .program(ProgramKind::Decode)
        .context("the model has no decode program")?;
    let mut times = vec![0; program.launches.len()];
    let mut session = model.session(Mode::Launches)?;
    session.step(0)?;
    for i in 0..work.samples {
        session.step_profiled(token(i, model.vocab()), &mut times)?;
    }
    Ok(Measured {
        launches: program.launches.len(),
        bytes_per_token: manifest.model.bytes_per_token,
        copy_gb_s,
        rows,
        kernels: kernel_rows(manifest, program, &times, work.samples as u64),
    })
}

/// Nanoseconds of one call of each session, sample by sample.
fn decode(timer: &Timer, sessions: &mut [GpuSession], work: &Workload) -> Result<Vec<Vec<f64>>> {
    for session in &mut *sessions {
        // What is recorded or written down once is no part of a step.
        session.step(0)?;
    }
    sampled(timer, work.samples, work.decode, sessions, |session, i| {
        let vocab = session.model().vocab();
        Ok(session.advance(token(i, vocab))?)
    })
}

/// With draws from a nucleus, which take longer than the most probable token.
fn generate(timer: &Timer, sessions: &mut [GpuSession], work: &Workload) -> Result<Vec<Vec<f64>>> {
    for session in &mut *sessions {
        session.set_sampling(SampleOptions {
            temperature: 1.0,
            top_p: 0.85,
            seed: 0,
        });
        session.generate(2)?;
    }
    let mut ns = sampled(timer, work.samples, 1, sessions, |session, _| {
        session.generate(work.decode)?;
        Ok(())
    })?;
    ns.iter_mut().flatten().for_each(|ns| *ns /= work.decode as f64);
    Ok(ns)
}

fn prefill(
    timer: &Timer,
    sessions: &mut [GpuSession],
    length: usize,
    work: &Workload,
) -> Result<Vec<Vec<f64>>> {
    let vocab = sessions.first().map_or(1, |session| session.model().vocab());
    let tokens: Vec<u32> = (0..length).map(|i| token(i, vocab)).collect();
    for session in &mut *sessions {
        session.feed(&tokens)?;
    }
    sampled(timer, work.samples, CALLS, sessions, |session, _| {
        Ok(session.feed(&tokens)?)
    })
}

fn batch(
    timer: &Timer,
    models: &[&GpuModel],
    mode: Mode,
    states: usize,
    work: &Workload,
) -> Result<Vec<Vec<f64>>> {
    let vocab = models.first().map_or(1, |model| model.vocab());
    let tokens: Vec<u32> = (0..states).map(|i| token(i, vocab)).collect();
    let mut batches = vec![];
    for model in models {
        let mut batch = model.batch(mode)?;
        let state = model.new_state()?;
        for _ in 0..states {
            batch.join(&state)?;
        }
        batch.advance(&tokens)?;
        batches.push(batch);
    }
    sampled(timer, work.samples, CALLS, &mut batches, |batch, _| {
        Ok(batch.advance(&tokens)?)
    })
}

/// Nanoseconds of one call of each, of as many samples, taken in turn.
fn sampled<T>(
    timer: &Timer,
    samples: usize,
    calls: usize,
    all: &mut [T],
    mut call: impl FnMut(&mut T, usize) -> Result<()>,
) -> Result<Vec<Vec<f64>>> {
    let mut ns = vec![vec![]; all.len()];
    for _ in 0..samples {
        for (one, ns) in all.iter_mut().zip(&mut ns) {
            timer.start()?;
            (0..calls).try_for_each(|i| call(one, i))?;
            ns.push(timer.stop()?.max(1) as f64 / calls as f64);
        }
    }
    Ok(ns)
}

fn row(what: ProgramKind, mode: Mode, tokens: usize, ns: Vec<f64>, work: &Workload) -> Result<Row> {
    let rates = ns.iter().map(|ns| tokens as f64 * 1e9 / ns).collect();
    let none = || format!("there are {} samples", work.samples);
    Ok(Row {
        what,
        mode: mode.name(),
        tokens,
        ms: Spread::of(ns).with_context(none)?.median / 1e6,
        tokens_per_s: Spread::of(rates).with_context(none)?,
        gb_s: None,
        copy_share: None,
    })
}
