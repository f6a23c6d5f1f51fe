//! Why something cannot be done on a GPU.

use super::driver::DeviceInfo;
use crate::buffer::OutOfMemory;

/// Why a GPU cannot be used, or failed.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// There is no CUDA on this machine.
    #[error("no NVIDIA driver was found on this machine: the library libcuda cannot be loaded")]
    NoDriver,
    /// The driver's library is of another time.
    #[error("the NVIDIA driver knows CUDA {}, at least {} is needed", version(*found), version(*needed))]
    OldDriver {
        /// Its version, as 1000 · major + 10 · minor.
        found: u32,
        /// The version that is needed.
        needed: u32,
    },
    /// There are fewer devices.
    #[error("GPU {index} was asked for, but the NVIDIA driver knows {count} GPUs")]
    NoDevice {
        /// Which one was asked for.
        index: u32,
        /// How many there are.
        count: u32,
    },
    /// The device is too old for the code.
    #[error("the code needs {needed}, but the device is {found} (`{name}`)")]
    Architecture {
        /// The level that the code uses, such as `sm_90`.
        needed: String,
        /// The level of the device.
        found: String,
        /// The device's name.
        name: String,
    },
    /// The code is not for GPUs.
    #[error("the code is for {0} CPUs and cannot run on a GPU: compile the model for the target `cuda`")]
    Target(String),
    /// The code is not text.
    #[error("the code is not PTX: {0}")]
    NotText(std::str::Utf8Error),
    /// The manifest names what no GPU is.
    #[error("the code uses `{0}`, a GPU architecture unknown to this version")]
    UnknownArchitecture(String),
    /// Too little device memory.
    #[error("{what} needs {needed} bytes of device memory, {free} are free on `{name}`")]
    Memory {
        /// What it is for.
        what: &'static str,
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// The device's name.
        name: String,
    },
    /// Too little memory of this machine.
    #[error(transparent)]
    HostMemory(#[from] OutOfMemory),
    /// The driver's compiler does not take the code.
    #[error("the NVIDIA driver refuses the code: {name}\n{log}")]
    Ptx {
        /// The name of CUDA's error.
        name: String,
        /// What its compiler says.
        log: String,
    },
    /// A call of the driver failed.
    #[error("{call}: {name}: {description}")]
    Call {
        /// The function that was called.
        call: &'static str,
        /// The name of CUDA's error.
        name: String,
        /// What CUDA says about it.
        description: String,
    },
    /// Addresses that are not memory of the device.
    #[error("{call}: {bytes} bytes at {address:#x} are not within any memory of the device")]
    Range {
        /// What was asked for.
        call: &'static str,
        /// The first address.
        address: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// Something that the driver has not handed out, or has taken back.
    #[error("{call}: the handle is not of this driver, or was released")]
    Handle {
        /// What was asked for.
        call: &'static str,
    },
    /// The code computed what no numbers are.
    #[error("the logits of state {0} are not finite numbers, so no token can be chosen")]
    NotFinite(usize),
    /// All of a program cannot run as one launch.
    #[error("the program cannot run as one persistent megakernel: {0}")]
    Persistent(String),
}

impl GpuError {
    /// Checks that a device runs the code of some architectures, such as `sm_80`.
    pub(crate) fn check_architecture(info: &DeviceInfo, extensions: &[String]) -> Result<(), GpuError> {
        let (major, minor) = info.capability;
        let mut newest = (0, None);
        for needed in extensions {
            // Two digits or more; the last one is the minor version.
            let level = needed.strip_prefix("sm_").and_then(|n| n.parse::<u32>().ok());
            let level = level.ok_or_else(|| GpuError::UnknownArchitecture(needed.clone()))?;
            newest = newest.max((level, Some(needed)));
        }
        if let (level, Some(needed)) = newest
            && (level / 10, level % 10) > (major, minor)
        {
            return Err(GpuError::Architecture {
                needed: needed.clone(),
                found: format!("sm_{major}{minor}"),
                name: info.name.clone(),
            });
        }
        Ok(())
    }
}

fn version(number: u32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}
