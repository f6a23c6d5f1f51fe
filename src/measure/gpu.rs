//! How fast a model is on a GPU, by the clock of the GPU, beside how fast the GPU copies memory.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rwkvc_runtime::gpu::{DeviceBuffer, Driver, GpuModel, GpuSession, Mode, Sampling, Timer};
use rwkvc_runtime::manifest::ProgramKind;
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

/// Measures a model on its device.
pub fn measure(model: &GpuModel, work: &Workload) -> Result<Measured> {
    let copying = Copying::new(model.driver())?;
    let mut copies = vec![copying.measure()?];
    let mut rows = vec![];
    let manifest = model.manifest();
    for &mode in &work.modes {
        let mut session = model.session(mode)?;
        rows.push(row(
            ProgramKind::Decode,
            mode,
            1,
            decode(&mut session, work)?,
            work,
        )?);
        if model.has(ProgramKind::Sample) {
            let ns = generate(&mut session, work)?;
            rows.push(row(ProgramKind::Sample, mode, 1, ns, work)?);
        }
        copies.push(copying.measure()?);
        for &length in &work.prefills {
            let ns = prefill(&mut session, length, work)?;
            rows.push(row(ProgramKind::Prefill, mode, length, ns, work)?);
        }
        drop(session);
        for &states in &work.batches {
            let ns = batch(model, mode, states, work)?;
            rows.push(row(ProgramKind::Batch, mode, states, ns, work)?);
            copies.push(copying.measure()?);
        }
    }
    let copy_gb_s = Spread::of(copies).context("no memory was copied")?;
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

/// Nanoseconds of one call, sample by sample.
fn decode(session: &mut GpuSession, work: &Workload) -> Result<Vec<f64>> {
    let timer = Timer::new(session.model().driver())?;
    let vocab = session.model().vocab();
    // What is recorded or written down once is no part of a step.
    session.step(0)?;
    sampled(&timer, work.samples, work.decode, |i| {
        Ok(session.advance(token(i, vocab))?)
    })
}

/// With draws from a nucleus, which take longer than the most probable token.
fn generate(session: &mut GpuSession, work: &Workload) -> Result<Vec<f64>> {
    let timer = Timer::new(session.model().driver())?;
    session.set_sampling(Sampling {
        temperature: 1.0,
        top_p: 0.85,
        seed: 0,
    });
    session.generate(2)?;
    let ns = sampled(&timer, work.samples, 1, |_| {
        session.generate(work.decode)?;
        Ok(())
    })?;
    Ok(ns.into_iter().map(|ns| ns / work.decode as f64).collect())
}

fn prefill(session: &mut GpuSession, length: usize, work: &Workload) -> Result<Vec<f64>> {
    let timer = Timer::new(session.model().driver())?;
    let vocab = session.model().vocab();
    let tokens: Vec<u32> = (0..length).map(|i| token(i, vocab)).collect();
    session.feed(&tokens)?;
    sampled(&timer, work.samples, CALLS, |_| Ok(session.feed(&tokens)?))
}

fn batch(model: &GpuModel, mode: Mode, states: usize, work: &Workload) -> Result<Vec<f64>> {
    let timer = Timer::new(model.driver())?;
    let mut batch = model.batch(mode)?;
    let state = model.new_state()?;
    for _ in 0..states {
        batch.join(&state)?;
    }
    let tokens: Vec<u32> = (0..states).map(|i| token(i, model.vocab())).collect();
    batch.advance(&tokens)?;
    sampled(&timer, work.samples, CALLS, |_| Ok(batch.advance(&tokens)?))
}

fn sampled(
    timer: &Timer,
    samples: usize,
    calls: usize,
    mut call: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<f64>> {
    let sample = |_| {
        timer.start()?;
        (0..calls).try_for_each(&mut call)?;
        Ok(timer.stop()?.max(1) as f64 / calls as f64)
    };
    (0..samples).map(sample).collect()
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
