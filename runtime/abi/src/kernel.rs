//! How compiled functions are called.

/// A kernel for CPUs: `kernel(buffers, begin, end, tokens)`.
///
/// ```c
/// void NAME(void *const *buffers, int64_t begin, int64_t end, int64_t tokens);
/// ```
///
/// `buffers` has one pointer per parameter, in order. Iterations `begin..end` of the parallel loop are run. `tokens` is the
/// number of tokens of the call. The function may be called as long as its code is mapped, with buffers as large as
/// [`KernelInfo::params`](crate::KernelInfo::params) says.
pub type KernelFn = unsafe extern "C" fn(*const *mut u8, i64, i64, i64);

/// What a weight buffer is aligned to in an artifact, in bytes.
pub const WEIGHT_ALIGN: u64 = 64;

/// What every buffer of a GPU kernel is aligned to, in bytes: the widest load of a thread.
///
/// A kernel for GPUs is an entry of a PTX module. It is launched with a block for each iteration of the parallel loop, and
/// [`KernelInfo::threads`](crate::KernelInfo::threads) threads in each:
///
/// ```c
/// .entry NAME(void *buffer_0, …, void *buffer_n, int64_t tokens);
/// ```
pub const GPU_ALIGN: u64 = 16;

/// The name of the persistent megakernel: one launch that executes the launches of a table one after the other. A module
/// has it or not.
///
/// ```c
/// .entry rwkvc_walk(uint64_t *table, int64_t launches, uint32_t *counter, int64_t tokens);
/// ```
///
/// `table` has a row for each launch: a [`WalkRow`], and the addresses of the kernel's buffers in as many words as the kernel
/// with the most buffers takes. Only kernels without any size that depends on the number of tokens are in it. `counter` is 0.
pub const WALK: &str = "rwkvc_walk";

/// What a row of the table of [`WALK`] begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct WalkRow {
    /// Index of the kernel in [`Manifest::kernels`](crate::Manifest::kernels).
    pub kernel: u64,
    /// Blocks.
    pub grid: u64,
    /// The address to prefetch from after the launch.
    pub prefetch: u64,
    /// How many bytes to prefetch.
    pub prefetch_bytes: u64,
}

impl WalkRow {
    /// Words of 64 bits before the addresses of buffers.
    pub const WORDS: usize = size_of::<Self>() / 8;

    /// The words, in the order of the fields.
    pub fn words(self) -> [u64; Self::WORDS] {
        [self.kernel, self.grid, self.prefetch, self.prefetch_bytes]
    }
}

/// How the next token of a state is chosen on a GPU: an element of the buffer [`Arg::Sampler`](crate::Arg::Sampler).
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct SampleOptions {
    /// 0 always takes the first of the most probable tokens.
    pub temperature: f32,
    /// Only the most probable tokens with this probability together are kept.
    pub top_p: f32,
    /// Chooses among all possible outcomes.
    pub seed: u32,
}

impl SampleOptions {
    /// Always the first of the most probable tokens.
    pub const GREEDY: SampleOptions = SampleOptions {
        temperature: 0.0,
        top_p: 1.0,
        seed: 0,
    };

    /// Bytes of an element.
    pub const BYTES: u64 = size_of::<Self>() as u64;

    /// Words of 32 bits of an element.
    pub const WORDS: usize = size_of::<Self>() / 4;

    /// The element as words, in the order of the fields.
    pub fn words(self) -> [u32; Self::WORDS] {
        [self.temperature.to_bits(), self.top_p.to_bits(), self.seed]
    }
}

/// Bytes of an element of the buffer [`Arg::Counts`](crate::Arg::Counts): how many tokens of a state were chosen, as u32.
pub const SAMPLE_COUNT_BYTES: u64 = size_of::<u32>() as u64;
