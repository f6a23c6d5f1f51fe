//! `rwkvc inspect`

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use rwkvc::load;
use rwkvc::tables::table;
use rwkvc_abi::Manifest;
use rwkvc_frontend::summary::Summary;
use rwkvc_runtime::Artifact;
use serde_json::json;

use crate::args::{Format, Output};
use crate::{open, output};

/// `rwkvc inspect`
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A checkpoint or an artifact
    model: PathBuf,
    /// Look at every weight: report NaN and infinity
    #[arg(long)]
    check: bool,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    #[command(flatten)]
    out: Output,
}

/// Runs the command.
pub(crate) fn run(args: &Inspect) -> Result<()> {
    if load::is_artifact(&args.model)? {
        let artifact = Artifact::open(&args.model)?;
        if args.check {
            artifact.verify()?;
        }
        return match args.out.format {
            Format::Json => output::json(artifact.manifest()),
            Format::Text => output::print(&artifact_text(artifact.manifest(), args.tensors)),
        };
    }
    let model = open::checkpoint(&args.model)?;
    let summary = model.summary();
    let bad = if args.check { model.not_finite() } else { vec![] };
    match args.out.format {
        Format::Json if args.check => output::json(&json!({ "model": summary, "not_finite": bad }))?,
        Format::Json => output::json(&summary)?,
        Format::Text => output::print(&text(&summary, args.tensors))?,
    }
    if let Some(first) = bad.first() {
        let others = if bad.len() > 1 {
            format!(" (and {} weights more)", bad.len() - 1)
        } else {
            String::new()
        };
        bail!(
            "weight `{}` is {} at element {} ({} such elements){others}, expected finite numbers",
            first.name,
            first.value,
            first.index,
            first.count,
        );
    }
    if args.check && args.out.format == Format::Text {
        output::print("\nevery weight is a finite number\n")?;
    }
    Ok(())
}

fn mb(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

fn text(s: &Summary, tensors: bool) -> String {
    let r = s.ranks;
    let formats: Vec<String> = s
        .parameters_by_dtype
        .iter()
        .map(|(d, n)| format!("{n} {d}"))
        .collect();
    let storages: Vec<String> = s
        .parameters_by_storage
        .iter()
        .map(|(name, n)| format!("{n} {name}"))
        .collect();
    let value = r.value.map_or("–".into(), |v| v.to_string());
    let mut text = format!(
        "{}: {}, {:?}\n\n  blocks            {}\n  width             {} ({} heads of {})\n  channel mix       {}\n  vocabulary        {}\n  \
         ranks             decay {}, learning rate {}, value {value}, gate {}\n  parameters        {} ({})\n  \
         weights           {}\n  read per token    {}\n  state             {}\n",
        s.name,
        s.variant,
        s.file_format,
        s.n_layers,
        s.width,
        s.n_heads,
        s.head_size,
        s.ffn,
        s.vocab,
        r.decay,
        r.iclr,
        r.gate,
        s.parameters,
        formats.join(", "),
        mb(s.weight_bytes),
        mb(s.bytes_per_token),
        mb(s.state_bytes),
    );
    if storages.len() != formats.len() || !formats.iter().all(|f| storages.contains(f)) {
        text += &format!("  stored as         {}\n", storages.join(", "));
    }
    if !s.ignored.is_empty() {
        text += &format!("  never used        {}\n", s.ignored.join(", "));
    }
    if tensors {
        let row = |t: &rwkvc_frontend::summary::TensorSummary| {
            vec![
                t.name.clone(),
                if t.storage == t.dtype {
                    t.dtype.clone()
                } else {
                    format!("{} as {}", t.storage, t.dtype)
                },
                format!("{:?}", t.shape),
                t.bytes.to_string(),
            ]
        };
        text += "\n";
        text += &table(
            &["tensor", "format", "shape", "bytes"],
            &s.tensors.iter().map(row).collect::<Vec<_>>(),
        );
    }
    text
}

fn artifact_text(m: &Manifest, tensors: bool) -> String {
    let weights: u64 = m.weights.iter().map(|w| w.bytes).sum();
    let programs: Vec<String> = m
        .programs
        .iter()
        .map(|p| {
            format!(
                "{} ({} launches, {} tokens)",
                p.kind,
                p.launches.len(),
                p.max_tokens
            )
        })
        .collect();
    let mut text = format!(
        "{}: compiled by {} ({}) for {}\n\n  blocks            {}\n  width             {} (heads of {})\n  vocabulary        {}\n  \
         parameters        {} ({})\n  passes            {}\n  programs          {}\n  kernels           {}\n  weights           {}\n  \
         read per token    {}\n  state             {}\n  scratch           {}\n  needs             {}\n",
        m.model.name,
        m.producer,
        m.backend,
        m.target.arch,
        m.model.n_layers,
        m.model.width,
        m.model.head_size,
        m.model.vocab,
        m.model.parameters,
        m.model.dtype,
        m.passes.join(" "),
        programs.join(", "),
        m.kernels.len(),
        mb(weights),
        mb(m.model.bytes_per_token),
        mb(4 * m.state_len()),
        mb(m.arena_bytes),
        m.target.extensions.join(" "),
    );
    if !m.schedule.is_empty() {
        let fields: Vec<String> = m
            .schedule
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        text += &format!("  schedules         {}\n", fields.join(" "));
    }
    if m.model.activations != "f32" {
        text += &format!(
            "  activations       {} for more than one token\n",
            m.model.activations
        );
    }
    if tensors {
        let row = |w: &rwkvc_abi::WeightInfo| {
            vec![
                w.name.clone(),
                w.dtype.clone(),
                format!("{:?}", w.shape),
                w.bytes.to_string(),
            ]
        };
        text += "\n";
        text += &table(
            &["weight", "format", "shape", "bytes"],
            &m.weights.iter().map(row).collect::<Vec<_>>(),
        );
    }
    text
}
