//! What to sample with.

use rwkvc_abi::SampleOptions;
use thiserror::Error;

/// How tokens are drawn; the [module](super) says what each number does.
///
/// The default is that of the Python package `rwkv`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerOptions {
    /// 0 always takes the most probable token; 1 leaves the probabilities as they are. At least 0.
    pub temperature: f32,
    /// Only the most probable tokens are kept; 0 for all.
    pub top_k: usize,
    /// Only the most probable tokens with this probability together are kept, 0 to 1; 1 for all.
    pub top_p: f32,
    /// Taken off the logit of each token that occurred. At least 0.
    pub presence_penalty: f32,
    /// Taken off the logit of a token for each time it occurred. At least 0.
    pub frequency_penalty: f32,
    /// What is left of an occurrence after each further token, 0 to 1.
    pub penalty_decay: f32,
    /// Chooses among all possible outcomes.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 0.85,
            presence_penalty: 0.2,
            frequency_penalty: 0.2,
            penalty_decay: 0.996,
            seed: 0,
        }
    }
}

impl SamplerOptions {
    /// What ChatRWKV's demo uses for chat with the G1 models: fewer candidates, higher penalties.
    pub fn chat() -> Self {
        Self {
            top_p: 0.3,
            presence_penalty: 0.5,
            frequency_penalty: 0.5,
            ..Self::default()
        }
    }

    /// What these options are where a GPU chooses tokens; `None` if they need a [`Sampler`](super::Sampler), because they
    /// ask for top-k or penalties.
    pub fn on_device(&self) -> Option<SampleOptions> {
        let plain = SamplerOptions {
            top_k: 0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            ..*self
        };
        let is_plain = *self == plain && self.validate().is_ok();
        is_plain.then_some(SampleOptions {
            temperature: self.temperature,
            top_p: self.top_p,
            seed: (self.seed ^ (self.seed >> 32)) as u32,
        })
    }

    /// Always the most probable token, without penalties.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            ..Self::default()
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the first option that is not a finite number within its range.
    pub fn validate(&self) -> Result<(), OptionsError> {
        let check = |name, value: f32, max: f32| {
            // NaN is in no range.
            if (0.0..=max).contains(&value) {
                Ok(())
            } else {
                Err(OptionsError { name, value, max })
            }
        };
        check("temperature", self.temperature, f32::MAX)?;
        check("top_p", self.top_p, 1.0)?;
        check("presence_penalty", self.presence_penalty, f32::MAX)?;
        check("frequency_penalty", self.frequency_penalty, f32::MAX)?;
        check("penalty_decay", self.penalty_decay, 1.0)
    }

    /// Whether occurrences matter.
    pub(super) fn penalizes(&self) -> bool {
        self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }
}

/// An option is out of its range.
#[derive(Clone, Copy, Debug, Error, PartialEq)]
#[error("sampler option {name} is {value}, expected {}", self.range())]
pub struct OptionsError {
    /// The field of [`SamplerOptions`].
    pub name: &'static str,
    /// What it is.
    pub value: f32,
    /// The highest value allowed; the lowest is 0.
    pub max: f32,
}

impl OptionsError {
    fn range(&self) -> &'static str {
        if self.max == 1.0 {
            "a number from 0 to 1"
        } else {
            "a finite number of at least 0"
        }
    }
}
