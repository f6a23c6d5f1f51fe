//! `rwkvc passes`: the passes in their order.

use anyhow::Result;
use clap::Args;
use rwkvc_passes::pipeline::{Pass, STANDARD};
use serde_json::json;

use crate::args::{Format, Output};
use crate::output;

/// `rwkvc passes`
#[derive(Debug, Args)]
pub(crate) struct Passes {
    #[command(flatten)]
    out: Output,
}

/// Runs `rwkvc passes`.
pub(crate) fn run(args: &Passes) -> Result<()> {
    if args.out.format == Format::Json {
        let entry = |p: &Pass| json!({ "name": p.name, "fuses": p.fuses, "summary": p.summary });
        return output::json(&STANDARD.iter().map(entry).collect::<Vec<_>>());
    }
    let mut text = String::new();
    for p in STANDARD {
        text += &format!("{:<18} {}\n", p.name, p.summary);
    }
    output::print(&text)
}
