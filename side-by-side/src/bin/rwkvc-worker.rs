//! rwkvc's runtime as an engine of the side-by-side bench: a compiled file, and nothing of the compiler.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use rwkvc_runtime::{Model, Session, WorkspaceOptions};
use rwkvc_side_by_side_protocol::{Engine, Opened, serve};

/// Opens a compiled file, and does what comes from standard input.
#[derive(Parser)]
#[command(name = "rwkvc-worker", version)]
struct Cli {
    /// The file
    model: PathBuf,
    /// Threads of the step
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
}

struct Rwkvc(Session);

impl Engine for Rwkvc {
    fn vocab(&self) -> usize {
        self.0.vocab()
    }

    fn reset(&mut self) -> Result<()> {
        Ok(self.0.reset()?)
    }

    fn step(&mut self, token: u32) -> Result<&[f32]> {
        Ok(self.0.step(token)?)
    }

    fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        Ok(self.0.prefill(tokens)?)
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let start = Instant::now();
    let model = Model::open(&cli.model).with_context(|| format!("opening `{}`", cli.model.display()))?;
    let options = WorkspaceOptions {
        threads: usize::from(cli.threads),
        ..WorkspaceOptions::default()
    };
    let session = Session::new(&model, &options)?;
    let load = start.elapsed();
    let manifest = model.manifest();
    let opened = Opened {
        name: manifest.producer.clone(),
        built: format!("{}, {}", manifest.backend, manifest.target.extensions.join(" ")),
        start,
        load,
    };
    // As `rwkvc run` does: the first tokens do not wait for it. It is done before the first sample, which comes after prompts
    // that do not count.
    let moved = model.clone();
    std::thread::spawn(move || moved.use_huge_pages());
    serve(&mut Rwkvc(session), opened)
}
