//! A variant of a model and its samples.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use rwkvc::compile::Options;
use rwkvc::load;
use rwkvc::measure::{KernelRow, Spread, arithmetic, kernel_rows};
use rwkvc::roof::Roofs;
use rwkvc_abi::{Program, ProgramKind};
use rwkvc_runtime::{Model, Session};
use serde::Serialize;

use super::batch::{BatchRow, Batches};
use super::prefill::{self, PrefillRow};

/// One variant, measured.
#[derive(Serialize)]
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) threads: usize,
    /// Whether its schedules are what `rwkvc tune` found.
    pub(super) tuned: bool,
    pub(super) launches: usize,
    /// Tokens a second.
    pub(super) decode: Spread,
    /// Tokens a second; absent with `--prefill 0`.
    pub(super) prefill: Option<Spread>,
    /// Of the arithmetic peak, of the median prefill; absent for quantised weights.
    pub(super) prefill_peak_share: Option<f64>,
    pub(super) bytes_per_token: u64,
    /// Dense bytes a second of the median decode.
    pub(super) gb_s: f64,
    /// Of the measured roof.
    pub(super) roof_share: f64,
    pub(super) compile_s: f64,
    pub(super) kernels: Vec<KernelRow>,
    /// Of the prompt; empty without one.
    pub(super) prefill_kernels: Vec<PrefillRow>,
    pub(super) batches: Vec<BatchRow>,
}

/// A variant that is being measured.
pub(super) struct Variant {
    name: String,
    model: Model,
    session: Session,
    compile_s: f64,
    tuned: bool,
    decode: Vec<f64>,
    prefill: Vec<f64>,
    /// Nanoseconds of each launch of the decode program, over all samples.
    times: Vec<u64>,
    profiled: u64,
    /// The same of the prefill program, over all prompts.
    prefill_times: Vec<u64>,
    batches: Option<Batches>,
}

impl Variant {
    pub(super) fn new(
        name: String,
        checkpoint: &Arc<rwkvc_frontend::model::Model>,
        compile: &mut Options<'_>,
        workspace: &rwkvc_runtime::WorkspaceOptions,
        batches: &[usize],
    ) -> Result<Self> {
        let start = Instant::now();
        let model = load::load(checkpoint, compile)?;
        let compile_s = start.elapsed().as_secs_f64();
        model.use_huge_pages();
        let launches = decode_program(&model)?.launches.len();
        let of_prefill = model.manifest().program(ProgramKind::Prefill);
        let prefill_launches = of_prefill.map_or(0, |p| p.launches.len());
        let batches = match batches {
            [] => None,
            sizes => Some(Batches::new(&model, sizes, workspace)?),
        };
        let mut variant = Variant {
            name,
            batches,
            session: Session::new(&model, workspace)?,
            model,
            compile_s,
            tuned: compile.tuning.is_some(),
            decode: vec![],
            prefill: vec![],
            times: vec![0; launches],
            profiled: 0,
            prefill_times: vec![0; prefill_launches],
        };
        // Touch every weight once, so that no sample pays for reading the file.
        variant.step(0)?;
        Ok(variant)
    }

    fn step(&mut self, token: u32) -> Result<()> {
        self.session.step(token)?;
        Ok(())
    }

    /// One sample of decode and prefill, and one profiled step.
    pub(super) fn sample(&mut self, decode: usize, prefill: usize, vocab: usize) -> Result<()> {
        let token = |i: usize| (i * 7919 % vocab) as u32;
        self.step(token(1))?;
        let start = Instant::now();
        for i in 0..decode {
            self.step(token(i))?;
        }
        self.decode.push(decode as f64 / start.elapsed().as_secs_f64());
        self.session
            .profile(ProgramKind::Decode, &[token(2)], &mut self.times)?;
        self.profiled += 1;
        if prefill > 0 {
            let tokens: Vec<u32> = (0..prefill).map(token).collect();
            let start = Instant::now();
            let times = &mut self.prefill_times;
            self.session.profile(ProgramKind::Prefill, &tokens, times)?;
            self.prefill.push(prefill as f64 / start.elapsed().as_secs_f64());
        }
        if let Some(batches) = &mut self.batches {
            batches.sample(decode, token)?;
        }
        Ok(())
    }

    pub(super) fn measured(
        self,
        threads: usize,
        tokens: usize,
        roofs: &Roofs,
        kernels: bool,
    ) -> Result<Measured> {
        let decode = Spread::of(self.decode).context("no decode samples")?;
        let bytes = self.model.manifest().model.bytes_per_token;
        let gb_s = decode.median * bytes as f64 / 1e9;
        let program = decode_program(&self.model)?;
        let batches = self
            .batches
            .map(|b| b.measured(&self.model, decode.median, roofs, kernels));
        let prompts = self.prefill.len() as u64;
        let prefill = Spread::of(self.prefill);
        let manifest = self.model.manifest();
        let prefill_program = manifest.program(ProgramKind::Prefill);
        let prefill_work = prefill_program.and_then(|p| arithmetic(manifest, p, tokens));
        let prefill_peak_share = prefill.zip(prefill_work).map(|(speed, work)| {
            let gflop_s = speed.median / tokens as f64 * work / 1e9;
            gflop_s / roofs.arithmetic
        });
        let (mut rows, mut prefill_rows) = (vec![], vec![]);
        if kernels {
            rows = kernel_rows(manifest, program, &self.times, self.profiled);
            if let Some(program) = prefill_program {
                let times = (&self.prefill_times[..], prompts);
                prefill_rows = prefill::rows(manifest, program, tokens, times, roofs.arithmetic);
            }
        }
        Ok(Measured {
            name: self.name,
            threads,
            tuned: self.tuned,
            launches: program.launches.len(),
            decode,
            prefill,
            prefill_peak_share,
            bytes_per_token: bytes,
            gb_s,
            roof_share: gb_s / roofs.memory,
            compile_s: self.compile_s,
            kernels: rows,
            prefill_kernels: prefill_rows,
            batches: batches.unwrap_or_default(),
        })
    }
}

fn decode_program(model: &Model) -> Result<&Program> {
    model
        .manifest()
        .program(ProgramKind::Decode)
        .context("the model has no decode program")
}
