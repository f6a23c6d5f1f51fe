//! Measures variants on a CPU.

use anyhow::{Context, Result, bail};
use rwkvc::measure::Spread;
use rwkvc::roof::{Roof, Roofs};
use rwkvc_abi::ProgramKind;
use rwkvc_passes::quantize::Formats;

use super::report::{Report, text};
use super::variant::Variant;
use super::{Bench, UNTUNED, selections};
use crate::args::Format;
use crate::{open, options, output, progress, tuned};

/// Tokens of a prompt if it is not said.
const PREFILL: usize = 128;

/// Measures a checkpoint.
pub(super) fn checkpoint(args: &Bench) -> Result<()> {
    let prefill = prompt_length(args)?;
    let checkpoint = open::checkpoint(&args.model)?;
    let selections = selections(args, options::formats(&args.codegen.passes, &checkpoint))?;
    let mut after = options::printer(&args.codegen.passes)?;
    let mut programs = vec![ProgramKind::Decode];
    programs.extend((prefill > 0).then_some(ProgramKind::Prefill));
    programs.extend((!args.batch.is_empty()).then_some(ProgramKind::Batch));
    let mut compile = options::compile_options(&args.codegen, &programs, &mut after)?;
    let base = options::selection(&args.codegen.passes)?;
    let formats = options::formats(&args.codegen.passes, &checkpoint);
    compile.passes = base.with(formats.clone());
    let tuned = tuned::tune(&args.codegen, &args.model, &checkpoint, &mut compile)?;
    let workspace = open::workspace(args.threads, tuned);

    let bar = progress::bar(
        (selections.len() * (1 + usize::from(args.samples))) as u64,
        "compiling and measuring",
    );
    let mut variants = vec![];
    for (name, passes) in selections {
        options::refuse_bf16_on_cpus(&passes)?;
        // A tuning is for the formats that it was measured with.
        let is_tuned = name != UNTUNED && passes.setting::<Formats>() == formats;
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

/// The length of the prompt. Refuses the arguments for GPUs.
fn prompt_length(args: &Bench) -> Result<usize> {
    let given = [
        ("--modes", args.modes.is_some()),
        ("--device", args.device.device.is_some()),
    ];
    if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
        bail!("{option} is for GPUs, and this is measured on a CPU: give --target cuda");
    }
    match args.prefill.as_deref() {
        None => Ok(PREFILL),
        Some([length]) => Ok(*length),
        Some(lengths) => bail!(
            "--prefill has {} lengths: a CPU is measured with one",
            lengths.len()
        ),
    }
}
