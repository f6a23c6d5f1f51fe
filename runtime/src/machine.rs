//! Whether this machine can execute compiled code.

use rwkvc_abi::{Arch, TargetInfo};

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
    /// Code for a GPU, where code for a CPU was expected.
    #[error("the code is for NVIDIA GPUs (`{0}`) and cannot run on this machine's CPU")]
    Gpu(String),
    /// Instructions that this CPU does not have.
    #[error("the code uses {}, which this machine's CPU does not have", .0.join(", "))]
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
    let host = Arch::host();
    if target.arch == Arch::Cuda.name() {
        return Err(MachineError::Gpu(target.arch.clone()));
    }
    if target.arch != host.name() {
        return Err(MachineError::Arch {
            found: target.arch.clone(),
            expected: host.name(),
        });
    }
    let mut missing = vec![];
    for name in &target.extensions {
        match host.extension(name) {
            Some(extension) if extension.is_here() => {}
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
    let here = Arch::host().extensions().iter().filter(|e| e.is_here());
    let mut names: Vec<_> = here.map(|e| e.name).collect();
    names.sort_unstable();
    names
}

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
        if let Some(extension) = Arch::host().extensions().iter().find(|e| !e.is_here()) {
            let error = check(&target(std::env::consts::ARCH, &[extension.name])).expect_err("missing");
            assert_eq!(error, MachineError::Missing(vec![extension.name.into()]));
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
