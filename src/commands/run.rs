//! `rwkvc run`: text from a prompt.

use std::io::Read;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rwkvc_abi::ProgramKind;
use rwkvc_runtime::chat::{self, Message};
use rwkvc_runtime::generate::{Finish, GenerateOptions, Generator, Piece};
use rwkvc_runtime::sampler::SamplerOptions;
use rwkvc_runtime::tokenizer::Tokenizer;
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
    let mut session = options::open(&args.model, &args.codegen, args.threads, args.gpu, &programs)?;
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
