//! The commands that the command line accepts.

use clap::{Parser, Subcommand};

use crate::commands::{
    bench, compile, convert, eval, generate, inspect, logits, opt, passes, run, targets, tokenize, tune,
    verify,
};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "rwkvc",
    version,
    about = "An ahead-of-time compiler for RWKV-7 \"Goose\" language models",
    long_about = "Compiles an RWKV-7 checkpoint into one file of machine code and packed weights, and runs it.\n\n\
        A MODEL is an official .pth, a .safetensors with official or Hugging Face names, a Hugging Face folder, or a \
        .gguf; \
        commands that run a model also take an artifact made by `rwkvc compile`.",
    after_help = "Start here:\n  \
        rwkvc compile model.pth -o model.rwkvc      compile once\n  \
        rwkvc run model.rwkvc --prompt \"Once\"        stream text\n  \
        rwkvc inspect model.pth                     what is in a checkpoint\n  \
        rwkvc bench model.pth                       fused against unfused, measured\n  \
        rwkvc tune model.pth                        find the fastest schedules for this machine\n\n\
        Results go to standard output, everything else to standard error. \
        Exit status: 0 done, 1 failed, 2 wrong usage."
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Compile a checkpoint: to an artifact that runs anywhere like this machine, or to any stage in between
    Compile(compile::Compile),
    /// Generate text from a checkpoint (compiled on the spot) or an artifact
    Run(run::Run),
    /// Print the logits that a model gives for some tokens
    Logits(logits::Logits),
    /// Compare every backend, fused and unfused, with the f64 reference evaluator, layer by layer
    Verify(verify::Verify),
    /// Measure decode and prefill, fused against unfused, and each fusion's share
    Bench(bench::Bench),
    /// Find the schedules and the number of threads that are fastest for a model on this machine, for later commands
    Tune(tune::Tune),
    /// Show what a checkpoint contains
    Inspect(inspect::Inspect),
    /// Run named passes over a graph in text form
    Opt(opt::Opt),
    /// Bits per byte and perplexity of a text
    Eval(eval::Eval),
    /// Turn text into token ids, or back
    Tokenize(tokenize::Tokenize),
    /// List the backends, target levels and what this machine has
    Targets(targets::Targets),
    /// List the passes in the order that they run
    Passes(passes::Passes),
    /// Write a checkpoint as .safetensors or .gguf, perhaps with other number formats
    Convert(convert::Convert),
    /// Write a checkpoint with random weights, at any size, for measuring
    Generate(generate::Generate),
}
