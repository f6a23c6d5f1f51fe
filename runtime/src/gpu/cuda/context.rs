//! A device of the CUDA driver, and what its calls answer.

use crate::gpu::driver::DeviceInfo;
use crate::gpu::error::GpuError;
use cudarc::driver::sys;
use std::ffi::{CStr, c_char, c_int};

/// CUDA 12.0: all that is called here is in it.
const OLDEST_DRIVER: u32 = 12_000;

/// The primary context of a device, shared with whatever else uses the device in this process.
pub(super) struct Context {
    device: sys::CUdevice,
    context: sys::CUcontext,
}

// SAFETY: CUDA's contexts may be used from any thread, by several at the same time.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// The context of a device, counted as the driver counts.
    pub(super) fn open(index: u32) -> Result<(Self, DeviceInfo), GpuError> {
        let driver_version = driver_version()?;
        if driver_version < OLDEST_DRIVER {
            return Err(GpuError::OldDriver {
                found: driver_version,
                needed: OLDEST_DRIVER,
            });
        }
        let no_device = |count| GpuError::NoDevice { index, count };
        // SAFETY: there is a library, and its functions may be called in any order: they tell what is missing. So for all
        // calls here; places for results are valid for writes.
        match unsafe { sys::cuInit(0) } {
            sys::CUresult::CUDA_ERROR_NO_DEVICE => return Err(no_device(0)),
            result => check("cuInit", result)?,
        }
        let mut count = 0;
        // SAFETY: as above.
        check("cuDeviceGetCount", unsafe { sys::cuDeviceGetCount(&mut count) })?;
        let ordinal = c_int::try_from(index).ok().filter(|i| *i < count);
        let ordinal = ordinal.ok_or_else(|| no_device(count.unsigned_abs()))?;
        let mut device = 0;
        // SAFETY: as above.
        check("cuDeviceGet", unsafe { sys::cuDeviceGet(&mut device, ordinal) })?;
        let info = describe(device, driver_version)?;
        let mut context = std::ptr::null_mut();
        // SAFETY: as above; given back when this value goes.
        let result = unsafe { sys::cuDevicePrimaryCtxRetain(&mut context, device) };
        check("cuDevicePrimaryCtxRetain", result)?;
        Ok((Context { device, context }, info))
    }

    /// Makes it the context of the calls that this thread makes next.
    pub(super) fn enter(&self) -> Result<(), GpuError> {
        // SAFETY: retained as long as this value lives.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.context) })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once in `open`. There is nothing to be done if that fails.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// The version of CUDA that the driver knows, if there is a driver.
fn driver_version() -> Result<u32, GpuError> {
    // SAFETY: loads NVIDIA's library, if there is one, as every program that uses a GPU does.
    if !unsafe { sys::is_culib_present() } {
        return Err(GpuError::NoDriver);
    }
    // A library of this name that lacks the most basic call is no driver.
    // SAFETY: the library was just found; the symbol is looked for and not called as this type.
    let is_driver = unsafe { sys::culib().get::<unsafe extern "C" fn()>(b"cuDriverGetVersion") }.is_ok();
    if !is_driver {
        return Err(GpuError::NoDriver);
    }
    let mut version = 0;
    // SAFETY: it may be called before anything else, and `version` is valid for writes.
    check("cuDriverGetVersion", unsafe {
        sys::cuDriverGetVersion(&mut version)
    })?;
    Ok(version.unsigned_abs())
}

fn describe(device: sys::CUdevice, driver_version: u32) -> Result<DeviceInfo, GpuError> {
    use sys::CUdevice_attribute as Attribute;
    let attribute = |attribute: Attribute| {
        let mut value = 0;
        // SAFETY: a device of the driver, and a place for the answer.
        let result = unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, device) };
        check("cuDeviceGetAttribute", result).map(|()| value.unsigned_abs())
    };
    let mut name = [0 as c_char; 256];
    // SAFETY: as above, with the length of the place.
    let result = unsafe { sys::cuDeviceGetName(name.as_mut_ptr(), name.len() as c_int, device) };
    check("cuDeviceGetName", result)?;
    let mut memory_bytes = 0usize;
    // SAFETY: as above.
    let result = unsafe { sys::cuDeviceTotalMem_v2(&mut memory_bytes, device) };
    check("cuDeviceTotalMem", result)?;
    let name: Vec<u8> = name
        .iter()
        .map(|c| c.cast_unsigned())
        .take_while(|c| *c != 0)
        .collect();
    Ok(DeviceInfo {
        name: String::from_utf8_lossy(&name).into_owned(),
        capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        memory_bytes: memory_bytes as u64,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        l2_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?.into(),
        driver_version,
    })
}

/// What a call answered; `call` is its name in CUDA's documentation.
pub(super) fn check(call: &'static str, result: sys::CUresult) -> Result<(), GpuError> {
    if result == sys::CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    Err(GpuError::Call {
        call,
        name: error_name(result),
        description: error_text(result, sys::cuGetErrorString),
    })
}

/// CUDA's name of an error, such as `CUDA_ERROR_OUT_OF_MEMORY`.
pub(super) fn error_name(result: sys::CUresult) -> String {
    error_text(result, sys::cuGetErrorName)
}

fn error_text(
    result: sys::CUresult,
    ask: unsafe fn(sys::CUresult, *mut *const c_char) -> sys::CUresult,
) -> String {
    let mut text = std::ptr::null();
    // SAFETY: both functions that are passed here write a pointer.
    let known = unsafe { ask(result, &mut text) } == sys::CUresult::CUDA_SUCCESS;
    if !known || text.is_null() {
        return format!("error {}", result as u32);
    }
    // SAFETY: a text of the driver, which ends with 0 and stays.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
