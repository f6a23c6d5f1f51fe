//! The machines code can be produced for, and their text form.
//!
//! | text | machine |
//! |---|---|
//! | `cpu` | this one, with all that it has |
//! | `cpu:x86-64-v3` | a level: one of [`Target::levels`] |
//! | `cpu:x86-64-v3+avxvnni` | a level and more extensions |
//! | `cpu:x86-64+avx2+fma` | the first 64-bit x86 and these extensions |
//! | `cpu+avx2+fma` | the same, on an x86-64: the first machine of this machine's kind and these extensions |
//! | `cuda:sm_90` | an NVIDIA GPU of compute capability 9.0, or a later one |
//! | `cuda` | every NVIDIA GPU since compute capability 8.0; its driver makes the code for the one it has |
//!
//! An extension brings along those that it builds on: `avx2` is `avx`, `sse4.2` … too.

use std::fmt;

use rwkvc_abi::Arch;
use rwkvc_abi::isa::Level;

/// What code is produced for. Its text form is read by [`Target::parse`] and leaves out `cpu`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Instruction set.
    pub arch: Arch,
    /// Instruction set extensions the code may use, by LLVM's names (`avx2`, `fma`, `f16c`, `avx512f` …), sorted. Of a
    /// GPU, the generations whose code it runs.
    pub extensions: Vec<String>,
    /// The CPU or GPU to tune for, by LLVM's name (`znver4`, `x86-64-v3`, `generic`); `native` is this machine's. It
    /// does not decide which machines can run the code.
    pub cpu: String,
}

/// Why a text names no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The kind of machine is unknown.
    #[error(
        "unknown target `{0}`, expected `cpu`, `cuda`, or a level such as `cpu:x86-64-v3` or `cuda:sm_90`; `+EXTENSION` may follow"
    )]
    Kind(String),
    /// The level is unknown.
    #[error("unknown level `{found}`, expected one of {}", .known.join(", "))]
    Level {
        /// The name given.
        found: String,
        /// All levels.
        known: Vec<&'static str>,
    },
    /// The extension is unknown.
    #[error("unknown extension `{found}` of {arch}, expected one of {}", .known.join(", "))]
    Extension {
        /// The name given.
        found: String,
        /// The instruction set that does not have it.
        arch: Arch,
        /// All extensions of it.
        known: Vec<&'static str>,
    },
}

impl Target {
    /// This machine, with those of its extensions that can change code.
    pub fn host() -> Self {
        let arch = Arch::host();
        let here = arch.extensions().iter().filter(|e| e.is_here());
        let mut target = Target {
            arch,
            extensions: here.map(|e| e.name.to_owned()).collect(),
            cpu: "native".to_owned(),
        };
        target.extensions.sort();
        target
    }

    /// The machines that have a name and that kernels can be compiled for, as the text and what it means.
    pub fn levels() -> Vec<(String, Target)> {
        let levels = Arch::ALL.into_iter().flat_map(Arch::levels);
        levels
            .filter(|l| !l.extensions.is_empty())
            .map(|l| {
                (
                    format!("{}:{}", l.arch.device().name(), l.name),
                    Target::of_level(l),
                )
            })
            .collect()
    }

    /// Reads the text form: see the table of [the module](self).
    ///
    /// # Errors
    /// Names what is unknown, and what is known in its place.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let mut parts = text.split('+');
        let machine = parts.next().unwrap_or_default();
        let mut target = match machine.split_once(':') {
            None if text == "cpu" => return Ok(Target::host()),
            None if machine == "cpu" => Target::of_level(first_level(Arch::host())),
            None if machine == "cuda" => Target::of_level(first_level(Arch::Cuda)),
            Some((machine @ ("cpu" | "cuda"), name)) => {
                let levels = Arch::ALL
                    .into_iter()
                    .filter(|arch| arch.device().name() == machine);
                let levels = levels.flat_map(Arch::levels);
                let level = levels.clone().find(|l| l.name == name);
                Target::of_level(level.ok_or_else(|| TargetError::Level {
                    found: name.to_owned(),
                    known: levels.map(|l| l.name).collect(),
                })?)
            }
            _ => return Err(TargetError::Kind(text.to_owned())),
        };
        parts.try_for_each(|name| target.add(name))?;
        target.extensions.sort();
        Ok(target)
    }

    /// Whether the code may use an extension.
    pub fn has(&self, extension: &str) -> bool {
        self.extensions.iter().any(|e| e == extension)
    }

    fn of_level(level: &Level) -> Self {
        Target {
            arch: level.arch,
            extensions: level.extensions.iter().map(|&e| e.to_owned()).collect(),
            // LLVM knows the levels as CPUs and GPUs, but not the first Arm.
            cpu: match level.arch {
                Arch::X86_64 | Arch::Cuda => level.name,
                Arch::Aarch64 => "generic",
            }
            .to_owned(),
        }
    }

    /// Adds an extension and those that it builds on.
    fn add(&mut self, name: &str) -> Result<(), TargetError> {
        let Some(extension) = self.arch.extension(name) else {
            return Err(TargetError::Extension {
                found: name.to_owned(),
                arch: self.arch,
                known: self.arch.extensions().iter().map(|e| e.name).collect(),
            });
        };
        if !self.has(name) {
            self.extensions.push(name.to_owned());
        }
        extension.implies.iter().try_for_each(|implied| self.add(implied))
    }
}

/// The level with the fewest extensions.
fn first_level(arch: Arch) -> &'static Level {
    arch.levels().next().expect("each instruction set has a level")
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = self
            .arch
            .levels()
            .rev()
            .find(|l| l.extensions.iter().all(|e| self.has(e)));
        let level = level.unwrap_or(first_level(self.arch));
        write!(f, "{}:{}", self.arch.device().name(), level.name)?;
        let more = self
            .extensions
            .iter()
            .filter(|e| !level.extensions.contains(&e.as_str()));
        more.into_iter().try_for_each(|e| write!(f, "+{e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Target {
        Target::parse(text).expect(text)
    }

    #[test]
    fn text_round_trips() {
        for text in [
            "cpu:x86-64",
            "cpu:x86-64-v3",
            "cpu:x86-64-v4",
            "cpu:aarch64",
            "cpu:x86-64-v3+avxvnni",
            "cpu:x86-64-v4+avx512bf16+avx512vnni",
            "cpu:aarch64+bf16+i8mm",
            "cuda:sm_80",
            "cuda:sm_120",
        ] {
            assert_eq!(parse(text).to_string(), text);
        }
        let host = Target::host();
        assert_eq!(parse("cpu"), host);
        assert_eq!(parse(&host.to_string()).extensions, host.extensions);
        assert!(host.extensions.is_sorted());
        assert_eq!(parse("cuda"), parse("cuda:sm_80"));
        assert!(parse("cuda:sm_90").has("sm_80"));
    }

    #[test]
    fn extensions_bring_along_what_they_build_on() {
        let target = parse("cpu:x86-64+avx2+fma");
        assert_eq!(
            target.extensions,
            ["avx", "avx2", "fma", "sse3", "sse4.1", "sse4.2", "ssse3"]
        );
        assert!(target.has("avx") && !target.has("f16c"));
        if target.arch == Arch::host() {
            assert_eq!(parse("cpu+avx2+fma"), target);
        }
        assert_eq!(parse("cpu:x86-64-v3+avx2"), parse("cpu:x86-64-v3"));
    }

    #[test]
    fn levels_can_be_written_as_they_are_listed() {
        for (text, target) in Target::levels() {
            assert_eq!(parse(&text), target);
        }
    }

    #[test]
    fn errors_name_what_is_known() {
        let error = |text| Target::parse(text).expect_err(text).to_string();
        assert_eq!(
            error("gpu+avx2"),
            "unknown target `gpu+avx2`, expected `cpu`, `cuda`, or a level such as `cpu:x86-64-v3` or `cuda:sm_90`; \
             `+EXTENSION` may follow"
        );
        assert_eq!(
            error("cpu:x86-64-v9"),
            "unknown level `x86-64-v9`, expected one of x86-64, x86-64-v3, x86-64-v4, aarch64"
        );
        assert_eq!(
            error("cpu:aarch64+avx2"),
            "unknown extension `avx2` of aarch64, expected one of neon, bf16, dotprod, fullfp16, i8mm"
        );
        for text in ["", "cpu:", "cpu+", "cpux", "+avx2", "cpu:x86-64-v3++avxvnni"] {
            error(text);
        }
    }
}
