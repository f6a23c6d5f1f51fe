//! Batches of states: how much faster many are together than one after the other.

use std::time::Instant;

use anyhow::{Result, bail};
use rwkvc::measure::{KernelRow, Spread, arithmetic, kernel_rows};
use rwkvc::roof::Roofs;
use rwkvc::tables::table;
use rwkvc_abi::{Program, ProgramKind};
use rwkvc_runtime::{Batch, Model, State, WorkspaceOptions};
use serde::Serialize;

/// One size of a batch, measured.
#[derive(Serialize)]
pub(super) struct BatchRow {
    pub(super) members: usize,
    /// Tokens a second of all members.
    tokens: Spread,
    /// Of the median, for one member.
    tokens_per_member: f64,
    /// Of one state alone, by the decode program.
    factor: f64,
    /// Of weights, each read once for all members.
    bytes_per_step: u64,
    gb_s: f64,
    /// Of the memory roof.
    roof_share: f64,
    /// Absent for quantised weights.
    gflop_s: Option<f64>,
    /// Of the arithmetic peak.
    peak_share: Option<f64>,
    pub(super) kernels: Vec<KernelRow>,
}

/// A batch that is measured at several sizes.
pub(super) struct Batches {
    batch: Batch,
    fresh: State,
    sizes: Vec<Size>,
}

/// A size that is being measured.
struct Size {
    members: usize,
    samples: Vec<f64>,
    /// Nanoseconds of each launch, over all samples.
    times: Vec<u64>,
}

impl Batches {
    pub(super) fn new(model: &Model, sizes: &[usize], workspace: &WorkspaceOptions) -> Result<Self> {
        let batch = model.batch(workspace)?;
        let capacity = batch.capacity();
        if let Some(n) = sizes.iter().find(|n| !(1..=capacity).contains(*n)) {
            bail!("--batch {n}: expected 1 to {capacity} states");
        }
        let launches = model.manifest().program(ProgramKind::Batch);
        let launches = launches.map_or(0, |p| p.launches.len());
        let size = |&members: &usize| Size {
            members,
            samples: vec![],
            times: vec![0; launches],
        };
        Ok(Batches {
            batch,
            fresh: model.new_state()?,
            sizes: sizes.iter().map(size).collect(),
        })
    }

    /// A sample of each size, of so many steps, and one profiled step.
    pub(super) fn sample(&mut self, steps: usize, token: impl Fn(usize) -> u32 + Copy) -> Result<()> {
        for size in &mut self.sizes {
            let members = size.members;
            while self.batch.members() < members {
                self.batch.join(&self.fresh)?;
            }
            while self.batch.members() > members {
                self.batch.leave(0)?;
            }
            let tokens = |i: usize| (0..members).map(move |member| token(i + 31 * member)).collect();
            let all: Vec<Vec<u32>> = (0..steps).map(tokens).collect();
            self.batch.profile(&all[0], &mut size.times)?;
            let start = Instant::now();
            for tokens in &all {
                self.batch.step(tokens)?;
            }
            let seconds = start.elapsed().as_secs_f64();
            size.samples.push((members * steps) as f64 / seconds);
        }
        Ok(())
    }

    /// `alone` is the speed of one state.
    pub(super) fn measured(self, model: &Model, alone: f64, roofs: &Roofs, kernels: bool) -> Vec<BatchRow> {
        let manifest = model.manifest();
        let Some(program) = manifest.program(ProgramKind::Batch) else {
            return vec![];
        };
        let rows = self.sizes.into_iter().filter_map(|size| {
            let Size {
                members,
                samples,
                times,
            } = size;
            let steps = samples.len() as u64;
            let tokens = Spread::of(samples)?;
            let per_member = tokens.median / members as f64;
            let bytes = weight_bytes(program);
            let gb_s = per_member * bytes as f64 / 1e9;
            let work = arithmetic(manifest, program, members);
            let gflop_s = work.map(|work| per_member * work / 1e9);
            Some(BatchRow {
                members,
                tokens,
                tokens_per_member: per_member,
                factor: tokens.median / alone,
                bytes_per_step: bytes,
                gb_s,
                roof_share: gb_s / roofs.memory,
                gflop_s,
                peak_share: gflop_s.map(|g| g / roofs.arithmetic),
                kernels: match kernels {
                    true => kernel_rows(model.manifest(), program, &times, steps),
                    false => vec![],
                },
            })
        });
        rows.collect()
    }
}

/// A table of the sizes.
pub(super) fn text(rows: &[BatchRow]) -> String {
    let cells = |r: &BatchRow| {
        vec![
            r.members.to_string(),
            format!("{:.1}", r.tokens.median),
            format!("{:.1}–{:.1}", r.tokens.min, r.tokens.max),
            format!("{:.1}", r.tokens_per_member),
            format!("{:.2}", r.factor),
            format!("{:.1}", r.bytes_per_step as f64 / 1e6),
            format!("{:.1}", r.gb_s),
            format!("{:.0} %", 100.0 * r.roof_share),
            r.gflop_s.map_or("–".into(), |g| format!("{g:.0}")),
            r.peak_share
                .map_or("–".into(), |share| format!("{:.0} %", 100.0 * share)),
        ]
    };
    let head = [
        "members", "tok/s", "range", "each", "×", "MB/step", "GB/s", "roof", "GFLOP/s", "peak",
    ];
    table(&head, &rows.iter().map(cells).collect::<Vec<_>>())
}

/// Bytes of weights that one call of a program reads.
fn weight_bytes(program: &Program) -> u64 {
    program.launches.iter().map(|l| l.weight_bytes).sum()
}
