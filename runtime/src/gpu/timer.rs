//! How long a device takes, by its own clock.

use super::driver::{Driver, Event, Owned, Resource};
use super::error::GpuError;
use std::sync::Arc;

/// Two marks in the stream of a device: what lies between them is timed, and not what this machine does meanwhile.
pub struct Timer {
    driver: Arc<dyn Driver>,
    from: (Event, Owned),
    to: (Event, Owned),
}

impl Timer {
    /// A timer of a device.
    ///
    /// # Errors
    /// If the device has no more marks.
    pub fn new(driver: &Arc<dyn Driver>) -> Result<Self, GpuError> {
        let mark = || {
            let event = driver.event()?;
            Ok::<_, GpuError>((event, Owned::new(driver, Resource::Event(event))))
        };
        Ok(Timer {
            from: mark()?,
            to: mark()?,
            driver: Arc::clone(driver),
        })
    }

    /// Begins after all that the device was told before.
    ///
    /// # Errors
    /// If the device fails.
    pub fn start(&self) -> Result<(), GpuError> {
        self.driver.mark(self.from.0)
    }

    /// Waits until the device has done all that it was told since [`Self::start`]; the nanoseconds it took.
    ///
    /// # Errors
    /// If anything of it failed.
    pub fn stop(&self) -> Result<u64, GpuError> {
        self.driver.mark(self.to.0)?;
        self.driver.elapsed(self.from.0, self.to.0)
    }
}

impl std::fmt::Debug for Timer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timer").finish_non_exhaustive()
    }
}
