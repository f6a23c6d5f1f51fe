//! What this machine's processor can do, by LLVM's names.

use crate::manifest::{GPU_ARCH, TargetInfo};

/// Why code cannot run here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// Another instruction set.
    #[error("the code is for {found}, but this machine is {expected}")]
    Arch {
        /// What the code is for.
        found: String,
        /// What this machine is.
        expected: &'static str,
    },
    /// Code for a GPU, where code for a processor was expected.
    #[error("the code is for NVIDIA GPUs (`{0}`) and cannot run on this machine's processor")]
    Gpu(String),
    /// Instructions that this processor does not have.
    #[error("the code uses {}, which this machine's processor does not have", .0.join(", "))]
    Missing(Vec<String>),
    /// A name that this version does not know.
    #[error("the code uses `{0}`, an instruction set extension unknown to this version")]
    Unknown(String),
}

/// Checks that this machine has all that the code was compiled for.
///
/// # Errors
/// Names the extensions that are missing.
pub fn check(target: &TargetInfo) -> Result<(), MachineError> {
    let expected = std::env::consts::ARCH;
    if target.arch == GPU_ARCH {
        return Err(MachineError::Gpu(target.arch.clone()));
    }
    if target.arch != expected {
        return Err(MachineError::Arch {
            found: target.arch.clone(),
            expected,
        });
    }
    let mut missing = vec![];
    for name in &target.extensions {
        match EXTENSIONS.iter().find(|(known, _)| known == name) {
            Some((_, has)) if has() => {}
            Some(_) => missing.push(name.clone()),
            None => return Err(MachineError::Unknown(name.clone())),
        }
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(MachineError::Missing(missing))
    }
}

/// The known extensions that this machine has, sorted.
pub fn extensions() -> Vec<&'static str> {
    let mut names: Vec<_> = EXTENSIONS
        .iter()
        .filter(|(_, has)| has())
        .map(|(name, _)| *name)
        .collect();
    names.sort_unstable();
    names
}

type Extension = (&'static str, fn() -> bool);

/// LLVM's name, and the standard library's where it differs.
macro_rules! extensions {
    ($detect:ident: $($llvm:tt $(= $std:tt)?),* $(,)?) => {
        &[$(($llvm, || extensions!(@ $detect $llvm $($std)?))),*]
    };
    (@ $detect:ident $llvm:tt $std:tt) => { std::arch::$detect!($std) };
    (@ $detect:ident $llvm:tt) => { std::arch::$detect!($llvm) };
}

#[cfg(target_arch = "x86_64")]
const EXTENSIONS: &[Extension] = extensions!(
    is_x86_feature_detected:
    "sse", "sse2", "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "lzcnt", "bmi" = "bmi1", "bmi2", "movbe",
    "cx16" = "cmpxchg16b", "avx", "avx2", "fma", "f16c", "avxvnni", "avx512f", "avx512bw", "avx512cd", "avx512dq",
    "avx512vl", "avx512ifma", "avx512vbmi", "avx512vbmi2", "avx512vnni", "avx512bitalg", "avx512vpopcntdq",
    "avx512bf16", "avx512fp16", "gfni",
);

#[cfg(target_arch = "aarch64")]
const EXTENSIONS: &[Extension] = extensions!(
    is_aarch64_feature_detected:
    "neon", "fullfp16" = "fp16", "bf16", "i8mm", "dotprod", "lse", "rdm", "sve", "sve2",
);

#[cfg(test)]
mod tests {
    use super::*;

    fn target(arch: &str, extensions: &[&str]) -> TargetInfo {
        TargetInfo {
            arch: arch.into(),
            extensions: extensions.iter().map(|e| (*e).into()).collect(),
        }
    }

    #[test]
    fn accepts_what_is_here() {
        assert_eq!(check(&target(std::env::consts::ARCH, &extensions())), Ok(()));
    }

    #[test]
    fn names_what_is_missing() {
        let error = check(&target(std::env::consts::ARCH, &["magic"])).expect_err("no such thing");
        assert_eq!(
            error.to_string(),
            "the code uses `magic`, an instruction set extension unknown to this version"
        );
        if let Some((name, _)) = EXTENSIONS.iter().find(|(_, has)| !has()) {
            let error = check(&target(std::env::consts::ARCH, &[name])).expect_err("missing");
            assert_eq!(error, MachineError::Missing(vec![(*name).into()]));
        }
        let error = check(&target("m68k", &[]))
            .expect_err("another machine")
            .to_string();
        assert!(
            error.starts_with("the code is for m68k, but this machine is "),
            "{error}"
        );
    }
}
