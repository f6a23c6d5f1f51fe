//! The `rwkvc` command line.

mod args;
mod cli;
mod commands;
mod diagnostic;
mod emit;
mod open;
mod options;
mod output;
mod progress;
mod tuned;

use std::process::ExitCode;

use clap::Parser;
use diagnostic::TextError;
use rwkvc_passes::pipeline::PassError;

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
            output::note(&format!("error: {}", message(&error)));
            if let Some(error) = error.downcast_ref::<TextError>() {
                output::note(&error.excerpt());
            }
            if let Some(bug) = error.downcast_ref::<PassError>() {
                return report(bug);
            }
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, each said once: some errors say their cause themselves.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text += &format!(": {cause}");
        }
    }
    text
}

/// A pass left an invalid graph, which is a bug of rwkvc: saves the graph from before it, so that it can be told.
fn report(bug: &PassError) -> ExitCode {
    let path = std::env::temp_dir().join(format!("rwkvc-before-{}.rwir", bug.pass));
    match rwkvc_runtime::write_whole(&path, bug.before.as_bytes()) {
        Ok(()) => output::note(&format!(
            "this is a bug of rwkvc; the graph from before the pass is in `{}`\n\
             leave the pass out with --no-pass {} to go on",
            path.display(),
            bug.pass,
        )),
        Err(error) => output::note(&format!(
            "this is a bug of rwkvc, and its graph could not be saved: {error}"
        )),
    }
    ExitCode::from(101)
}

/// Whether whoever read the result has seen enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
