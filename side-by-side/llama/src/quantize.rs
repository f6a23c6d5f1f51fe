//! Quantising as llama.cpp does it.

use std::ffi::CString;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_sys_2 as sys;

/// How most matrices are stored.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    /// 8 bits, groups of 32
    #[value(name = "q8_0")]
    Q8_0,
    /// 4 bits, groups of 32
    #[value(name = "q4_0")]
    Q4_0,
    /// 4 bits, groups of 32 in blocks of 256; some matrices with more bits
    #[value(name = "q4_k_m")]
    Q4KM,
}

/// Writes a file with quantised weights.
pub(crate) fn quantize(_: &LlamaBackend, input: &Path, output: &Path, format: Format) -> Result<()> {
    let [from, to] = [input, output].map(|path| -> Result<CString> {
        let text = path.to_str().context("llama.cpp takes paths in UTF-8")?;
        Ok(CString::new(text)?)
    });
    let (from, to) = (from?, to?);
    // SAFETY: the function reads nothing.
    let mut params = unsafe { sys::llama_model_quantize_default_params() };
    params.ftype = match format {
        Format::Q8_0 => sys::LLAMA_FTYPE_MOSTLY_Q8_0,
        Format::Q4_0 => sys::LLAMA_FTYPE_MOSTLY_Q4_0,
        Format::Q4KM => sys::LLAMA_FTYPE_MOSTLY_Q4_K_M,
    };
    // SAFETY: the paths and the parameters outlive the call, and llama.cpp is initialised.
    match unsafe { sys::llama_model_quantize(from.as_ptr(), to.as_ptr(), &params) } {
        0 => Ok(()),
        code => bail!("llama.cpp cannot quantise `{}`: error {code}", input.display()),
    }
}
