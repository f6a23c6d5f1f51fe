//! Logits to a token, as the Python package `rwkv` does it (`PIPELINE.generate` and `PIPELINE.sample_logits` of 0.8.32).
//!
//! With `x` the logits and `n` a token that was sampled before:
//!
//! 1. Penalties: `x[n] -= presence_penalty + count[n] * frequency_penalty`. After each token all counts are multiplied
//!    by `penalty_decay`, then its own grows by 1.
//! 2. `p = softmax(x)`, at temperature 1.
//! 3. Top-p: of the sorted probabilities, the first at which their running sum reaches `top_p` is the cutoff; smaller
//!    ones are dropped, equal ones stay.
//! 4. Top-k: of what is left, the `top_k` most probable tokens stay; 0 means all.
//! 5. Temperature: the token is drawn with weights `p^(1 / temperature)`. It flattens or sharpens what is left and does
//!    not change which tokens are left.
//!
//! Differences, each to be exact where the package is arbitrary: temperature 0 takes the most probable token, the lowest
//! id among equals (the package draws one of these); `top_p` 1 drops nothing (there, rounding of the running sum may
//! leave only the most probable token); equals at the top-k border go by id. `PIPELINE.generate` does not count
//! digits, spaces and tabs, its chat demo does, and so does this sampler.
//!
//! The same options and logits give the same tokens on every machine: the generator is ChaCha8, whose stream is fixed by
//! the seed, and the exponential is computed here in plain arithmetic.

mod exponential;
mod nucleus;
mod occurrences;
mod options;

#[cfg(test)]
mod tests;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use thiserror::Error;

use exponential::exp;
use nucleus::Nucleus;
use occurrences::Occurrences;
pub use options::{OptionsError, SamplerOptions};

/// Why logits gave no token.
#[derive(Clone, Copy, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum SampleError {
    /// Logits of another model.
    #[error("the sampler takes {expected} logits, one per vocabulary row, not {found}")]
    Length {
        /// Logits that were given.
        found: usize,
        /// Rows of the vocabulary.
        expected: usize,
    },
    /// NaN or +∞. −∞ is allowed and excludes a token.
    #[error("the logit of token {token} is {value}")]
    NotANumber {
        /// The first such token.
        token: u32,
        /// Its logit.
        value: f32,
    },
    /// Every logit is −∞.
    #[error("every token is excluded: all logits are -inf")]
    NothingLeft,
    /// An id outside the vocabulary.
    #[error("token {token} is outside the vocabulary of {rows} rows")]
    UnknownToken {
        /// The id.
        token: u32,
        /// Rows of the vocabulary.
        rows: usize,
    },
}

/// Draws tokens and remembers which it drew. Allocates only when it is made.
///
/// ```
/// use rwkvc_runtime::sampler::{Sampler, SamplerOptions};
///
/// let mut sampler = Sampler::new(SamplerOptions::greedy(), 3)?;
/// assert_eq!(sampler.sample(&[0.5, 2.0, 2.0])?, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplerOptions,
    rng: ChaCha8Rng,
    occurrences: Occurrences,
    /// Logits after penalties, less their maximum, of this call. `[rows]`
    scores: Vec<f32>,
    nucleus: Nucleus,
    /// Weights of the tokens in the nucleus.
    weights: Vec<f32>,
}

impl Sampler {
    /// A sampler for a vocabulary of `rows` tokens.
    ///
    /// # Errors
    /// If an option is out of its range.
    pub fn new(options: SamplerOptions, rows: usize) -> Result<Self, OptionsError> {
        options.validate()?;
        Ok(Self {
            rng: ChaCha8Rng::seed_from_u64(options.seed),
            occurrences: Occurrences::new(rows),
            scores: vec![0.0; rows],
            nucleus: Nucleus::with_capacity(rows),
            weights: Vec::with_capacity(rows),
            options,
        })
    }

    /// The options that it was made with.
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// Draws a token from logits `[rows]` and counts it.
    ///
    /// # Errors
    /// If there are too few or too many logits, if one is NaN or +∞, or if all are −∞. The sampler is then as before.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, SampleError> {
        self.score(logits)?;
        let token = if self.options.temperature == 0.0 {
            // The scores' maximum is 0 by construction.
            position(&self.scores, |score| score == 0.0).ok_or(SampleError::NothingLeft)? as u32
        } else {
            self.weigh();
            self.draw()
        };
        self.observe(token)?;
        Ok(token)
    }

    /// Counts a token that was not drawn here, as if it had been.
    ///
    /// # Errors
    /// If it is outside the vocabulary.
    pub fn observe(&mut self, token: u32) -> Result<(), SampleError> {
        let rows = self.scores.len();
        if token as usize >= rows {
            return Err(SampleError::UnknownToken { token, rows });
        }
        if self.options.penalizes() {
            self.occurrences
                .count(token, f64::from(self.options.penalty_decay));
        }
        Ok(())
    }

    /// Forgets the counted tokens, as the chat demo of the package does before each answer. The generator goes on.
    pub fn forget(&mut self) {
        self.occurrences.clear();
    }

    /// Step 1, and the shift to a maximum of 0.
    fn score(&mut self, logits: &[f32]) -> Result<(), SampleError> {
        let expected = self.scores.len();
        if logits.len() != expected {
            return Err(SampleError::Length {
                found: logits.len(),
                expected,
            });
        }
        if let Some(token) = position(logits, |logit| logit.is_nan() | (logit == f32::INFINITY)) {
            return Err(SampleError::NotANumber {
                token: token as u32,
                value: logits[token],
            });
        }
        self.scores.copy_from_slice(logits);
        let presence = f64::from(self.options.presence_penalty);
        let frequency = f64::from(self.options.frequency_penalty);
        for (token, count) in self.occurrences.iter() {
            self.scores[token as usize] -= (presence + count * frequency) as f32;
        }
        let max = highest(&self.scores);
        if max == f32::NEG_INFINITY {
            return Err(SampleError::NothingLeft);
        }
        for score in &mut self.scores {
            *score -= max;
        }
        Ok(())
    }

    /// Steps 2 to 5: which tokens are left, and their weights.
    ///
    /// `p` is `exp(score) / sum`, so `p^(1 / temperature)` is `exp(score / temperature)` but for a constant factor.
    fn weigh(&mut self) {
        self.nucleus
            .choose(&self.scores, self.options.top_p, self.options.top_k);
        let temperature = self.options.temperature;
        self.weights.clear();
        self.weights.extend(
            self.nucleus
                .tokens()
                .iter()
                .map(|&token| exp(self.scores[token as usize] / temperature)),
        );
    }

    fn draw(&mut self) -> u32 {
        let total: f64 = self.weights.iter().map(|&weight| f64::from(weight)).sum();
        // 53 random bits: uniform in [0, 1).
        let uniform = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut rest = uniform * total;
        let mut chosen = 0;
        for (index, &weight) in self.weights.iter().enumerate() {
            if weight == 0.0 {
                continue;
            }
            // Rounding may leave a rest after the last token, which is then the one.
            chosen = index;
            rest -= f64::from(weight);
            if rest < 0.0 {
                break;
            }
        }
        self.nucleus.tokens()[chosen]
    }
}

/// The first index whose value passes `test`. Looks at blocks as wholes, which unlike a plain search is fit for SIMD.
fn position(values: &[f32], test: impl Fn(f32) -> bool) -> Option<usize> {
    const BLOCK: usize = 256;
    let block = values
        .chunks(BLOCK)
        .position(|block| block.iter().fold(false, |found, &value| found | test(value)))?;
    let start = block * BLOCK;
    values[start..]
        .iter()
        .position(|&value| test(value))
        .map(|index| start + index)
}

/// The highest of `values`, none of which is NaN; −∞ if there is none. In lanes, for SIMD.
fn highest(values: &[f32]) -> f32 {
    let higher = |a: f32, b: f32| if a > b { a } else { b };
    let (chunks, rest) = values.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = higher(*lane, value);
        }
    }
    lanes
        .into_iter()
        .chain(rest.iter().copied())
        .fold(f32::NEG_INFINITY, higher)
}
