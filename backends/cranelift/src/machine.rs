//! From a [`Target`] to Cranelift's settings.

use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable, SetError};
use rwkvc_backend_api::{Arch, Target, Unsupported};

use crate::unsupported;

/// x86-64 extensions without which Cranelift calls a library for what kernels need.
const REQUIRED_X86: [&str; 2] = ["avx", "fma"];

/// Every CPU with AVX has these.
const IMPLIED_X86: [&str; 4] = ["has_sse3", "has_ssse3", "has_sse41", "has_sse42"];

/// LLVM's names and Cranelift's. Other extensions change nothing in what Cranelift emits for kernels.
const NAMES_X86: [(&str, &str); 7] = [
    ("avx", "has_avx"),
    ("avx2", "has_avx2"),
    ("bmi", "has_bmi1"),
    ("bmi2", "has_bmi2"),
    ("fma", "has_fma"),
    ("lzcnt", "has_lzcnt"),
    ("popcnt", "has_popcnt"),
];

/// Cranelift's code generator for `target`.
///
/// # Errors
/// If the target lacks an extension that kernels cannot do without.
pub(crate) fn isa(target: &Target) -> Result<OwnedTargetIsa, Unsupported> {
    let triple = match target.arch {
        Arch::X86_64 => "x86_64-unknown-linux-gnu",
        Arch::Aarch64 => "aarch64-unknown-linux-gnu",
        Arch::Cuda => return Err(no_gpus()),
    };
    let mut builder = isa::lookup_by_name(triple).map_err(|e| unsupported(format!("{triple}: {e}")))?;
    if target.arch == Arch::X86_64 {
        let has = |name: &str| target.extensions.iter().any(|e| e == name);
        if let Some(missing) = REQUIRED_X86.into_iter().find(|name| !has(name)) {
            return Err(unsupported(format!(
                "x86-64 code needs the extension `{missing}`, which the target lacks"
            )));
        }
        let named = NAMES_X86
            .into_iter()
            .filter(|(llvm, _)| has(llvm))
            .map(|(_, name)| name);
        for name in IMPLIED_X86.into_iter().chain(named) {
            builder
                .enable(name)
                .map_err(|e| unsupported(format!("setting `{name}`: {e}")))?;
        }
    }
    let flags = flags().map_err(|e| unsupported(e.to_string()))?;
    builder.finish(flags).map_err(|e| unsupported(e.to_string()))
}

/// Why there is no code for a GPU.
pub(crate) fn no_gpus() -> Unsupported {
    unsupported("Cranelift has no code for GPUs; the `llvm` backend has".to_owned())
}

fn flags() -> Result<settings::Flags, SetError> {
    let mut flags = settings::builder();
    flags.set("opt_level", "speed")?;
    flags.set("is_pic", "true")?;
    flags.set("unwind_info", "false")?;
    // A probe would be a call; the emitter bounds the frame instead.
    flags.set("enable_probestack", "false")?;
    flags.set(
        "enable_verifier",
        if cfg!(debug_assertions) { "true" } else { "false" },
    )?;
    Ok(settings::Flags::new(flags))
}
