//! The code generators: a table of all, built in or not.

use anyhow::{Result, bail};
use rwkvc_backend_api::{Backend, Target};

/// The name of the reference evaluator, which generates no code.
pub const EVALUATOR: &str = "evaluator";

/// A code generator that there is, here or in another build.
pub struct Entry {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is for, in a few words.
    pub summary: &'static str,
    /// How to have it.
    pub how_to_get: &'static str,
    /// The names of its stages, known where it is not built in too.
    pub stages: &'static [&'static str],
    /// The backend, if it is built in.
    pub backend: Option<&'static dyn Backend>,
}

/// Every backend; the first that is built in is the default.
pub const TABLE: &[Entry] = &[
    Entry {
        name: "llvm",
        summary: "the fastest code, for CPUs and GPUs",
        how_to_get: "build rwkvc with `--features llvm` where LLVM 22 is installed",
        stages: &["llvm", "asm", "obj", "ptx"],
        #[cfg(feature = "llvm")]
        backend: Some(&rwkvc_backend_llvm::LlvmBackend),
        #[cfg(not(feature = "llvm"))]
        backend: None,
    },
    Entry {
        name: "cranelift",
        summary: "quick to compile, for CPUs, in pure Rust",
        how_to_get: "it is always built in",
        stages: &["clif", "asm", "obj"],
        backend: Some(&rwkvc_backend_cranelift::CraneliftBackend),
    },
];

/// Every backend that is built in, the default first.
pub fn all() -> Vec<&'static dyn Backend> {
    TABLE.iter().filter_map(|entry| entry.backend).collect()
}

/// The backend of this name; the default without one.
///
/// # Errors
/// If there is no such backend, or it is not built in: the error says how to have it.
pub fn find(name: Option<&str>) -> Result<&'static dyn Backend> {
    let all = all();
    let Some(name) = name else { return Ok(all[0]) };
    let known = all.iter().map(|b| b.name()).collect::<Vec<_>>().join(", ");
    match TABLE.iter().find(|entry| entry.name == name) {
        Some(Entry {
            backend: Some(backend),
            ..
        }) => Ok(*backend),
        Some(entry) => bail!(
            "backend `{name}` is not compiled into this rwkvc; {}",
            entry.how_to_get
        ),
        None if name == EVALUATOR => {
            bail!("the evaluator generates no code; the code generators are {known}")
        }
        None => bail!("there is no backend `{name}`; there are {known} and {EVALUATOR}"),
    }
}

/// The target of a `--target` text.
///
/// # Errors
/// Names what is unknown, and what is known in its place.
pub fn target(text: &str) -> Result<Target> {
    Ok(Target::parse(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_say_what_the_backends_say() {
        for entry in TABLE {
            let Some(backend) = entry.backend else { continue };
            let stages: Vec<_> = backend.stages().iter().map(|stage| stage.name).collect();
            assert_eq!((backend.name(), stages.as_slice()), (entry.name, entry.stages));
        }
    }
}
