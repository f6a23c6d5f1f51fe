//! Choosing the next token: where the logits are, if that is a device that can, else on this machine.

use std::collections::VecDeque;

use anyhow::{Context, Result};
use rwkvc_runtime::sampler::{Sampler, SamplerOptions};

use crate::engine::Engine;

/// Tokens that a device chooses before this machine looks at them: text that comes in pieces of a few words.
const AHEAD: usize = 16;

/// What chooses the tokens of one text.
pub enum Chooser {
    /// This machine, from logits.
    Here(Box<Sampler>),
    /// The device of the engine.
    OnDevice {
        /// Most tokens that it chooses at a time.
        ahead: usize,
        /// Those that it has chosen.
        ready: VecDeque<u32>,
    },
}

impl Chooser {
    /// For an engine. With `exact`, its state is never ahead of the tokens that were asked for.
    pub fn new(engine: &mut dyn Engine, options: SamplerOptions, exact: bool) -> Result<Self> {
        Ok(if engine.choose_by(&options) {
            Chooser::OnDevice {
                ahead: if exact { 1 } else { AHEAD },
                ready: VecDeque::new(),
            }
        } else {
            Chooser::Here(Box::new(Sampler::new(options, engine.vocab())?))
        })
    }

    /// Reads the prompt; the first token. At most `most` will be asked for.
    pub fn first(&mut self, engine: &mut dyn Engine, prompt: &[u32], most: usize) -> Result<u32> {
        let logits = engine.prefill(prompt)?;
        match self {
            Chooser::Here(sampler) => Ok(sampler.sample(logits)?),
            Chooser::OnDevice { ahead, ready } => next(engine, most.clamp(1, *ahead), ready),
        }
    }

    /// The token after `token`, which was the one before. At most `most` more will be asked for.
    pub fn after(&mut self, engine: &mut dyn Engine, token: u32, most: usize) -> Result<u32> {
        match self {
            Chooser::Here(sampler) => Ok(sampler.sample(engine.step(token)?)?),
            Chooser::OnDevice { ahead, ready } => next(engine, most.clamp(1, *ahead), ready),
        }
    }
}

/// The next of the tokens that are ready, of which there may be up to `ahead`.
fn next(engine: &mut dyn Engine, ahead: usize, ready: &mut VecDeque<u32>) -> Result<u32> {
    if ready.is_empty() {
        ready.extend(engine.generate(ahead)?);
    }
    ready.pop_front().context("the device chose no token")
}
