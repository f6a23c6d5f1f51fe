//! The `rwkvc` command line.

mod cli;
mod commands;
mod options;
mod output;
mod progress;
mod roof;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    // Ctrl-C leaves no half-written file behind. 130 is what shells expect of an interrupted program.
    let handler = ctrlc::set_handler(|| {
        rwkvc_runtime::remove_pending_files();
        std::process::exit(130);
    });
    match handler
        .map_err(anyhow::Error::from)
        .and_then(|()| commands::run(cli.command))
    {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether whoever read the result has seen enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
