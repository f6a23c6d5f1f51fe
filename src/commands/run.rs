//! `rwkvc run`: text from a prompt.

use std::io::Read;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use rwkvc_abi::ProgramKind;
use rwkvc_runtime::chat::{self, Message};
use rwkvc_runtime::generate::{Finish, GenerateOptions, Generator, Piece};
use rwkvc_runtime::sampler::SamplerOptions;
use rwkvc_runtime::tokenizer::Tokenizer;
use serde::Serialize;

use crate::args::{Codegen, Format, OnGpu, Output, Threads};
use crate::{commands, open, output};

/// `rwkvc run`
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// A checkpoint or an artifact
    model: PathBuf,
    #[command(flatten)]
    prompt: Prompt,
    /// Most tokens to generate
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    #[command(flatten)]
    sampling: Sampling,
    /// Do not start a fresh state with token 0
    #[arg(long)]
    no_bos: bool,
    /// Wrap the prompt in the chat template of the G1 models
    #[arg(long)]
    chat: bool,
    /// Stop when this text appears; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Vocabulary file (lines of `id repr length`). Default: by the model's vocabulary size
    #[arg(long, value_name = "FILE")]
    vocab: Option<PathBuf>,
    /// Continue from a saved state
    #[arg(long, value_name = "FILE")]
    state_in: Option<PathBuf>,
    /// Save the state after the last token
    #[arg(long, value_name = "FILE")]
    state_out: Option<PathBuf>,
    #[command(flatten)]
    codegen: Codegen,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    gpu: OnGpu,
    #[command(flatten)]
    out: Output,
}

/// Where the prompt comes from.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Prompt {
    /// The prompt
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// A file with the prompt
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// Token ids separated by commas, taken as they are
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    tokens: Option<Vec<u32>>,
    /// `-` reads the prompt from standard input
    #[arg(value_name = "-", value_parser = ["-"])]
    stdin: Option<String>,
}

/// How the next token is chosen.
#[derive(Debug, Args)]
struct Sampling {
    /// 0 takes the most likely token
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    temperature: f32,
    /// Choose among the N most likely; 0 for all
    #[arg(long, default_value_t = 0, value_name = "N")]
    top_k: usize,
    /// Choose among the most likely that together have this probability
    #[arg(long, default_value_t = 0.85, value_name = "P", allow_negative_numbers = true)]
    top_p: f32,
    /// Taken off the logit of every token that has appeared
    #[arg(long, default_value_t = 0.0, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Taken off the logit of a token for each time it has appeared
    #[arg(long, default_value_t = 0.0, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// How much of the counted appearances is left after each token
    #[arg(
        long,
        default_value_t = 0.996,
        value_name = "X",
        allow_negative_numbers = true
    )]
    penalty_decay: f32,
    /// Equal seeds give equal text. A GPU chooses tokens itself, unless top-k or a penalty is given, and draws others
    /// from a seed than a CPU
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// What `--format json` prints.
#[derive(Serialize)]
struct Report {
    /// The new tokens.
    tokens: Vec<u32>,
    text: String,
    /// `end_of_text`, `stop` or `max_tokens`.
    finished: &'static str,
    timings: Timings,
}

#[derive(Serialize)]
struct Timings {
    load_s: f64,
    prompt_tokens: usize,
    prompt_s: f64,
    new_tokens: usize,
    decode_s: f64,
    decode_tokens_per_s: f64,
}

/// Runs the command.
pub(crate) fn run(args: &Run) -> Result<()> {
    let start = Instant::now();
    let sampling = SamplerOptions {
        temperature: args.sampling.temperature,
        top_k: args.sampling.top_k,
        top_p: args.sampling.top_p,
        presence_penalty: args.sampling.presence_penalty,
        frequency_penalty: args.sampling.frequency_penalty,
        penalty_decay: args.sampling.penalty_decay,
        seed: args.sampling.seed,
    };
    sampling.validate()?;
    let text = prompt_text(args)?;
    let programs = [ProgramKind::Decode, ProgramKind::Prefill];
    let mut session = open::open(&args.model, &args.codegen, args.threads, args.gpu, &programs)?;
    if let Some(path) = &args.state_in {
        let loaded = session.load_state(path);
        loaded.with_context(|| format!("loading the state `{}`", path.display()))?;
    }
    let tokenizer = match &args.prompt.tokens {
        // Token ids need no vocabulary; without one, ids are printed.
        Some(_) => commands::tokenizer(args.vocab.as_deref(), session.vocab()).ok(),
        None => Some(commands::tokenizer(args.vocab.as_deref(), session.vocab())?),
    };
    let prompt = prompt_tokens(args, text, tokenizer.as_ref())?;
    let load_s = start.elapsed().as_secs_f64();

    let mut stops = args.stop.clone();
    if args.chat {
        stops.extend(chat::STOPS.map(String::from));
    }
    let options = GenerateOptions {
        sampling,
        max_tokens: args.max_tokens,
        stops,
        exact_state: args.state_out.is_some(),
    };
    let has_vocabulary = tokenizer.is_some();
    let start = Instant::now();
    let mut generator = Generator::new(&mut session, tokenizer, &prompt, options)?;
    let prompt_s = start.elapsed().as_secs_f64();

    let start = Instant::now();
    let mut tokens = vec![];
    let mut text = String::new();
    for piece in &mut generator {
        let Piece {
            token,
            text: mut shown,
        } = piece?;
        tokens.extend(token);
        if let (Some(token), false) = (token, has_vocabulary) {
            // Without a vocabulary the ids are the result.
            shown = format!("{token} ");
        }
        if args.out.format == Format::Text {
            output::print(&shown)?;
        }
        text += &shown;
    }
    let finished = generator.finish().map_or("", Finish::name);
    let decode_s = start.elapsed().as_secs_f64();
    if let Some(path) = &args.state_out {
        let saved = session.save_state(path);
        saved.with_context(|| format!("saving the state `{}`", path.display()))?;
    }
    let rate = if decode_s > 0.0 {
        tokens.len() as f64 / decode_s
    } else {
        0.0
    };
    let timings = Timings {
        load_s,
        prompt_tokens: prompt.len(),
        prompt_s,
        new_tokens: tokens.len(),
        decode_s,
        decode_tokens_per_s: rate,
    };
    if args.out.format == Format::Json {
        return output::json(&Report {
            tokens,
            text,
            finished,
            timings,
        });
    }
    output::print("\n")?;
    output::note(&format!(
        "ready in {load_s:.2} s, prompt {} tokens in {prompt_s:.3} s, {} tokens at {rate:.1} a second",
        timings.prompt_tokens, timings.new_tokens,
    ));
    Ok(())
}

/// The text of the prompt; `None` if it is given as tokens.
fn prompt_text(args: &Run) -> Result<Option<Vec<u8>>> {
    let p = &args.prompt;
    let text = if let Some(text) = &p.prompt {
        text.clone().into_bytes()
    } else if let Some(path) = &p.prompt_file {
        std::fs::read(path).with_context(|| format!("reading `{}`", path.display()))?
    } else if p.stdin.is_some() {
        let mut text = vec![];
        std::io::stdin()
            .lock()
            .read_to_end(&mut text)
            .context("reading the prompt from standard input")?;
        text
    } else {
        return Ok(None);
    };
    if !args.chat {
        return Ok(Some(text));
    }
    let text = String::from_utf8(text).context("a chat prompt must be UTF-8")?;
    Ok(Some(chat::prompt(&[Message::user(text)])?.into_bytes()))
}

/// The tokens of the prompt. Text into a fresh state starts with the end-of-text token, as in training.
fn prompt_tokens(args: &Run, text: Option<Vec<u8>>, tokenizer: Option<&Tokenizer>) -> Result<Vec<u32>> {
    let tokens = match (text, &args.prompt.tokens, tokenizer) {
        (Some(text), _, Some(tokenizer)) => match args.state_in.is_none() && !args.no_bos {
            true => tokenizer.prompt(&text)?,
            false => tokenizer.encode_bytes(&text)?,
        },
        (_, Some(tokens), _) => tokens.clone(),
        _ => vec![],
    };
    if tokens.is_empty() {
        bail!("the prompt is empty: give at least one token, or leave out --no-bos");
    }
    Ok(tokens)
}
