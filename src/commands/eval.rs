//! `rwkvc eval`: how well a model predicts a text.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use rwkvc_abi::ProgramKind;
use rwkvc_runtime::tokenizer::END_OF_TEXT;
use serde_json::json;

use crate::args::{Codegen, Format, OnGpu, Output, Threads};
use crate::{commands, open, output, progress};

/// `rwkvc eval`
#[derive(Debug, Args)]
pub(crate) struct Eval {
    /// A checkpoint or an artifact
    model: PathBuf,
    /// The text
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Do not start with token 0
    #[arg(long)]
    no_bos: bool,
    /// Vocabulary file. Default: by the model's vocabulary size
    #[arg(long, value_name = "FILE")]
    vocab: Option<PathBuf>,
    #[command(flatten)]
    codegen: Codegen,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    gpu: OnGpu,
    #[command(flatten)]
    out: Output,
}

/// Runs the command.
pub(crate) fn run(args: &Eval) -> Result<()> {
    let text = std::fs::read(&args.text).with_context(|| format!("reading `{}`", args.text.display()))?;
    let mut session = open::open(
        &args.model,
        &args.codegen,
        args.threads,
        args.gpu,
        &[ProgramKind::Score],
    )?;
    let tokenizer = commands::tokenizer(args.vocab.as_deref(), session.vocab())?;
    let tokens = tokenizer.encode_bytes(&text)?;
    let start = (!args.no_bos).then_some(END_OF_TEXT);
    let all: Vec<u32> = start.into_iter().chain(tokens).collect();
    if all.len() < 2 {
        bail!(
            "`{}` is too short: there is nothing to predict",
            args.text.display()
        );
    }
    // Every token but the first is predicted from those before it.
    let (inputs, targets) = (&all[..all.len() - 1], &all[1..]);
    let bar = progress::bar(inputs.len() as u64, "tokens");
    let mut nats = 0.0;
    let mut hits = 0usize;
    let mut failed = None;
    session.score(inputs, &mut |position, logits| {
        if failed.is_some() {
            return;
        }
        let target = targets[position] as usize;
        match log_probability(logits, target) {
            Ok(log) => nats -= log,
            Err(error) => failed = Some(error.context(format!("at token {position}"))),
        }
        hits += usize::from(logits.iter().all(|&x| x <= logits[target]));
        bar.inc(1);
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    bar.finish_and_clear();
    let n = targets.len();
    // Without a start token, the bytes of the first token are not predicted.
    let unpredicted = if args.no_bos {
        tokenizer.decode(&all[..1])?.len()
    } else {
        0
    };
    let bytes = text.len() - unpredicted;
    let bits_per_byte = nats / std::f64::consts::LN_2 / bytes as f64;
    let per_token = nats / n as f64;
    let accuracy = hits as f64 / n as f64;
    if args.out.format == Format::Json {
        return output::json(&json!({
            "bytes": bytes,
            "tokens": n,
            "bits_per_byte": bits_per_byte,
            "nats_per_token": per_token,
            "perplexity": per_token.exp(),
            "accuracy": accuracy,
        }));
    }
    output::print(&format!(
        "{bits_per_byte:.4} bits per byte ({bytes} bytes)\n{:.4} perplexity per token ({n} tokens)\n{:.2} % of tokens most likely\n",
        per_token.exp(),
        100.0 * accuracy,
    ))
}

/// The natural logarithm of the probability that `logits` give to `target`.
fn log_probability(logits: &[f32], target: usize) -> Result<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - most).exp()).sum();
    let result = f64::from(logits[target] - most) - sum.ln();
    if result.is_nan() {
        bail!("the logits are not numbers; `rwkvc inspect --check` looks for bad weights");
    }
    Ok(result)
}
