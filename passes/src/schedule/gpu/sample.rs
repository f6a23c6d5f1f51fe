//! Choosing the next token where the logits are, so that a step needs nothing of the host.
//!
//! Each block has a slice of the logits of one state, so that all multiprocessors read them. The nucleus, the fewest tokens whose
//! probabilities add up to `top_p`, is all tokens of at least some probability; it is found without sorting: each of three
//! launches splits the range in which that probability lies into 63 parts. One of the nucleus is drawn by a random number, a
//! hash of a seed and a count; as the runtime's sampler does it, the temperature changes the shares within the nucleus, not the
//! nucleus.
//!
//! ```text
//! most    logits                         → the largest of each slice
//! masses  logits, most                   → of each slice, the probabilities above each of 63 bounds: three times
//! shares  logits, most, masses           → of each slice, what its tokens of the nucleus weigh
//! draw    logits, most, shares           → the slice that the random number falls into, and the token there
//! ```
//!
//! All sums are added up in one order, so that equal logits and seeds give equal tokens.

mod draw;
mod most;
mod nucleus;
mod slice;

use rwkvc_abi::SampleOptions;
use rwkvc_backend_api::GpuFeatures;
use rwkvc_ir::DType;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Access, Buf, Extent, Kernel, Reg, Unary};

use super::block::parts;
use super::{Scope, at};
use nucleus::SPLITS;
use slice::{SLICE, Slice};

/// Words of the [`SampleOptions`] of a state.
const OPTION_WORDS: i64 = SampleOptions::WORDS as i64;

/// Sums of probabilities of a slice: that of all tokens, and those of tokens above so many bounds but one.
const SUMS: i64 = 64;

/// What a kernel of the sampler reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplerBuffer {
    /// The logits `[T, vocab]`, f32.
    Logits,
    /// A [`SampleOptions`] for each state, as i32 words.
    Options,
    /// How many tokens each state chose before `[T]`, i32.
    Counts,
    /// The tokens `[T]`, i32.
    Tokens,
    /// Memory that the kernels share, by its place in [`Sampler::scratch`].
    Scratch(usize),
}

/// The kernels that choose a token for each row of logits, in launch order, which count on. A temperature of 0 takes the first
/// of the most likely. The token is −1 where a logit is not a finite number.
#[derive(Debug)]
pub struct Sampler {
    /// Each with what it is passed.
    pub steps: Vec<(Kernel, Vec<SamplerBuffer>)>,
    /// Words of 32 bits of each part of the shared memory, for each state.
    pub scratch: Vec<i64>,
}

/// The parts of the scratch memory.
const MOST: usize = 0;
const PLACES: usize = 1;
const SHARES: usize = 2;
/// Two of each, of which a launch reads one and writes the other.
const MASSES: [usize; 2] = [3, 4];
const LOWEST: [usize; 2] = [5, 6];

/// The sampler of logits of so many tokens.
pub fn sampler(vocab: i64, features: &GpuFeatures) -> Sampler {
    let slices = parts(vocab, SLICE);
    let mut scratch = vec![0; 7];
    (scratch[MOST], scratch[PLACES], scratch[SHARES]) = (slices, slices, slices);
    for i in [0, 1] {
        (scratch[MASSES[i]], scratch[LOWEST[i]]) = (slices * SUMS, 1);
    }
    let all = Shape {
        vocab,
        slices,
        features,
        scratch: &scratch,
    };
    let mut steps = vec![all.most()];
    steps.extend((0..SPLITS).map(|split| all.masses(split)));
    steps.extend([all.shares(), all.draw()]);
    Sampler { steps, scratch }
}

/// What all kernels know.
struct Shape<'f> {
    vocab: i64,
    /// Slices of a row.
    slices: i64,
    features: &'f GpuFeatures,
    scratch: &'f [i64],
}

/// A kernel that is being built.
struct Open<'f> {
    s: Scope<'f>,
    passed: Vec<SamplerBuffer>,
    scratch: &'f [i64],
}

impl Open<'_> {
    /// A parameter.
    fn param(&mut self, name: &str, buffer: SamplerBuffer, access: Access) -> Buf {
        let (dtype, each) = match buffer {
            SamplerBuffer::Logits => unreachable!("it has a length of its own"),
            SamplerBuffer::Options => (DType::I32, OPTION_WORDS),
            SamplerBuffer::Counts | SamplerBuffer::Tokens => (DType::I32, 1),
            SamplerBuffer::Scratch(part) if part == PLACES => (DType::I32, self.scratch[part]),
            SamplerBuffer::Scratch(part) => (DType::F32, self.scratch[part]),
        };
        self.passed.push(buffer);
        self.s.b.param(name, dtype, Extent::per_token(each), access)
    }

    fn read(&mut self, name: &str, part: usize) -> Buf {
        self.param(name, SamplerBuffer::Scratch(part), Access::Read)
    }

    fn write(&mut self, name: &str, part: usize) -> Buf {
        self.param(name, SamplerBuffer::Scratch(part), Access::Write)
    }

    fn finish(self) -> (Kernel, Vec<SamplerBuffer>) {
        (self.s.finish().kernel, self.passed)
    }
}

/// How a state's token is chosen.
#[derive(Clone, Copy)]
struct Options {
    /// Whether it is drawn: the temperature is not 0.
    is_random: Reg,
    temperature: Reg,
    top_p: Reg,
    seed: Reg,
}

impl Options {
    fn load(b: &mut Builder, buf: Buf, row: Reg) -> Self {
        let option = |b: &mut Builder, i: i64| b.load("option", buf, at(row, OPTION_WORDS) + i, 1);
        let [temperature, top_p] = [0, 1].map(|i| {
            let bits = option(b, i);
            b.unary(Unary::FromBits, bits)
        });
        let zero = b.float(0.0, 1);
        Options {
            is_random: b.less(zero, temperature),
            temperature,
            top_p,
            seed: option(b, 2),
        }
    }
}

impl Shape<'_> {
    fn open(&self, name: &str) -> (Open<'_>, Buf) {
        let mut s = Scope::new(&format!("sample_{name}_{}", self.vocab), &[], &[], self.features);
        let len = Extent::per_token(self.vocab);
        let logits = s.b.param("logits", DType::F32, len, Access::Read);
        let open = Open {
            s,
            passed: vec![SamplerBuffer::Logits],
            scratch: self.scratch,
        };
        (open, logits)
    }

    /// A block for each slice: `body(builder, slice)` in states whose token is drawn.
    fn blocks(
        &self,
        open: &mut Open<'_>,
        (logits, options): (Buf, Buf),
        body: impl FnOnce(&mut Builder, Slice, Options),
    ) {
        let slices = self.slices;
        let before = |b: &mut Builder, block: Reg| {
            let (row, slice) = b.div_rem(block, slices);
            (row, slice, Options::load(b, options, row))
        };
        let vocab = self.vocab;
        open.s.blocks_knowing(
            Extent::per_token(slices),
            before,
            |b, _, threads, (row, slice, options)| {
                b.if_else(
                    options.is_random,
                    |b| {
                        let slice = Slice::load(b, (logits, vocab), (row, slice), threads);
                        body(b, slice, options);
                    },
                    |_| {},
                );
            },
        );
    }
}
