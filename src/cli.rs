//! What the command line accepts.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rwkvc_passes::narrow_activations::Activations;
use rwkvc_passes::quantize::Formats;

use crate::emit::Form;

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
    Compile(Compile),
    /// Generate text from a checkpoint (compiled on the spot) or an artifact
    Run(Run),
    /// Print the logits that a model gives for some tokens
    Logits(Logits),
    /// Compare every backend, fused and unfused, with the f64 reference evaluator, layer by layer
    Verify(Verify),
    /// Measure decode and prefill, fused against unfused, and each fusion's share
    Bench(Bench),
    /// Find the schedules and the number of threads that are fastest for a model on this machine, for later commands
    Tune(Tune),
    /// Show what a checkpoint contains
    Inspect(Inspect),
    /// Run named passes over a graph in text form
    Opt(Opt),
    /// Bits per byte and perplexity of a text
    Eval(Eval),
    /// Turn text into token ids, or back
    Tokenize(Tokenize),
    /// List the backends, target levels and what this machine has
    Targets(Targets),
    /// List the passes in the order that they run
    Passes(Passes),
    /// Write a checkpoint as .safetensors or .gguf, perhaps with other number formats
    Convert(Convert),
    /// Write a checkpoint with random weights, at any size, for measuring
    Generate(Generate),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// One JSON document
    Json,
}

/// The option that every command has.
#[derive(Debug, Args)]
pub(crate) struct Output {
    /// How to print the result
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

/// How a checkpoint is turned into code.
#[derive(Clone, Debug, Args)]
pub(crate) struct Codegen {
    /// Code generator: `llvm` (fastest code), `cranelift` (compiles fastest) or `evaluator` (the slow reference).
    /// Default: llvm where it is built in, else cranelift
    #[arg(long)]
    pub(crate) backend: Option<String>,
    /// Machine to compile for: `cpu` (this one), `cuda` (NVIDIA GPUs), or a level such as `cpu:x86-64-v3` or
    /// `cuda:sm_90`; see `rwkvc targets`
    #[arg(long, default_value = "cpu")]
    pub(crate) target: String,
    /// What `rwkvc tune` found, if not MODEL.tuning.json; `none` for the defaults
    #[arg(long, value_name = "FILE")]
    pub(crate) tuning: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) passes: PassOptions,
}

/// Which passes run.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PassOptions {
    /// Run only these passes, separated by commas; `none` for none, `unfused` for all that do not fuse
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) passes: Option<Vec<String>>,
    /// Leave out these passes, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) no_pass: Vec<String>,
    /// Print the graph after a pass to standard error; `all` for each
    #[arg(long, value_name = "PASS")]
    pub(crate) print_after: Option<String>,
    /// How matrices are stored: `stored` (as in the checkpoint), `int8` (8.5 bits a weight) or `int4` (5 bits; the
    /// embedding and the low-rank matrices int8). A class may have its own: `int4,head=int8,lora=stored`; the classes are
    /// emb, head, att, ffn and lora
    #[arg(long, value_name = "FORMATS")]
    pub(crate) weights: Option<Formats>,
    /// What a GPU's matrix units multiply with bf16 matrices, for more than one token: `f32` (activations as they are) or
    /// `bf16` (rounded: a third of the work, and slightly other results). Default: f32
    #[arg(long, value_name = "FORMAT")]
    pub(crate) activations: Option<Activations>,
    /// Stop rewriting after N rewrites: bisects a miscompilation
    #[arg(long, value_name = "N")]
    pub(crate) fuel: Option<u64>,
}

/// How many threads.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Threads {
    /// Threads of the step. Default: what `rwkvc tune` found, else one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
}

/// Which GPU.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Device {
    /// Which GPU, counted from 0 as its driver counts. Default: 0
    #[arg(long, value_name = "N")]
    pub(crate) device: Option<u32>,
}

/// Which GPU, and how a step is started there.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OnGpu {
    /// How a step is started on a GPU; results are the same. Default: auto
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) gpu_mode: Option<GpuMode>,
    #[command(flatten)]
    pub(crate) device: Device,
}

/// How a step is started on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GpuMode {
    /// Kernel after kernel
    Launches,
    /// All kernels recorded once as a CUDA graph, and started together
    Graph,
    /// One kernel that stays on the device for the whole step
    Persistent,
    /// What is known to be good everywhere: `graph`
    Auto,
}

/// `rwkvc compile`
#[derive(Debug, Args)]
pub(crate) struct Compile {
    /// The checkpoint
    pub(crate) model: PathBuf,
    /// Where to write; `-` for standard output (text stages)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// What to write
    #[arg(long, value_parser = Form::parser(), default_value = "artifact")]
    pub(crate) emit: Form,
    #[command(flatten)]
    pub(crate) codegen: Codegen,
    #[command(flatten)]
    pub(crate) out: Output,
}

/// Where the prompt comes from.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Prompt {
    /// The prompt
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) prompt: Option<String>,
    /// A file with the prompt
    #[arg(long, value_name = "FILE")]
    pub(crate) prompt_file: Option<PathBuf>,
    /// Token ids separated by commas, taken as they are
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(crate) tokens: Option<Vec<u32>>,
    /// `-` reads the prompt from standard input
    #[arg(value_name = "-", value_parser = ["-"])]
    pub(crate) stdin: Option<String>,
}

/// `rwkvc run`
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// A checkpoint or an artifact
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) prompt: Prompt,
    /// Most tokens to generate
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) max_tokens: usize,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    /// Do not start a fresh state with token 0
    #[arg(long)]
    pub(crate) no_bos: bool,
    /// Wrap the prompt in the chat template of the G1 models
    #[arg(long)]
    pub(crate) chat: bool,
    /// Stop when this text appears; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) stop: Vec<String>,
    /// Vocabulary file (lines of `id repr length`). Default: by the model's vocabulary size
    #[arg(long, value_name = "FILE")]
    pub(crate) vocab: Option<PathBuf>,
    /// Continue from a saved state
    #[arg(long, value_name = "FILE")]
    pub(crate) state_in: Option<PathBuf>,
    /// Save the state after the last token
    #[arg(long, value_name = "FILE")]
    pub(crate) state_out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) codegen: Codegen,
    #[command(flatten)]
    pub(crate) threads: Threads,
    #[command(flatten)]
    pub(crate) gpu: OnGpu,
    #[command(flatten)]
    pub(crate) out: Output,
}

/// How the next token is chosen.
#[derive(Debug, Args)]
pub(crate) struct Sampling {
    /// 0 takes the most likely token
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub(crate) temperature: f32,
    /// Choose among the N most likely; 0 for all
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) top_k: usize,
    /// Choose among the most likely that together have this probability
    #[arg(long, default_value_t = 0.85, value_name = "P", allow_negative_numbers = true)]
    pub(crate) top_p: f32,
    /// Taken off the logit of every token that has appeared
    #[arg(long, default_value_t = 0.0, value_name = "X", allow_negative_numbers = true)]
    pub(crate) presence_penalty: f32,
    /// Taken off the logit of a token for each time it has appeared
    #[arg(long, default_value_t = 0.0, value_name = "X", allow_negative_numbers = true)]
    pub(crate) frequency_penalty: f32,
    /// How much of the counted appearances is left after each token
    #[arg(
        long,
        default_value_t = 0.996,
        value_name = "X",
        allow_negative_numbers = true
    )]
    pub(crate) penalty_decay: f32,
    /// Equal seeds give equal text. A GPU chooses tokens itself, unless top-k or a penalty is given, and draws others
    /// from a seed than a processor
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

/// `rwkvc logits`
#[derive(Debug, Args)]
pub(crate) struct Logits {
    /// A checkpoint or an artifact
    pub(crate) model: PathBuf,
    /// Token ids separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    pub(crate) tokens: Vec<u32>,
    /// A list for every position, not only the last
    #[arg(long)]
    pub(crate) all: bool,
    /// Feed the tokens one by one through the decode program
    #[arg(long)]
    pub(crate) step: bool,
    #[command(flatten)]
    pub(crate) codegen: Codegen,
    #[command(flatten)]
    pub(crate) threads: Threads,
    #[command(flatten)]
    pub(crate) gpu: OnGpu,
    #[command(flatten)]
    pub(crate) out: Output,
}

/// `rwkvc verify`
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The checkpoint
    pub(crate) model: PathBuf,
    /// Tokens to compare on. Default: 16, or all of the golden file
    #[arg(long, value_name = "N")]
    pub(crate) length: Option<usize>,
    /// Compare with the logits of another implementation too: a safetensors file with `tokens` (I32, [n]) and `logits_f64` or
    /// `logits` ([n, vocabulary]), from which no logit may be further than 2e-5
    #[arg(long, value_name = "FILE")]
    pub(crate) golden: Option<PathBuf>,
    /// Backends, separated by commas. Default: all that are built in
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) backends: Option<Vec<String>>,
    /// Machine to compile for, and to run on: `cpu` or `cuda`, or a level of one
    #[arg(long, default_value = "cpu")]
    pub(crate) target: String,
    /// How steps are started, separated by commas (GPUs). Default: launches,graph,persistent
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MODES")]
    pub(crate) modes: Option<Vec<GpuMode>>,
    #[command(flatten)]
    pub(crate) device: Device,
    #[command(flatten)]
    pub(crate) threads: Threads,
    #[command(flatten)]
    pub(crate) out: Output,
}

/// `rwkvc bench`
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The checkpoint, or a file that was compiled for GPUs
    pub(crate) model: PathBuf,
    /// What to compare: `fused`, `unfused`, `no-PASS` for all but one pass; `untuned` for schedules that were not measured,
    /// `stored`, `int8` or `int4` for other weights, `bf16-activations` for other activations. Default: fused,unfused
    #[arg(long, value_delimiter = ',', value_name = "VARIANTS")]
    pub(crate) compare: Option<Vec<String>>,
    /// Also switch off each fusion alone
    #[arg(long)]
    pub(crate) ablation: bool,
    /// Tokens of one decode sample
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) decode: usize,
    /// Tokens of one prefill sample; 0 for none. Several lengths, separated by commas, on a GPU. Default: 128, on a GPU
    /// 512,2048
    #[arg(long, value_delimiter = ',', value_name = "N")]
    pub(crate) prefill: Option<Vec<usize>>,
    /// Also measure batches of so many states, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "SIZES")]
    pub(crate) batch: Vec<usize>,
    /// How steps are started, separated by commas (GPUs). Default: launches,graph,persistent
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MODES")]
    pub(crate) modes: Option<Vec<GpuMode>>,
    #[command(flatten)]
    pub(crate) device: Device,
    /// Samples of each variant, taken in turn
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) samples: u16,
    /// Leave out the table of kernels
    #[arg(long)]
    pub(crate) no_kernels: bool,
    #[command(flatten)]
    pub(crate) codegen: Codegen,
    #[command(flatten)]
    pub(crate) threads: Threads,
    #[command(flatten)]
    pub(crate) out: Output,
}

/// `rwkvc tune`
#[derive(Debug, Args)]
#[command(
    after_help = "The choice is written to MODEL.tuning.json, with the processor, the model, backend, target and weights that it was \
        measured for. `run`, `compile`, `bench` and the other commands that compile the model use it wherever all of this is the \
        same, and say so; --tuning none leaves it out. Nothing else should run meanwhile.\n\n\
        Of a file that is compiled already only the threads are chosen: its schedules were when it was compiled."
)]
pub(crate) struct Tune {
    /// A checkpoint or an artifact
    pub(crate) model: PathBuf,
    /// About how long to measure: seconds, or as `90s`, `5m`. A larger model needs more
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) budget: Duration,
    /// Where to write. Default: MODEL.tuning.json
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Code generator: see `rwkvc compile`
    #[arg(long)]
    pub(crate) backend: Option<String>,
    /// Machine to compile for, which this one can run: see `rwkvc targets`
    #[arg(long, default_value = "cpu")]
    pub(crate) target: String,
    /// How matrices are stored: see `rwkvc compile`
    #[arg(long, value_name = "FORMATS")]
    pub(crate) weights: Option<Formats>,
    /// Threads of the step. Default: as many as are fastest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    #[command(flatten)]
    pub(crate) out: Output,
}

/// `90`, `90s` or `5m`: at least a second, at most a day.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(number) => (number, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let seconds = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    match seconds {
        Some(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("expected a time from 1s to 1440m".into()),
    }
}

/// `rwkvc inspect`
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A checkpoint or an artifact
    pub(crate) model: PathBuf,
    /// Look at every weight: report NaN and infinity
    #[arg(long)]
    pub(crate) check: bool,
    /// List every tensor
    #[arg(long)]
    pub(crate) tensors: bool,
    #[command(flatten)]
    pub(crate) out: Output,
}

/// `rwkvc opt`
#[derive(Debug, Args)]
pub(crate) struct Opt {
    /// A graph in text form; `-` for standard input
    pub(crate) input: PathBuf,
    /// Print Graphviz instead of text
    #[arg(long)]
    pub(crate) dot: bool,
    #[command(flatten)]
    pub(crate) passes: PassOptions,
    #[command(flatten)]
    pub(crate) out: Output,
}

/// `rwkvc eval`
#[derive(Debug, Args)]
pub(crate) struct Eval {
    /// A checkpoint or an artifact
    pub(crate) model: PathBuf,
    /// The text
    #[arg(long, value_name = "FILE")]
    pub(crate) text: PathBuf,
    /// Do not start with token 0
    #[arg(long)]
    pub(crate) no_bos: bool,
    /// Vocabulary file. Default: by the model's vocabulary size
    #[arg(long, value_name = "FILE")]
    pub(crate) vocab: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) codegen: Codegen,
    #[command(flatten)]
    pub(crate) threads: Threads,
    #[command(flatten)]
    pub(crate) gpu: OnGpu,
    #[command(flatten)]
    pub(crate) out: Output,
}

/// `rwkvc tokenize`
#[derive(Debug, Args)]
pub(crate) struct Tokenize {
    /// A checkpoint or an artifact, whose vocabulary size chooses the vocabulary; `-` reads the text from standard input
    #[arg(value_name = "MODEL | -", num_args = 0..=2)]
    pub(crate) inputs: Vec<PathBuf>,
    /// The World vocabulary
    #[arg(long)]
    pub(crate) world: bool,
    /// A vocabulary file (lines of `id repr length`)
    #[arg(long, value_name = "FILE")]
    pub(crate) vocab: Option<PathBuf>,
    /// The text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) text: Option<String>,
    /// A file with the text
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Token ids separated by commas, to turn into text
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(crate) decode: Option<Vec<u32>>,
    #[command(flatten)]
    pub(crate) out: Output,
}

/// `rwkvc targets`
#[derive(Debug, Args)]
pub(crate) struct Targets {
    #[command(flatten)]
    pub(crate) out: Output,
}

/// `rwkvc passes`
#[derive(Debug, Args)]
pub(crate) struct Passes {
    #[command(flatten)]
    pub(crate) out: Output,
}

/// `rwkvc convert`
#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// The checkpoint
    pub(crate) input: PathBuf,
    /// Where to write: a .safetensors file with official names, or a .gguf file for llama.cpp
    pub(crate) output: PathBuf,
    /// Number format of the matrices: f32, f16, bf16 or, in a .gguf, q8_0. Default: as they are, f16 if they are
    /// quantised
    #[arg(long, value_name = "FORMAT")]
    pub(crate) weights: Option<String>,
    /// Vocabulary file (lines of `id repr length`) for a .gguf. Default: by the model's vocabulary size
    #[arg(long, value_name = "FILE")]
    pub(crate) vocab: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) out: Output,
}

/// `rwkvc generate`
#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// Where to write: a .gguf file if it is named so, else a .safetensors file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// A published size: 0.1b, 0.4b, 1.5b, 2.9b, 7.2b
    #[arg(long, default_value = "0.1b")]
    pub(crate) preset: String,
    /// Stored number format: bf16, f16 or f32
    #[arg(long, default_value = "bf16")]
    pub(crate) dtype: String,
    /// Equal seeds give equal files
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Blocks
    #[arg(long, value_name = "N")]
    pub(crate) layers: Option<usize>,
    /// Width of the residual stream
    #[arg(long, value_name = "N")]
    pub(crate) dim: Option<usize>,
    /// Channels of a head
    #[arg(long, value_name = "N")]
    pub(crate) head_size: Option<usize>,
    /// Hidden units of the channel mix
    #[arg(long, value_name = "N")]
    pub(crate) ffn: Option<usize>,
    /// Vocabulary rows
    #[arg(long, value_name = "N")]
    pub(crate) vocab: Option<usize>,
    /// Roughly this share of the channel mix's activations is zero
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub(crate) zeros: Option<f32>,
    #[command(flatten)]
    pub(crate) out: Output,
}
