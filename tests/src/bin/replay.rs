//! Compares what the compiler makes with what is recorded: see `rwkvc_tests::replay`.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use rwkvc_tests::replay::{Scope, bless, compare, compile_all};

/// Compares hashes of all kernels, plans, code and artifacts with those that are recorded in tests/replay. A change of
/// structure leaves them equal.
#[derive(Parser)]
#[command(name = "replay")]
struct Args {
    /// Compile the models that come with the project, not only small ones with random weights
    #[arg(long)]
    all: bool,
    /// Record what is made now; the commit says why it changed
    #[arg(long)]
    bless: bool,
    /// Write kernels, plans and code into this folder, to be compared with those of another version
    #[arg(long, value_name = "FOLDER")]
    dump: Option<PathBuf>,
    /// Print each row
    #[arg(short, long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let scope = if args.all { Scope::All } else { Scope::Small };
    let rows = compile_all(scope, args.dump.as_deref(), &mut |row| {
        if args.verbose {
            println!("{row}");
        }
    });
    let outcome = match args.bless {
        true => bless(scope, &rows).map(|()| {
            println!("{} rows recorded in {}", rows.len(), scope.path().display());
            ExitCode::SUCCESS
        }),
        false => compare(scope, &rows).map(|(differences, notes)| {
            notes.iter().for_each(|note| println!("note: {note}"));
            differences.iter().for_each(|difference| println!("{difference}"));
            println!("{} of {} rows differ", differences.len(), rows.len());
            ExitCode::from(u8::from(!differences.is_empty()))
        }),
    };
    outcome.unwrap_or_else(|error| {
        println!("{}: {error}", scope.path().display());
        ExitCode::FAILURE
    })
}
