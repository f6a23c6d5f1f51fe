//! `rwkvc run`: text from a prompt.

use std::io::Read;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rwkvc::choose::Chooser;
use rwkvc_abi::ProgramKind;
use rwkvc_runtime::chat::{self, Message};
use rwkvc_runtime::sampler::SamplerOptions;
use rwkvc_runtime::text::TextStream;
use rwkvc_runtime::tokenizer::{END_OF_TEXT, Tokenizer};
use serde::Serialize;

use crate::cli::{Format, Run};
use crate::{commands, options, output};

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
    let mut engine = options::open(&args.model, &args.codegen, args.threads, args.gpu, &programs)?;
    if let Some(path) = &args.state_in {
        engine.load_state(path)?;
    }
    let tokenizer = match &args.prompt.tokens {
        // Token ids need no vocabulary; without one, ids are printed.
        Some(_) => commands::tokenizer(args.vocab.as_deref(), engine.vocab()).ok(),
        None => Some(commands::tokenizer(args.vocab.as_deref(), engine.vocab())?),
    };
    let prompt = prompt_tokens(args, text, tokenizer.as_ref())?;
    let load_s = start.elapsed().as_secs_f64();

    let mut stops = args.stop.clone();
    if args.chat {
        stops.extend(chat::STOPS.map(String::from));
    }
    let mut chooser = Chooser::new(&mut *engine, sampling, args.state_out.is_some())?;
    let mut writer = Writer {
        stream: tokenizer.map(|t| TextStream::new(t, stops)).transpose()?,
        text: String::new(),
        shown: args.out.format == Format::Text,
    };
    let start = Instant::now();
    let mut next = chooser.first(&mut *engine, &prompt, args.max_tokens)?;
    let prompt_s = start.elapsed().as_secs_f64();

    let start = Instant::now();
    let mut tokens = vec![];
    let mut finished = "max_tokens";
    while tokens.len() < args.max_tokens {
        if next == END_OF_TEXT {
            finished = "end_of_text";
            break;
        }
        tokens.push(next);
        let stopped = writer.push(next)?;
        if stopped {
            finished = "stop";
        }
        let left = args.max_tokens - tokens.len();
        if stopped || left == 0 {
            // The state after a run has seen every token that was printed.
            engine.step(next)?;
            break;
        }
        next = chooser.after(&mut *engine, next, left)?;
    }
    writer.finish()?;
    let decode_s = start.elapsed().as_secs_f64();
    if let Some(path) = &args.state_out {
        engine.save_state(path)?;
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
            text: writer.text,
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
        (Some(text), _, Some(tokenizer)) => {
            let fresh = args.state_in.is_none() && !args.no_bos;
            let start = fresh.then_some(END_OF_TEXT);
            start.into_iter().chain(tokenizer.encode_bytes(&text)?).collect()
        }
        (_, Some(tokens), _) => tokens.clone(),
        _ => vec![],
    };
    if tokens.is_empty() {
        bail!("the prompt is empty: give at least one token, or leave out --no-bos");
    }
    Ok(tokens)
}

/// Shows text as it comes and keeps it for the report.
struct Writer {
    stream: Option<TextStream>,
    text: String,
    shown: bool,
}

impl Writer {
    /// Takes a token; whether a stop string has appeared.
    fn push(&mut self, token: u32) -> Result<bool> {
        let Some(stream) = &mut self.stream else {
            // Without a vocabulary the ids are the result.
            return self.show(&format!("{token} ")).map(|()| false);
        };
        let piece = stream.push(token);
        let stopped = piece.stop.is_some();
        let new = piece.text.to_string();
        self.show(&new)?;
        Ok(stopped)
    }

    fn finish(&mut self) -> Result<()> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        let new = stream.finish().text.to_string();
        self.show(&new)
    }

    fn show(&mut self, text: &str) -> Result<()> {
        self.text.push_str(text);
        if self.shown { output::print(text) } else { Ok(()) }
    }
}
