//! What must hold before the code of an artifact may run: every buffer of every launch is as large as the kernel
//! expects, and nothing written is shared.

use std::collections::HashSet;

use crate::kernel::{GPU_ALIGN, SAMPLE_COUNT_BYTES, SampleOptions, WEIGHT_ALIGN};
use crate::{
    Access, Arg, FORMAT_VERSION, KernelInfo, Launch, Manifest, ParamInfo, Program, ProgramKind, StateSlot,
    WeightInfo,
};

/// Far above any real model: damaged sizes are refused before memory is asked for.
const MAX_BUFFER: u64 = 64 << 30;
/// The most tokens of one call.
const MAX_TOKENS: usize = 1 << 20;
/// The most buffers of one kernel; all pairs of them are compared.
const MAX_PARAMS: usize = 256;

/// The most threads of a block on any GPU.
const MAX_THREADS: u32 = 1024;
/// The most blocks of a launch on any GPU.
const MAX_BLOCKS: u64 = i32::MAX as u64;

/// What is wrong with a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Written by another version.
    #[error(
        "the format is version {found}, this program reads version {FORMAT_VERSION}: compile the model again"
    )]
    Version {
        /// The version it says.
        found: u32,
    },
    /// A weight buffer.
    #[error("weight `{name}` {reason}")]
    Weight {
        /// Its name.
        name: String,
        /// What is the matter.
        reason: String,
    },
    /// A part of the state.
    #[error("state `{name}` {reason}")]
    State {
        /// Its name.
        name: String,
        /// What is the matter.
        reason: String,
    },
    /// A size that no model has.
    #[error("{what} is {found}, expected {expected}")]
    Limit {
        /// What has this size.
        what: &'static str,
        /// The size.
        found: u64,
        /// What it may be.
        expected: String,
    },
    /// A kernel.
    #[error("kernel `{symbol}` {reason}")]
    Kernel {
        /// Its name.
        symbol: String,
        /// What is the matter.
        reason: String,
    },
    /// A program.
    #[error("program `{program}` {reason}")]
    Program {
        /// Which one.
        program: ProgramKind,
        /// What is the matter.
        reason: String,
    },
    /// A launch of a program.
    #[error("program `{program}`, launch {launch} (`{label}`) {reason}")]
    Launch {
        /// Which program.
        program: ProgramKind,
        /// Its position in the program.
        launch: usize,
        /// What it computes.
        label: String,
        /// What is the matter.
        reason: String,
    },
}

impl Manifest {
    /// Checks that programs stay within their buffers, whatever tokens they are given.
    ///
    /// # Errors
    /// Says the first thing that does not hold.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.format != FORMAT_VERSION {
            return Err(ManifestError::Version { found: self.format });
        }
        let limit = |what, found: u64, max: u64| match found {
            n if (1..=max).contains(&n) => Ok(()),
            _ => Err(ManifestError::Limit {
                what,
                found,
                expected: format!("1 to {max}"),
            }),
        };
        limit("the vocabulary", self.model.vocab as u64, i32::MAX as u64)?;
        limit("the scratch memory", self.arena_bytes.max(1), MAX_BUFFER)?;
        for weight in &self.weights {
            weight.check()?;
        }
        self.check_state()?;
        for kernel in &self.kernels {
            self.check_kernel(kernel)?;
        }
        let mut kinds = HashSet::new();
        for program in &self.programs {
            if !kinds.insert(program.kind) {
                return Err(program.error("appears twice".into()));
            }
            self.check_program(program)?;
        }
        Ok(())
    }

    fn check_state(&self) -> Result<(), ManifestError> {
        let mut expected = 0u64;
        for slot in &self.state {
            let fail = |reason: String| ManifestError::State {
                name: slot.name.clone(),
                reason,
            };
            if slot.offset != expected {
                return Err(fail(format!("starts at {}, expected {expected}", slot.offset)));
            }
            let elements = slot
                .elements()
                .ok_or_else(|| fail("has an impossible shape".into()))?;
            expected = elements
                .checked_add(slot.offset)
                .filter(|n| *n <= MAX_BUFFER / 4)
                .ok_or_else(|| fail(format!("has {elements} values, more than any model")))?;
            let Some(init) = slot.init else { continue };
            let weight = self
                .weights
                .get(init)
                .ok_or_else(|| fail(format!("starts as weight {init}, of {}", self.weights.len())))?;
            if weight.dtype != "f32" || weight.bytes != elements * 4 {
                let (dtype, bytes) = (&weight.dtype, weight.bytes);
                return Err(fail(format!(
                    "starts as {bytes} bytes of {dtype}, expected {elements} f32 values"
                )));
            }
        }
        Ok(())
    }

    fn check_kernel(&self, kernel: &KernelInfo) -> Result<(), ManifestError> {
        let (threads, gpu) = (kernel.threads, self.is_for_gpus());
        let good = if gpu {
            (1..=MAX_THREADS).contains(&threads)
        } else {
            threads == 0
        };
        if good {
            return Ok(());
        }
        let expected = if gpu {
            format!("1 to {MAX_THREADS} on a GPU")
        } else {
            "0 on a CPU".into()
        };
        Err(ManifestError::Kernel {
            symbol: kernel.symbol.clone(),
            reason: format!("has blocks of {threads} threads, expected {expected}"),
        })
    }

    fn check_program(&self, program: &Program) -> Result<(), ManifestError> {
        let tokens = program.max_tokens;
        let most = if program.kind == ProgramKind::Decode {
            1
        } else {
            MAX_TOKENS
        };
        if !(1..=most).contains(&tokens) {
            return Err(program.error(format!("takes up to {tokens} tokens, expected 1 to {most}")));
        }
        let states = self.state_bytes(program);
        if states > MAX_BUFFER {
            return Err(program.error(format!("advances {states} bytes of states, more than any model")));
        }
        if program.kind == ProgramKind::Sample && !self.is_for_gpus() {
            let arch = &self.target.arch;
            return Err(program.error(format!("is for `{arch}`, but only GPUs choose tokens")));
        }
        if program.kind == ProgramKind::Sample
            && let Some(batch) = self.program(ProgramKind::Batch)
            && tokens < batch.max_tokens
        {
            let most = batch.max_tokens;
            return Err(program.error(format!("is for {tokens} states, but a batch has up to {most}")));
        }
        for probe in &program.probes {
            let bytes = probe.elements.at(tokens).and_then(|n| n.checked_mul(4));
            if !probe.offset.is_multiple_of(4) || !fits(probe.offset, bytes, self.arena_bytes) {
                return Err(program.error(format!(
                    "has probe `{}` outside of the scratch memory",
                    probe.name
                )));
            }
        }
        for (i, launch) in program.launches.iter().enumerate() {
            self.check_launch(program, launch)
                .map_err(|reason| ManifestError::Launch {
                    program: program.kind,
                    launch: i,
                    label: launch.label.clone(),
                    reason,
                })?;
        }
        Ok(())
    }

    fn check_launch(&self, program: &Program, launch: &Launch) -> Result<(), String> {
        let kernel = self
            .kernels
            .get(launch.kernel)
            .ok_or_else(|| format!("runs kernel {}, of {}", launch.kernel, self.kernels.len()))?;
        let grid = kernel.grid.at(program.max_tokens);
        let most = if self.is_for_gpus() {
            MAX_BLOCKS
        } else {
            i64::MAX as u64
        };
        if grid.is_none_or(|g| g > most) {
            return Err(format!("runs `{}` with an impossible grid", kernel.symbol));
        }
        if kernel.params.len() > MAX_PARAMS {
            let (symbol, found) = (&kernel.symbol, kernel.params.len());
            return Err(format!(
                "runs `{symbol}`, which takes {found} buffers, expected up to {MAX_PARAMS}"
            ));
        }
        if kernel.params.len() != launch.args.len() {
            let (found, expected) = (launch.args.len(), kernel.params.len());
            return Err(format!(
                "passes {found} buffers, `{}` takes {expected}",
                kernel.symbol
            ));
        }
        let mut regions = Vec::with_capacity(launch.args.len());
        for (i, (arg, param)) in launch.args.iter().zip(&kernel.params).enumerate() {
            let region = self
                .region(program, arg, param)
                .map_err(|reason| format!("passes {arg:?} as buffer {i} of `{}`, {reason}", kernel.symbol))?;
            regions.push(region);
        }
        for (i, a) in regions.iter().enumerate() {
            if let Some(j) = (i + 1..regions.len()).find(|j| a.conflicts(&regions[*j])) {
                return Err(format!(
                    "passes overlapping memory as buffers {i} and {j} of `{}`",
                    kernel.symbol
                ));
            }
        }
        Ok(())
    }

    /// The memory behind an argument, if the kernel may use it like this.
    fn region(&self, program: &Program, arg: &Arg, param: &ParamInfo) -> Result<Region, String> {
        let tokens = program.max_tokens as u64;
        let chooses = program.kind == ProgramKind::Sample;
        if chooses && param.bytes.fixed != 0 {
            // It is run for any number of states on buffers that have a part for each.
            let fixed = param.bytes.fixed;
            return Err(format!(
                "of which it takes {fixed} bytes whatever the number of states"
            ));
        }
        if !chooses && matches!(arg, Arg::Sampler | Arg::Counts) {
            return Err("which only a sample program has".into());
        }
        let (space, start, len, writable) = match *arg {
            Arg::Weight(i) => {
                let weight = self
                    .weights
                    .get(i)
                    .ok_or_else(|| format!("of {} weights", self.weights.len()))?;
                (Space::Weight(i), 0, weight.bytes, false)
            }
            Arg::State(offset) => (Space::State, offset, self.state_bytes(program), true),
            Arg::Arena(offset) => (Space::Arena, offset, self.arena_bytes, true),
            Arg::Tokens => (Space::Tokens, 0, tokens * 4, chooses),
            Arg::Sampler => (Space::Sampler, 0, tokens * SampleOptions::BYTES, false),
            Arg::Counts => (Space::Counts, 0, tokens * SAMPLE_COUNT_BYTES, true),
            Arg::Logits => (Space::Logits, 0, self.logits_bytes(program), true),
        };
        let written = param.access != Access::Read;
        if written && !writable {
            return Err("which it must not write to".into());
        }
        let align = if self.is_for_gpus() { GPU_ALIGN } else { 4 };
        if !start.is_multiple_of(align) {
            return Err(format!("which is not aligned to {align} bytes"));
        }
        let bytes = param.bytes.at(program.max_tokens);
        if !fits(start, bytes, len) {
            let bytes = bytes.map_or("impossibly many".into(), |b| b.to_string());
            return Err(format!(
                "which has {} bytes, but {bytes} are needed",
                len.saturating_sub(start)
            ));
        }
        Ok(Region {
            space,
            start,
            end: start + bytes.unwrap_or(0),
            written,
        })
    }
}

/// Whether `bytes` from `start` on are within `len`.
fn fits(start: u64, bytes: Option<u64>, len: u64) -> bool {
    bytes
        .and_then(|b| b.checked_add(start))
        .is_some_and(|end| end <= len)
}

#[derive(PartialEq)]
enum Space {
    Weight(usize),
    State,
    Arena,
    Tokens,
    Logits,
    Sampler,
    Counts,
}

struct Region {
    space: Space,
    start: u64,
    end: u64,
    written: bool,
}

impl Region {
    fn conflicts(&self, other: &Region) -> bool {
        (self.written || other.written)
            && self.space == other.space
            && self.start < other.end
            && other.start < self.end
    }
}

impl Program {
    fn error(&self, reason: String) -> ManifestError {
        ManifestError::Program {
            program: self.kind,
            reason,
        }
    }
}

impl StateSlot {
    /// Its length in f32 values; `None` if no memory is that large.
    pub fn elements(&self) -> Option<u64> {
        product(&self.shape)
    }
}

impl WeightInfo {
    /// Bytes of one element; `None` for an unknown dtype.
    pub fn element_size(&self) -> Option<u64> {
        match self.dtype.as_str() {
            "f32" | "i32" => Some(4),
            "f16" | "bf16" => Some(2),
            "i8" => Some(1),
            _ => None,
        }
    }

    pub(crate) fn expected_bytes(&self) -> Result<u64, ManifestError> {
        let size = self.element_size().ok_or_else(|| {
            self.error(format!(
                "has dtype `{}`, expected f32, f16, bf16, i32 or i8",
                self.dtype
            ))
        })?;
        product(&self.shape)
            .and_then(|n| n.checked_mul(size))
            .ok_or_else(|| self.error(format!("has the impossible shape {:?}", self.shape)))
    }

    fn check(&self) -> Result<(), ManifestError> {
        let expected = self.expected_bytes()?;
        if self.bytes != expected {
            let (bytes, dtype, shape) = (self.bytes, &self.dtype, &self.shape);
            return Err(self.error(format!("has {bytes} bytes, but {dtype} {shape:?} has {expected}")));
        }
        if !self.offset.is_multiple_of(WEIGHT_ALIGN) {
            return Err(self.error(format!(
                "starts at {}, not a multiple of {WEIGHT_ALIGN}",
                self.offset
            )));
        }
        Ok(())
    }

    pub(crate) fn error(&self, reason: String) -> ManifestError {
        ManifestError::Weight {
            name: self.name.clone(),
            reason,
        }
    }
}

fn product(shape: &[usize]) -> Option<u64> {
    shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d as u64))
}
