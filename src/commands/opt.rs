//! `rwkvc opt`: graph text in, passes, graph text out.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use rwkvc_ir::graph::{ParseError, parse};
use rwkvc_passes::fuel::Fuel;
use rwkvc_passes::pipeline;
use serde_json::json;

use crate::args::{Format, Output, PassOptions};
use crate::diagnostic::TextError;
use crate::{options, output};

/// `rwkvc opt`
#[derive(Debug, Args)]
pub(crate) struct Opt {
    /// A graph in text form; `-` for standard input
    input: PathBuf,
    /// Print Graphviz instead of text
    #[arg(long)]
    dot: bool,
    #[command(flatten)]
    passes: PassOptions,
    #[command(flatten)]
    out: Output,
}

/// Runs the command.
pub(crate) fn run(args: &Opt) -> Result<()> {
    let name = args.input.display();
    let mut text = String::new();
    if args.input.as_os_str() == "-" {
        std::io::stdin()
            .lock()
            .read_to_string(&mut text)
            .context("reading the graph from standard input")?;
    } else {
        let bytes = std::fs::read(&args.input).with_context(|| format!("reading `{name}`"))?;
        text = String::from_utf8(bytes).with_context(|| format!("`{name}` is not text"))?;
    }
    let graph = parse(&text).map_err(|error| {
        let ParseError {
            line,
            column,
            problem,
        } = error;
        TextError::new(&name, text, (line, column), &problem)
    })?;
    let before = graph.node_count();
    let passes = options::selection(&args.passes)?;
    let mut after = options::printer(&args.passes)?;
    let mut fuel = Fuel::new(args.passes.fuel);
    let graph = pipeline::run(graph, &passes, &mut fuel, &mut after)?;
    let text = if args.dot {
        graph.to_dot()
    } else {
        graph.to_string()
    };
    if args.out.format == Format::Json {
        return output::json(&json!({
            "passes": passes.names(),
            "rewrites": fuel.used(),
            "nodes_before": before,
            "nodes_after": graph.node_count(),
            "graph": text,
        }));
    }
    output::print(&text)
}
