//! llama.cpp as an engine of the side-by-side bench; and its own quantisation of a checkpoint.

mod engine;
mod quantize;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use llama_cpp_2::llama_backend::LlamaBackend;
use quantize::Format;

/// llama.cpp for the side-by-side bench.
#[derive(Parser)]
#[command(name = "llama-worker", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Open a GGUF file, and do what comes from standard input
    Serve {
        /// The file
        model: PathBuf,
        /// Threads of decode and of prefill
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
        threads: u16,
    },
    /// Quantise a GGUF file
    Quantize {
        /// The file
        input: PathBuf,
        /// Where to write
        output: PathBuf,
        /// The formats of llama.cpp
        #[arg(value_enum)]
        format: Format,
    },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Command::Serve { model, threads } => engine::serve(&model, threads),
        Command::Quantize {
            input,
            output,
            format,
        } => quantize::quantize(&backend()?, &input, &output, format),
    }
}

/// llama.cpp, which says nothing.
fn backend() -> Result<LlamaBackend> {
    let mut backend = LlamaBackend::init()?;
    backend.void_logs();
    Ok(backend)
}
