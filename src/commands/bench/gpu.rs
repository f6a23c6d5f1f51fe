//! `rwkvc bench` on a GPU: the same questions, by the clock of the device.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rwkvc::load;
use rwkvc::measure::gpu::{Measured, Row, Workload, measure};
use rwkvc::tables::table;
use rwkvc_abi::ProgramKind;
use rwkvc_passes::quantize::Formats;
use rwkvc_runtime::Artifact;
use rwkvc_runtime::gpu::{DeviceInfo, Driver, GpuModel};
use serde::Serialize;

use super::report::kernels;
use super::{Bench, selections};
use crate::args::Format;
use crate::{open, options, output, progress};

/// Lengths of prompts if none is asked for.
const PREFILL: [usize; 2] = [512, 2048];

#[derive(Serialize)]
struct Device {
    name: String,
    capability: String,
    memory_bytes: u64,
    multiprocessors: u32,
    l2_bytes: u64,
    /// The version of CUDA that the driver knows, as 1000 · major + 10 · minor.
    cuda: u32,
}

#[derive(Serialize)]
struct Variant {
    name: String,
    /// Absent for what was compiled already.
    compile_s: Option<f64>,
    #[serde(flatten)]
    measured: Measured,
}

#[derive(Serialize)]
struct Report {
    model: String,
    backend: String,
    target: String,
    device: Device,
    decode_tokens: usize,
    samples: usize,
    variants: Vec<Variant>,
}

/// Measures a file that was compiled for GPUs.
pub(super) fn artifact(args: &Bench, artifact: Artifact) -> Result<()> {
    let given = [("compare", args.compare.is_some()), ("ablation", args.ablation)];
    let given = given.iter().find(|(_, given)| *given).map(|(option, _)| *option);
    if let Some(option) = given.or(options::codegen_option(&args.codegen)) {
        bail!(
            "`{}` is compiled already: --{option} goes with a checkpoint",
            args.model.display()
        );
    }
    let work = workload(args)?;
    let driver = open::driver(args.device)?;
    let manifest = artifact.manifest();
    for program in work.programs() {
        if manifest.program(program).is_none() {
            bail!(
                "`{}` was compiled without its {program} program",
                args.model.display()
            );
        }
    }
    let (backend, target) = (manifest.backend.clone(), manifest.target.arch.clone());
    let device = device(driver.info());
    let model = GpuModel::from_artifact(artifact, driver)
        .with_context(|| format!("opening `{}`", args.model.display()))?;
    let measured = measured(&[&model], &work, args)?.into_iter();
    let variants = measured.map(|measured| Variant {
        name: "compiled".into(),
        compile_s: None,
        measured,
    });
    let variants = variants.collect();
    show(args, backend, target, device, variants)
}

/// Measures variants of a checkpoint: in turn those that fit in the device's memory together, one after the other if no two do.
pub(super) fn checkpoint(args: &Bench) -> Result<()> {
    let work = workload(args)?;
    let selections = selections(args, Formats::default())?;
    let checkpoint = open::checkpoint(&args.model)?;
    let mut after = options::printer(&args.codegen.passes)?;
    let mut compile = options::compile_options(&args.codegen, &work.programs(), &mut after)?;
    for (_, passes) in &selections {
        options::check_activations(passes.settings(), &checkpoint)?;
    }
    // First, so that nothing is compiled where nothing can run.
    let driver = open::driver(args.device)?;
    let bar = progress::bar(2 * selections.len() as u64, "compiling and measuring");
    let mut variants = vec![];
    let mut left = selections.into_iter().peekable();
    while left.peek().is_some() {
        let mut together: Vec<Loaded> = vec![];
        while let Some((name, passes)) = left.next_if(|_| has_room(&*driver, &together)) {
            compile.passes = passes;
            let (start, free) = (Instant::now(), driver.free_memory()?);
            let model = load::load_on_gpu(&checkpoint, &mut compile, Arc::clone(&driver) as Arc<dyn Driver>)?;
            together.push(Loaded {
                name,
                compile_s: start.elapsed().as_secs_f64(),
                bytes: free.saturating_sub(driver.free_memory()?),
                model,
            });
            bar.inc(1);
        }
        let models: Vec<&GpuModel> = together.iter().map(|loaded| &loaded.model).collect();
        for (measured, loaded) in measured(&models, &work, args)?.into_iter().zip(&together) {
            variants.push(Variant {
                name: loaded.name.clone(),
                compile_s: Some(loaded.compile_s),
                measured,
            });
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let (backend, target) = (compile.backend.name().into(), compile.target.to_string());
    show(args, backend, target, device(driver.info()), variants)
}

/// A variant on the device.
struct Loaded {
    name: String,
    compile_s: f64,
    /// What its weights take of the device's memory.
    bytes: u64,
    model: GpuModel,
}

/// Whether another variant fits beside those that are there, with the states and activations of all.
fn has_room(driver: &dyn Driver, there: &[Loaded]) -> bool {
    let largest = there.iter().map(|loaded| loaded.bytes).max();
    // As much again is left for each.
    largest.is_none_or(|bytes| {
        let needed = (there.len() as u64 + 2).saturating_mul(bytes);
        driver.free_memory().is_ok_and(|free| free >= needed)
    })
}

fn workload(args: &Bench) -> Result<Workload> {
    if args.batch.contains(&0) {
        bail!("--batch 0: a batch has one state at least");
    }
    if args.threads.threads.is_some() {
        bail!("--threads is for CPUs, and this is measured on a GPU");
    }
    let prefills = args.prefill.as_deref().unwrap_or(&PREFILL);
    Ok(Workload {
        modes: open::modes(args.modes.as_deref()),
        decode: args.decode,
        batches: args.batch.clone(),
        prefills: prefills.iter().copied().filter(|&n| n > 0).collect(),
        samples: usize::from(args.samples),
    })
}

fn measured(models: &[&GpuModel], work: &Workload, args: &Bench) -> Result<Vec<Measured>> {
    let mut all = measure(models, work)?;
    if args.no_kernels {
        all.iter_mut().for_each(|measured| measured.kernels.clear());
    }
    Ok(all)
}

fn device(info: &DeviceInfo) -> Device {
    let (major, minor) = info.capability;
    Device {
        name: info.name.clone(),
        capability: format!("sm_{major}{minor}"),
        memory_bytes: info.memory_bytes,
        multiprocessors: info.multiprocessors,
        l2_bytes: info.l2_bytes,
        cuda: info.driver_version,
    }
}

fn show(args: &Bench, backend: String, target: String, device: Device, variants: Vec<Variant>) -> Result<()> {
    let report = Report {
        model: args.model.display().to_string(),
        backend,
        target,
        device,
        decode_tokens: args.decode,
        samples: usize::from(args.samples),
        variants,
    };
    match args.out.format {
        Format::Json => output::json(&report),
        Format::Text => output::print(&text(&report)),
    }
}

fn text(r: &Report) -> String {
    let d = &r.device;
    let mut text = format!(
        "{}: {} for {}, on {} ({}, {} multiprocessors, {:.0} GB)\n",
        r.model,
        r.backend,
        r.target,
        d.name,
        d.capability,
        d.multiprocessors,
        d.memory_bytes as f64 / 1e9,
    );
    let copy = r.variants.iter().map(|v| v.measured.copy_gb_s.max);
    text += &format!(
        "copies {:.1} GB/s, read and written, measured between the samples\n\n",
        copy.fold(0.0, f64::max)
    );
    let share = |share: Option<f64>| share.map_or("–".into(), |s| format!("{:.0} %", 100.0 * s));
    let cells = |v: &Variant, row: &Row| {
        let what = match row.what {
            ProgramKind::Decode => "decode".into(),
            ProgramKind::Sample => "decode, choosing".into(),
            what => format!("{what} {}", row.tokens),
        };
        let rate = row.tokens_per_s;
        vec![
            v.name.clone(),
            what,
            row.mode.into(),
            format!("{:.1}", rate.median),
            format!("{:.1}–{:.1}", rate.min, rate.max),
            format!("{:.3}", row.ms),
            row.gb_s.map_or("–".into(), |x| format!("{x:.1}")),
            share(row.copy_share),
        ]
    };
    let rows = r
        .variants
        .iter()
        .flat_map(|v| v.measured.rows.iter().map(move |row| (v, row)));
    let head = ["variant", "", "mode", "tok/s", "range", "ms", "GB/s", "of copy"];
    text += &table(&head, &rows.map(|(v, row)| cells(v, row)).collect::<Vec<_>>());
    for v in &r.variants {
        let m = &v.measured;
        text += &format!(
            "\n{}: {} launches a step, {:.1} MB of weights",
            v.name,
            m.launches,
            m.bytes_per_token as f64 / 1e6
        );
        text += &v
            .compile_s
            .map_or("\n".into(), |s| format!(", compiled and loaded in {s:.2} s\n"));
        text += &kernels(&format!("{}, one decode step", v.name), &m.kernels);
    }
    text
}
