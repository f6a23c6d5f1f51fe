//! Measures rwkvc and llama.cpp side by side.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use rwkvc_runtime::write_whole;
use rwkvc_side_by_side::args::{Cli, Format};
use rwkvc_side_by_side::report::Report;
use rwkvc_side_by_side::{chart, measure, tables};

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let report = match &cli.from {
        Some(path) => read(path)?,
        None => measure::measure(cli, &mut note)?,
    };
    let json = serde_json::to_string_pretty(&report)? + "\n";
    if let Some(folder) = &cli.out {
        std::fs::create_dir_all(folder).with_context(|| format!("creating `{}`", folder.display()))?;
        for (name, text) in [
            ("side-by-side.json", json.as_str()),
            ("side-by-side.svg", &chart::svg(&report)?),
            ("side-by-side.md", &tables::markdown(&report)),
        ] {
            let path = folder.join(name);
            write_whole(&path, text.as_bytes()).with_context(|| format!("writing `{}`", path.display()))?;
        }
    }
    let text = match cli.format {
        Format::Text => tables::text(&report),
        Format::Json => json,
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn read(path: &Path) -> Result<Report> {
    let text = std::fs::read(path).with_context(|| format!("reading `{}`", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("`{}` is no report of side-by-side", path.display()))
}

fn note(text: &str) {
    // Whoever closed standard error does not want to hear it.
    let _ = writeln!(io::stderr(), "{text}");
}
