//! The tables of levels and extensions.

use crate::Arch;

/// A set of instructions beyond the first machines of its kind.
pub(crate) struct Extension {
    /// LLVM's name.
    pub(crate) name: &'static str,
    /// The extensions without which it does not exist.
    pub(crate) implies: &'static [&'static str],
    /// Whether this machine has it.
    is_here: fn() -> bool,
}

impl Extension {
    /// Whether this machine has it and all that it builds on.
    pub(crate) fn is_here(&self) -> bool {
        (self.is_here)()
    }
}

/// A set of extensions with a name.
pub(crate) struct Level {
    pub(crate) name: &'static str,
    pub(crate) arch: Arch,
    pub(crate) extensions: &'static [&'static str],
}

/// All levels. Of one instruction set, each has the extensions of those before it, and the first has those that every
/// machine has.
pub(crate) const LEVELS: &[Level] = &[
    Level {
        name: "x86-64",
        arch: Arch::X86_64,
        extensions: &[],
    },
    Level {
        name: "x86-64-v3",
        arch: Arch::X86_64,
        extensions: &[
            "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "popcnt", "sse3", "sse4.1",
            "sse4.2", "ssse3",
        ],
    },
    Level {
        name: "x86-64-v4",
        arch: Arch::X86_64,
        extensions: &[
            "avx", "avx2", "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl", "bmi", "bmi2", "f16c",
            "fma", "lzcnt", "movbe", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3",
        ],
    },
    Level {
        name: "aarch64",
        arch: Arch::Aarch64,
        extensions: &["neon"],
    },
    Level {
        name: "sm_80",
        arch: Arch::Cuda,
        extensions: &["sm_80"],
    },
    Level {
        name: "sm_86",
        arch: Arch::Cuda,
        extensions: &["sm_80", "sm_86"],
    },
    Level {
        name: "sm_89",
        arch: Arch::Cuda,
        extensions: &["sm_80", "sm_86", "sm_89"],
    },
    Level {
        name: "sm_90",
        arch: Arch::Cuda,
        extensions: &["sm_80", "sm_86", "sm_89", "sm_90"],
    },
    Level {
        name: "sm_100",
        arch: Arch::Cuda,
        extensions: &["sm_100", "sm_80", "sm_86", "sm_89", "sm_90"],
    },
    Level {
        name: "sm_120",
        arch: Arch::Cuda,
        extensions: &["sm_100", "sm_120", "sm_80", "sm_86", "sm_89", "sm_90"],
    },
];

/// The extensions of an instruction set. They are those that can change what a kernel becomes.
pub(crate) fn extensions(arch: Arch) -> &'static [Extension] {
    match arch {
        Arch::X86_64 => X86_64,
        Arch::Aarch64 => AARCH64,
        Arch::Cuda => CUDA,
    }
}

/// LLVM's name, the standard library's, and what it builds on.
macro_rules! extensions {
    ($detect:ident on $arch:literal: $($name:literal = $std:tt ($($implies:literal),*);)*) => {
        &[$(Extension {
            name: $name,
            implies: &[$($implies),*],
            is_here: || {
                #[cfg(target_arch = $arch)]
                { std::arch::$detect!($std) }
                #[cfg(not(target_arch = $arch))]
                { false }
            },
        }),*]
    };
}

const X86_64: &[Extension] = extensions!(
    is_x86_feature_detected on "x86_64":
    "sse3" = "sse3" ();
    "ssse3" = "ssse3" ("sse3");
    "sse4.1" = "sse4.1" ("ssse3");
    "sse4.2" = "sse4.2" ("sse4.1");
    "popcnt" = "popcnt" ();
    "lzcnt" = "lzcnt" ();
    "bmi" = "bmi1" ();
    "bmi2" = "bmi2" ();
    "movbe" = "movbe" ();
    "avx" = "avx" ("sse4.2");
    "avx2" = "avx2" ("avx");
    "fma" = "fma" ("avx");
    "f16c" = "f16c" ("avx");
    "avxvnni" = "avxvnni" ("avx2");
    "avx512f" = "avx512f" ("avx2", "fma", "f16c");
    "avx512bw" = "avx512bw" ("avx512f");
    "avx512cd" = "avx512cd" ("avx512f");
    "avx512dq" = "avx512dq" ("avx512f");
    "avx512vl" = "avx512vl" ("avx512f");
    "avx512bf16" = "avx512bf16" ("avx512bw");
    "avx512vbmi" = "avx512vbmi" ("avx512bw");
    "avx512vnni" = "avx512vnni" ("avx512f");
);

const AARCH64: &[Extension] = extensions!(
    is_aarch64_feature_detected on "aarch64":
    "neon" = "neon" ();
    "bf16" = "bf16" ("neon");
    "dotprod" = "dotprod" ("neon");
    "fullfp16" = "fp16" ("neon");
    "i8mm" = "i8mm" ("neon");
);

/// Generations of NVIDIA GPUs: each runs the PTX of those before it.
const CUDA: &[Extension] = &[
    generation("sm_80", &[]),
    generation("sm_86", &["sm_80"]),
    generation("sm_89", &["sm_86"]),
    generation("sm_90", &["sm_89"]),
    generation("sm_100", &["sm_90"]),
    generation("sm_120", &["sm_100"]),
];

const fn generation(name: &'static str, implies: &'static [&'static str]) -> Extension {
    Extension {
        name,
        implies,
        is_here: || false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_name_what_exists() {
        for level in LEVELS {
            for name in level.extensions {
                let extension = extensions(level.arch)
                    .iter()
                    .find(|e| e.name == *name)
                    .expect(name);
                for implied in extension.implies {
                    assert!(
                        level.extensions.contains(implied),
                        "{}: {name} needs {implied}",
                        level.name
                    );
                }
            }
            assert!(level.extensions.is_sorted(), "{}", level.name);
        }
        for arch in [Arch::X86_64, Arch::Aarch64, Arch::Cuda] {
            for (i, extension) in extensions(arch).iter().enumerate() {
                for implied in extension.implies {
                    assert!(
                        extensions(arch)[..i].iter().any(|e| e.name == *implied),
                        "{}",
                        extension.name
                    );
                }
            }
        }
    }
}
