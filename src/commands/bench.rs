//! `rwkvc bench`: decode, prefill and batches of variants, interleaved, beside the memory bandwidth and the arithmetic peak
//! measured in the same run.

mod batch;
mod gpu;
mod prefill;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use rwkvc::backends;
use rwkvc::compile::Options;
use rwkvc::load;
use rwkvc::measure::{KernelRow, Spread, arithmetic, kernel_rows};
use rwkvc::roof::{Roof, Roofs};
use rwkvc::tables::table;
use rwkvc_abi::{Program, ProgramKind};
use rwkvc_backend_api::Arch;
use rwkvc_passes::narrow_activations::Activations;
use rwkvc_passes::pipeline::{STANDARD, Selection};
use rwkvc_passes::quantize::Formats;
use rwkvc_runtime::{Artifact, Model, Session};
use serde::Serialize;

use crate::args::{Codegen, Device, Format, GpuMode, Output, Threads};
use crate::{options, output, progress};
use batch::{BatchRow, Batches};
use prefill::PrefillRow;

/// `rwkvc bench`
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The checkpoint, or a file that was compiled for GPUs
    model: PathBuf,
    /// What to compare: `fused`, `unfused`, `no-PASS` for all but one pass; `untuned` for schedules that were not measured,
    /// `stored`, `int8` or `int4` for other weights, `bf16-activations` for other activations. Default: fused,unfused
    #[arg(long, value_delimiter = ',', value_name = "VARIANTS")]
    compare: Option<Vec<String>>,
    /// Also switch off each fusion alone
    #[arg(long)]
    ablation: bool,
    /// Tokens of one decode sample
    #[arg(long, value_name = "N", default_value_t = 16)]
    decode: usize,
    /// Tokens of one prefill sample; 0 for none. Several lengths, separated by commas, on a GPU. Default: 128, on a GPU
    /// 512,2048
    #[arg(long, value_delimiter = ',', value_name = "N")]
    prefill: Option<Vec<usize>>,
    /// Also measure batches of so many states, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "SIZES")]
    batch: Vec<usize>,
    /// How steps are started, separated by commas (GPUs). Default: launches,graph,persistent
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MODES")]
    modes: Option<Vec<GpuMode>>,
    #[command(flatten)]
    device: Device,
    /// Samples of each variant, taken in turn
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    samples: u16,
    /// Leave out the table of kernels
    #[arg(long)]
    no_kernels: bool,
    #[command(flatten)]
    codegen: Codegen,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    out: Output,
}

/// The variant with schedules that were not measured.
const UNTUNED: &str = "untuned";

/// Tokens of a prompt if it is not said.
const PREFILL: usize = 128;

/// One variant, measured.
#[derive(Serialize)]
struct Measured {
    name: String,
    threads: usize,
    /// Whether its schedules are what `rwkvc tune` found.
    tuned: bool,
    launches: usize,
    /// Tokens a second.
    decode: Spread,
    /// Tokens a second; absent with `--prefill 0`.
    prefill: Option<Spread>,
    /// Of the arithmetic peak, of the median prefill; absent for quantised weights.
    prefill_peak_share: Option<f64>,
    bytes_per_token: u64,
    /// Dense bytes a second of the median decode.
    gb_s: f64,
    /// Of the measured roof.
    roof_share: f64,
    compile_s: f64,
    kernels: Vec<KernelRow>,
    /// Of the prompt; empty without one.
    prefill_kernels: Vec<PrefillRow>,
    batches: Vec<BatchRow>,
}

#[derive(Serialize)]
struct Report {
    model: String,
    backend: &'static str,
    target: String,
    threads: usize,
    /// Read bandwidth over four streams, measured between the samples.
    roof_gb_s: f64,
    roof: Spread,
    /// Products and sums of f32 in registers, measured between the samples.
    peak_gflop_s: f64,
    peak: Spread,
    decode_tokens: usize,
    prefill_tokens: usize,
    samples: usize,
    variants: Vec<Measured>,
}

/// A variant that is being measured.
struct Variant {
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

/// Runs the command.
pub(crate) fn run(args: &Bench) -> Result<()> {
    if args.decode == 0 {
        bail!("--decode is 0: there is nothing to measure");
    }
    if load::is_artifact(&args.model)? {
        let artifact =
            Artifact::open(&args.model).with_context(|| format!("opening `{}`", args.model.display()))?;
        if artifact.manifest().is_for_gpus() {
            return gpu::artifact(args, artifact);
        }
    } else if backends::target(&args.codegen.target)?.arch == Arch::Cuda {
        return gpu::checkpoint(args);
    }
    let prefill = processor_options(args)?;
    let checkpoint = options::checkpoint(&args.model)?;
    let selections = selections(args, options::formats(&args.codegen.passes, &checkpoint))?;
    let mut after = options::printer(&args.codegen.passes)?;
    let mut programs = vec![ProgramKind::Decode];
    programs.extend((prefill > 0).then_some(ProgramKind::Prefill));
    programs.extend((!args.batch.is_empty()).then_some(ProgramKind::Batch));
    let mut compile = options::compile_options(&args.codegen, &programs, &mut after)?;
    let base = options::selection(&args.codegen.passes)?;
    let formats = options::formats(&args.codegen.passes, &checkpoint);
    compile.passes = base.with_formats(formats.clone());
    let tuned = options::tune(&args.codegen, &args.model, &checkpoint, &mut compile)?;
    let workspace = options::workspace(args.threads, tuned);

    let bar = progress::bar(
        (selections.len() * (1 + usize::from(args.samples))) as u64,
        "compiling and measuring",
    );
    let mut variants = vec![];
    for (name, passes) in selections {
        options::refuse_narrow_on_processors(&passes)?;
        // A tuning is for the formats that it was measured with.
        let is_tuned = name != UNTUNED && *passes.formats() == formats;
        compile.tuning = tuned.filter(|_| is_tuned).and_then(|choice| choice.tuning);
        compile.passes = passes;
        variants.push(Variant::new(
            name,
            &checkpoint,
            &mut compile,
            &workspace,
            &args.batch,
        )?);
        bar.inc(1);
    }
    let mut roof = Roof::new(&compile, &workspace)?;
    let mut roofs = vec![roof.measure()?];
    let vocab = checkpoint.config().vocab;
    for _ in 0..args.samples {
        for variant in &mut variants {
            variant.sample(args.decode, prefill, vocab)?;
            bar.inc(1);
        }
        roofs.push(roof.measure()?);
    }
    bar.finish_and_clear();

    let spread = |of: fn(&Roofs) -> f64| Spread::of(roofs.iter().map(of).collect());
    let roof = spread(|r| r.memory).context("the roof was not measured")?;
    let peak = spread(|r| r.arithmetic).context("the peak was not measured")?;
    let best = Roofs {
        memory: roof.max,
        arithmetic: peak.max,
    };
    let backend = compile.backend.name();
    let report = Report {
        model: args.model.display().to_string(),
        backend,
        target: compile.target.to_string(),
        threads: workspace.threads,
        roof_gb_s: roof.max,
        roof,
        peak_gflop_s: peak.max,
        peak,
        decode_tokens: args.decode,
        prefill_tokens: prefill,
        samples: usize::from(args.samples),
        variants: variants
            .into_iter()
            .map(|v| v.measured(workspace.threads, prefill, &best, !args.no_kernels))
            .collect::<Result<_>>()?,
    };
    if args.out.format == Format::Json {
        output::json(&report)
    } else {
        output::print(&text(&report))
    }
}

/// The length of the prompt. What only GPUs do is refused.
fn processor_options(args: &Bench) -> Result<usize> {
    let given = [
        ("--modes", args.modes.is_some()),
        ("--device", args.device.device.is_some()),
    ];
    if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
        bail!("{option} is for GPUs, and this is measured on a processor: give --target cuda");
    }
    match args.prefill.as_deref() {
        None => Ok(PREFILL),
        Some([length]) => Ok(*length),
        Some(lengths) => bail!(
            "--prefill has {} lengths: a processor is measured with one",
            lengths.len()
        ),
    }
}

/// The variants to compare, by name.
fn selections(args: &Bench, formats: Formats) -> Result<Vec<(String, Selection)>> {
    let base = options::selection(&args.codegen.passes)?.with_formats(formats);
    let default = || ["fused", "unfused"].map(String::from).to_vec();
    let mut names = args.compare.clone().unwrap_or_else(default);
    let compared = names.clone();
    if args.ablation {
        let fusions = STANDARD
            .iter()
            .filter(|p| p.fuses)
            .map(|p| format!("no-{}", p.name));
        names.extend(fusions.filter(|n| !compared.contains(n)).collect::<Vec<_>>());
    }
    let selection = |name: &String| match (name.as_str(), name.strip_prefix("no-")) {
        ("fused" | UNTUNED, _) => Ok(base.clone()),
        ("unfused", _) => Ok(Selection::unfused().with_formats_of(&base)),
        ("stored" | "int8" | "int4", _) => Ok(base.clone().with_formats(name.parse()?)),
        ("bf16-activations", _) => Ok(base.clone().with_activations(Activations::BF16)),
        (_, Some(pass)) => Ok(base.clone().without(&[pass])?),
        _ => bail!(
            "there is no variant `{name}`: expected fused, unfused, untuned, no-PASS, stored, int8, int4 or \
             bf16-activations"
        ),
    };
    names.iter().map(|n| Ok((n.clone(), selection(n)?))).collect()
}

impl Variant {
    fn new(
        name: String,
        checkpoint: &std::sync::Arc<rwkvc_frontend::model::Model>,
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
    fn sample(&mut self, decode: usize, prefill: usize, vocab: usize) -> Result<()> {
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

    fn measured(self, threads: usize, tokens: usize, roofs: &Roofs, kernels: bool) -> Result<Measured> {
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

/// Bytes of weights that one call of a program reads.
fn weight_bytes(program: &Program) -> u64 {
    program.launches.iter().map(|l| l.weight_bytes).sum()
}

fn text(r: &Report) -> String {
    let mut text = format!(
        "{}: {} for {}, {} threads\nmemory roof {:.1} GB/s (least {:.1}), four streams, measured between the samples\n\
         arithmetic peak {:.0} GFLOP/s (least {:.0}), f32 in registers\n\n",
        r.model, r.backend, r.target, r.threads, r.roof_gb_s, r.roof.min, r.peak_gflop_s, r.peak.min
    );
    let first = r.variants.first().map_or(0.0, |v| v.decode.median);
    let cells = |v: &Measured| {
        vec![
            v.name.clone(),
            format!("{:.1}", v.decode.median),
            format!("{:.1}–{:.1}", v.decode.min, v.decode.max),
            format!("{:.2}", v.decode.median / first),
            v.prefill.map_or("–".into(), |p| format!("{:.1}", p.median)),
            v.prefill_peak_share
                .map_or("–".into(), |share| format!("{:.0} %", 100.0 * share)),
            format!("{:.1}", v.bytes_per_token as f64 / 1e6),
            format!("{:.1}", v.gb_s),
            format!("{:.0} %", 100.0 * v.roof_share),
            v.launches.to_string(),
            format!("{:.2}", v.compile_s),
        ]
    };
    let head = [
        "variant",
        "decode tok/s",
        "range",
        "×",
        "prefill tok/s",
        "peak",
        "MB/token",
        "GB/s",
        "roof",
        "launches",
        "compile s",
    ];
    text += &table(&head, &r.variants.iter().map(cells).collect::<Vec<_>>());
    for v in r.variants.iter().filter(|v| !v.batches.is_empty()) {
        text += &format!("\n{}, a token of each member of a batch\n", v.name);
        text += &batch::text(&v.batches);
    }
    for v in &r.variants {
        text += &kernels(&format!("{}, one decode step", v.name), &v.kernels);
        if !v.prefill_kernels.is_empty() {
            text += &format!("\n{}, a prompt of {} tokens\n", v.name, r.prefill_tokens);
            text += &prefill::text(&v.prefill_kernels);
        }
        if let Some(b) = v.batches.last() {
            text += &kernels(
                &format!("{}, one step of {} members", v.name, b.members),
                &b.kernels,
            );
        }
    }
    text
}

/// A table of the kernels, if there are any.
fn kernels(title: &str, rows: &[KernelRow]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let cells = |k: &KernelRow| {
        vec![
            k.kernel.clone(),
            k.calls.to_string(),
            format!("{:.2}", k.bytes as f64 / 1e6),
            format!("{:.1}", k.us),
            format!("{:.1}", k.gb_s),
            format!("{:.1} %", 100.0 * k.share_of_step),
        ]
    };
    let head = ["kernel", "calls", "MB", "µs", "GB/s", "time"];
    format!("\n{title}\n") + &table(&head, &rows.iter().map(cells).collect::<Vec<_>>())
}
