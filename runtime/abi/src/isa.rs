//! Instruction sets: extensions, what these imply, levels of them, and whether this machine has them.
//!
//! A row of `isa!` is all that there is to say of an extension: its LLVM name, the standard library's name where it
//! differs, and the extensions that it builds on. The compiler's targets and the runtime's check read the same rows.

use std::fmt;

/// Instruction set of compiled code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
    /// NVIDIA GPUs, through PTX.
    Cuda,
}

/// What kind of device executes code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// A CPU: ranges of iterations of the parallel loop on its threads.
    Cpu,
    /// A GPU: a block of threads for each iteration of the parallel loop.
    Gpu,
}

impl DeviceKind {
    /// What targets of this kind begin with: `cpu` or `cuda`.
    pub const fn name(self) -> &'static str {
        match self {
            DeviceKind::Cpu => "cpu",
            DeviceKind::Gpu => "cuda",
        }
    }
}

impl Arch {
    /// All instruction sets.
    pub const ALL: [Arch; 3] = [Arch::X86_64, Arch::Aarch64, Arch::Cuda];

    /// The instruction set of this machine's CPU.
    pub const fn host() -> Self {
        if cfg!(target_arch = "aarch64") {
            Arch::Aarch64
        } else {
            Arch::X86_64
        }
    }

    /// The name that Rust and Linux use, `x86_64` or `aarch64`; or `cuda`.
    pub const fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
            Arch::Cuda => "cuda",
        }
    }

    /// What kind of device executes it.
    pub const fn device(self) -> DeviceKind {
        match self {
            Arch::X86_64 | Arch::Aarch64 => DeviceKind::Cpu,
            Arch::Cuda => DeviceKind::Gpu,
        }
    }

    /// Its extensions: those that can change what a kernel becomes. An extension comes after those that it implies.
    pub const fn extensions(self) -> &'static [Extension] {
        match self {
            Arch::X86_64 => X86_64,
            Arch::Aarch64 => AARCH64,
            Arch::Cuda => CUDA,
        }
    }

    /// The extension of a name.
    pub fn extension(self, name: &str) -> Option<&'static Extension> {
        self.extensions().iter().find(|extension| extension.name == name)
    }

    /// Its levels, each with the extensions of those before it. The first has those that every machine has.
    pub fn levels(self) -> impl DoubleEndedIterator<Item = &'static Level> + Clone {
        LEVELS.iter().filter(move |level| level.arch == self)
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of instructions beyond the first machines of its kind; for GPUs a generation.
pub struct Extension {
    /// LLVM's name.
    pub name: &'static str,
    /// The extensions without which it does not exist.
    pub implies: &'static [&'static str],
    is_here: fn() -> bool,
}

impl Extension {
    /// Whether the CPU of this machine has it, and all that it builds on.
    pub fn is_here(&self) -> bool {
        (self.is_here)()
    }
}

/// A set of extensions with a name.
pub struct Level {
    /// Its name.
    pub name: &'static str,
    /// Instruction set.
    pub arch: Arch,
    /// LLVM's names, sorted.
    pub extensions: &'static [&'static str],
}

/// A row for each extension: LLVM's name, the standard library's where it differs, and what it builds on.
macro_rules! isa {
    (@here $detect:ident $arch:literal $name:tt $std:tt) => { isa!(@here $detect $arch $std) };
    (@here $detect:ident $arch:literal $name:tt) => {
        || {
            #[cfg(target_arch = $arch)]
            { std::arch::$detect!($name) }
            #[cfg(not(target_arch = $arch))]
            { false }
        }
    };
    ($table:ident: $detect:ident on $arch:literal; $($name:tt $(= $std:tt)? $(: $($implies:literal),+)?;)*) => {
        const $table: &[Extension] = &[$(Extension {
            name: $name,
            implies: &[$($($implies),+)?],
            is_here: isa!(@here $detect $arch $name $($std)?),
        }),*];
    };
    // No CPU executes it.
    ($table:ident: none; $($name:tt $(: $($implies:literal),+)?;)*) => {
        const $table: &[Extension] = &[$(Extension {
            name: $name,
            implies: &[$($($implies),+)?],
            is_here: || false,
        }),*];
    };
}

isa! { X86_64: is_x86_feature_detected on "x86_64";
    "sse3";
    "ssse3": "sse3";
    "sse4.1": "ssse3";
    "sse4.2": "sse4.1";
    "popcnt";
    "lzcnt";
    "bmi" = "bmi1";
    "bmi2";
    "movbe";
    "avx": "sse4.2";
    "avx2": "avx";
    "fma": "avx";
    "f16c": "avx";
    "avxvnni": "avx2";
    "avx512f": "avx2", "fma", "f16c";
    "avx512bw": "avx512f";
    "avx512cd": "avx512f";
    "avx512dq": "avx512f";
    "avx512vl": "avx512f";
    "avx512bf16": "avx512bw";
    "avx512vbmi": "avx512bw";
    "avx512vnni": "avx512f";
}

isa! { AARCH64: is_aarch64_feature_detected on "aarch64";
    "neon";
    "bf16": "neon";
    "dotprod": "neon";
    "fullfp16" = "fp16": "neon";
    "i8mm": "neon";
}

// Generations of NVIDIA GPUs: each runs the PTX of those before it.
isa! { CUDA: none;
    "sm_80";
    "sm_86": "sm_80";
    "sm_89": "sm_86";
    "sm_90": "sm_89";
    "sm_100": "sm_90";
    "sm_120": "sm_100";
}

const LEVELS: &[Level] = &[
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_name_what_exists() {
        for level in LEVELS {
            for name in level.extensions {
                let extension = level
                    .arch
                    .extensions()
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
        for arch in Arch::ALL {
            for (i, extension) in arch.extensions().iter().enumerate() {
                for implied in extension.implies {
                    assert!(
                        arch.extensions()[..i].iter().any(|e| e.name == *implied),
                        "{}",
                        extension.name
                    );
                }
            }
        }
    }
}
