//! Choosing tokens on the device: what of it lies there for each state, and what this machine knows of it.

use super::driver::{Address, DeviceBuffer, Driver};
use super::error::GpuError;
use rwkvc_abi::SampleOptions;
use rwkvc_abi::kernel::SAMPLE_COUNT_BYTES;
use std::sync::Arc;

/// Tokens of each state that are chosen before this machine looks at them.
const AHEAD: usize = 64;

/// One state: how its tokens are chosen, and how many were.
#[derive(Clone, Copy)]
struct Chosen {
    sampling: SampleOptions,
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
            options: DeviceBuffer::new(driver, most * SampleOptions::BYTES)?,
            counts: DeviceBuffer::new(driver, most * SAMPLE_COUNT_BYTES)?,
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
            sampling: SampleOptions::GREEDY,
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
    pub(super) fn set(&mut self, row: usize, sampling: SampleOptions) {
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
