//! Choosing tokens on the device: what of it lies there for each state, and what this machine knows of it.

use super::driver::{Address, DeviceBuffer, Driver};
use super::error::GpuError;
use crate::manifest::{SAMPLER_BYTES, SAMPLER_COUNT_BYTES};
use crate::sampler::SamplerOptions;
use std::sync::Arc;

/// Tokens of each state that are chosen before this machine looks at them.
const AHEAD: usize = 64;

/// How a device chooses the next token of a state: draws of equal seeds are equal, whatever the mode and the device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 always takes the first of the most probable tokens.
    pub temperature: f32,
    /// Only the most probable tokens with this probability together are kept.
    pub top_p: f32,
    /// Chooses among all possible outcomes.
    pub seed: u32,
}

impl Sampling {
    /// Always the first of the most probable tokens.
    pub const GREEDY: Sampling = Sampling {
        temperature: 0.0,
        top_p: 1.0,
        seed: 0,
    };

    /// What these options are on a device; `None` if they need a [`crate::sampler::Sampler`], because they ask for top-k
    /// or penalties.
    pub fn of(options: &SamplerOptions) -> Option<Self> {
        let plain = SamplerOptions {
            top_k: 0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            ..*options
        };
        let is_plain = *options == plain && options.validate().is_ok();
        is_plain.then_some(Sampling {
            temperature: options.temperature,
            top_p: options.top_p,
            seed: (options.seed ^ (options.seed >> 32)) as u32,
        })
    }

    fn words(&self) -> [u32; SAMPLER_BYTES as usize / 4] {
        [self.temperature.to_bits(), self.top_p.to_bits(), self.seed]
    }
}

/// One state: how its tokens are chosen, and how many were.
#[derive(Clone, Copy)]
struct Chosen {
    sampling: Sampling,
    count: u32,
}

/// The device's memory for choosing tokens.
pub(super) struct Chooser {
    options: DeviceBuffer,
    counts: DeviceBuffer,
    /// Tokens that were chosen and not yet copied from the device, row after row.
    history: DeviceBuffer,
    rows: Vec<Chosen>,
    /// Whether the device does not have what is in `rows`.
    is_stale: bool,
}

impl Chooser {
    /// For up to `most` states, none at first.
    pub(super) fn new(driver: &Arc<dyn Driver>, most: usize) -> Result<Self, GpuError> {
        let most = most as u64;
        Ok(Chooser {
            options: DeviceBuffer::new(driver, most * SAMPLER_BYTES)?,
            counts: DeviceBuffer::new(driver, most * SAMPLER_COUNT_BYTES)?,
            history: DeviceBuffer::new(driver, most * AHEAD as u64 * 4)?,
            rows: vec![],
            is_stale: true,
        })
    }

    pub(super) fn options(&self) -> Address {
        self.options.address()
    }

    pub(super) fn counts(&self) -> Address {
        self.counts.address()
    }

    /// A further state, whose tokens are the most probable ones until it is told otherwise.
    pub(super) fn join(&mut self) {
        self.rows.push(Chosen {
            sampling: Sampling::GREEDY,
            count: 0,
        });
        self.is_stale = true;
    }

    /// Takes a state out; the last one gets its number.
    pub(super) fn leave(&mut self, row: usize) {
        self.rows.swap_remove(row);
        self.is_stale = true;
    }

    /// Begins to choose the tokens of a state in this way.
    pub(super) fn set(&mut self, row: usize, sampling: Sampling) {
        self.rows[row] = Chosen { sampling, count: 0 };
        self.is_stale = true;
    }

    /// How many tokens of each state may be chosen now.
    pub(super) fn room(&self) -> usize {
        AHEAD
    }

    /// Before tokens are chosen: the device gets what it does not have.
    pub(super) fn ready(&mut self, driver: &dyn Driver) -> Result<(), GpuError> {
        if self.is_stale {
            let options: Vec<_> = self.rows.iter().flat_map(|row| row.sampling.words()).collect();
            let counts: Vec<u32> = self.rows.iter().map(|row| row.count).collect();
            driver.upload(self.options(), bytemuck::cast_slice(&options))?;
            driver.upload(self.counts(), bytemuck::cast_slice(&counts))?;
            self.is_stale = false;
        }
        Ok(())
    }

    /// After a token of each state was chosen, as the `i`th since the history was read.
    pub(super) fn keep(&mut self, driver: &dyn Driver, tokens: Address, i: usize) -> Result<(), GpuError> {
        for row in &mut self.rows {
            // The device counts in the same way.
            row.count = row.count.wrapping_add(1);
        }
        let bytes = self.rows.len() as u64 * 4;
        driver.copy(tokens, self.history.address().offset(i as u64 * bytes), bytes)
    }

    /// Waits for the device, and adds the `n` tokens of each state to `chosen`, those chosen at the same time together.
    ///
    /// # Errors
    /// If the device failed, or the logits of a state were no finite numbers.
    pub(super) fn read(&self, driver: &dyn Driver, n: usize, chosen: &mut Vec<u32>) -> Result<(), GpuError> {
        let start = chosen.len();
        chosen.resize(start + n * self.rows.len(), 0);
        let new = &mut chosen[start..];
        driver.download(self.history.address(), bytemuck::cast_slice_mut(new))?;
        match new.iter().position(|&token| token == u32::MAX) {
            Some(i) => Err(GpuError::NotFinite(i % self.rows.len())),
            None => Ok(()),
        }
    }
}
