//! The engine's end.

use std::hint::black_box;
use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{Answer, Ready, Request, peak_memory, token};

/// A model that is ready to run, with one state.
pub trait Engine {
    /// Rows of the vocabulary.
    fn vocab(&self) -> usize;

    /// Forgets all tokens.
    fn reset(&mut self) -> Result<()>;

    /// Reads a token; the logits of the next one.
    fn step(&mut self, token: u32) -> Result<&[f32]>;

    /// Reads tokens, of which there is at least one; the logits after the last.
    fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32]>;
}

/// What only the engine knows.
pub struct Opened {
    /// Its name and version.
    pub name: String,
    /// What it was built with: the instructions that it uses.
    pub built: String,
    /// When it began to open the file.
    pub start: Instant,
    /// How long it took until a token could be read.
    pub load: Duration,
}

/// Answers what comes from standard input, until it ends.
///
/// # Errors
/// If the engine fails, or what comes is no request.
pub fn serve(engine: &mut dyn Engine, opened: Opened) -> Result<()> {
    black_box(engine.step(0)?);
    let ready = Ready {
        engine: opened.name,
        built: opened.built,
        load_s: opened.load.as_secs_f64(),
        first_token_s: opened.start.elapsed().as_secs_f64(),
    };
    say(&ready)?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let request = serde_json::from_str(&line).with_context(|| format!("`{line}` is no request"))?;
        say(&answer(engine, request)?)?;
    }
    Ok(())
}

fn say(what: &impl Serialize) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all((serde_json::to_string(what)? + "\n").as_bytes())?;
    Ok(out.flush()?)
}

fn answer(engine: &mut dyn Engine, request: Request) -> Result<Answer> {
    let vocab = engine.vocab();
    let tokens = |n: usize| (0..n).map(|i| token(i, vocab)).collect::<Vec<u32>>();
    Ok(match request {
        Request::Decode(n) => {
            // Threads that wait are woken before the clock starts.
            black_box(engine.step(token(n, vocab))?);
            let start = Instant::now();
            for token in tokens(n) {
                black_box(engine.step(token)?);
            }
            Answer::Seconds(start.elapsed().as_secs_f64())
        }
        Request::Prefill(n) => {
            let tokens = tokens(n);
            black_box(engine.step(token(n, vocab))?);
            engine.reset()?;
            let start = Instant::now();
            black_box(engine.prefill(&tokens)?);
            Answer::Seconds(start.elapsed().as_secs_f64())
        }
        Request::Logits(n) => {
            engine.reset()?;
            Answer::Logits(engine.prefill(&tokens(n))?.to_vec())
        }
        Request::Peak => Answer::Bytes(peak_memory()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers what it was asked to do.
    #[derive(Default)]
    struct Recorder {
        did: Vec<String>,
        logits: Vec<f32>,
    }

    impl Engine for Recorder {
        fn vocab(&self) -> usize {
            10
        }

        fn reset(&mut self) -> Result<()> {
            self.did.push("reset".into());
            Ok(())
        }

        fn step(&mut self, token: u32) -> Result<&[f32]> {
            self.did.push(format!("step {token}"));
            Ok(&self.logits)
        }

        fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32]> {
            self.did.push(format!("prefill {tokens:?}"));
            self.logits = tokens.iter().map(|&t| t as f32).collect();
            Ok(&self.logits)
        }
    }

    #[test]
    fn requests_become_steps() {
        let does = |request| {
            let mut engine = Recorder::default();
            let answer = answer(&mut engine, request).expect("an answer");
            (engine.did, answer)
        };
        let (did, answer) = does(Request::Decode(2));
        assert_eq!(did, ["step 8", "step 0", "step 9"]);
        assert!(matches!(answer, Answer::Seconds(s) if s >= 0.0));

        let (did, answer) = does(Request::Prefill(3));
        assert_eq!(did, ["step 7", "reset", "prefill [0, 9, 8]"]);
        assert!(matches!(answer, Answer::Seconds(_)));

        let (did, answer) = does(Request::Logits(2));
        assert_eq!(did, ["reset", "prefill [0, 9]"]);
        assert_eq!(answer, Answer::Logits(vec![0.0, 9.0]));
    }
}
