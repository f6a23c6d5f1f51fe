//! `rwkvc logits`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use rwkvc_abi::ProgramKind;
use serde_json::json;

use crate::args::{Codegen, Format, OnGpu, Output, Threads};
use crate::{open, output};

/// `rwkvc logits`
#[derive(Debug, Args)]
pub(crate) struct Logits {
    /// A checkpoint or an artifact
    model: PathBuf,
    /// Token ids separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
    /// A list for every position, not only the last
    #[arg(long)]
    all: bool,
    /// Feed the tokens one by one through the decode program
    #[arg(long)]
    step: bool,
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
pub(crate) fn run(args: &Logits) -> Result<()> {
    let program = match (args.step, args.all) {
        (true, _) => ProgramKind::Decode,
        (false, true) => ProgramKind::Score,
        (false, false) => ProgramKind::Prefill,
    };
    let mut session = open::open(&args.model, &args.codegen, args.threads, args.gpu, &[program])?;
    let mut rows: Vec<Vec<f32>> = vec![];
    match program {
        ProgramKind::Decode => {
            for &token in &args.tokens {
                let logits = session.step(token)?;
                if !args.all {
                    rows.clear();
                }
                rows.push(logits.to_vec());
            }
        }
        ProgramKind::Score => session.score(&args.tokens, &mut |_, logits| rows.push(logits.to_vec()))?,
        ProgramKind::Prefill | ProgramKind::Batch | ProgramKind::Sample => {
            rows.push(session.prefill(&args.tokens)?.to_vec())
        }
    }
    if args.out.format == Format::Json {
        return if args.all {
            output::json(&json!({ "tokens": args.tokens, "logits": rows }))
        } else {
            output::json(&json!({ "tokens": args.tokens, "logits": rows[0] }))
        };
    }
    let first = args.tokens.len() - rows.len();
    for (i, row) in rows.iter().enumerate() {
        let mut best: Vec<(usize, f32)> = row.iter().copied().enumerate().collect();
        best.sort_by(|a, b| b.1.total_cmp(&a.1));
        let shown: Vec<String> = best.iter().take(8).map(|(t, x)| format!("{t}: {x:.4}")).collect();
        output::print(&format!(
            "after token {} ({}):  {}\n",
            first + i,
            args.tokens[first + i],
            shown.join("  ")
        ))?;
    }
    Ok(())
}
