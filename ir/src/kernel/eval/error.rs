//! What can go wrong.

use std::ops::Range;

use super::MAX_STATE;
use crate::kernel::verify::{KernelError, MAX_TOKENS};

/// Why a kernel could not be evaluated to its end. Buffers may have been written before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The kernel is malformed.
    #[error(transparent)]
    Form(#[from] KernelError),
    /// Too few or too many buffers.
    #[error("kernel @{kernel}: found {found} buffers, expected {expected}")]
    BufferCount {
        /// The name of the kernel.
        kernel: String,
        /// Buffers given.
        found: usize,
        /// Parameters.
        expected: usize,
    },
    /// A buffer is too short for its parameter.
    #[error("kernel @{kernel}: buffer `{buffer}` has {found} bytes, expected {expected}")]
    BufferSize {
        /// The name of the kernel.
        kernel: String,
        /// The name of the parameter.
        buffer: String,
        /// Bytes given.
        found: usize,
        /// Bytes of the parameter for this number of tokens.
        expected: i64,
    },
    /// A number of tokens that no kernel is made for.
    #[error("kernel @{kernel}: {found} tokens, expected 1 to {MAX_TOKENS}")]
    Tokens {
        /// The name of the kernel.
        kernel: String,
        /// The number given.
        found: i64,
    },
    /// Iterations outside of the grid.
    #[error("kernel @{kernel}: iterations {}..{}, expected some of 0..{grid}", found.start, found.end)]
    Iterations {
        /// The name of the kernel.
        kernel: String,
        /// The range given.
        found: Range<i64>,
        /// The grid for this number of tokens.
        grid: i64,
    },
    /// An access outside of a buffer.
    #[error("kernel @{kernel}: {lanes} elements from {index} of `{buffer}`, which has {length}")]
    OutOfBounds {
        /// The name of the kernel.
        kernel: String,
        /// The name of the buffer.
        buffer: String,
        /// The first element.
        index: i64,
        /// The number of elements.
        lanes: usize,
        /// The elements of the buffer.
        length: i64,
    },
    /// A local is read before it is written.
    #[error("kernel @{kernel}: element {index} of `{buffer}` is read before it is written")]
    Undefined {
        /// The name of the kernel.
        kernel: String,
        /// The name of the local.
        buffer: String,
        /// The element.
        index: i64,
    },
    /// Threads use an element of a shared local or of a parameter in an order that nothing decides.
    #[error("kernel @{kernel}: threads race for element {index} of `{buffer}`: no barrier between its uses")]
    Race {
        /// The name of the kernel.
        kernel: String,
        /// The name of the buffer.
        buffer: String,
        /// The element.
        index: i64,
    },
    /// Blocks use an element of a parameter, and one of them stores to it.
    #[error("kernel @{kernel}: blocks race for element {index} of `{buffer}`: nothing orders their uses")]
    BlockRace {
        /// The name of the kernel.
        kernel: String,
        /// The name of the parameter.
        buffer: String,
        /// The element.
        index: i64,
    },
    /// Threads have different values where one is needed.
    #[error(
        "kernel @{kernel}: element {index} of `{buffer}`, read outside of a thread loop, differs between threads"
    )]
    Differs {
        /// The name of the kernel.
        kernel: String,
        /// The name of the local.
        buffer: String,
        /// The element.
        index: i64,
    },
    /// Not all threads reach a barrier, a shuffle or a product of warps.
    #[error("kernel @{kernel}: {found} of {expected} threads reach a `barrier`, `shuffle` or `mma`")]
    Divergence {
        /// The name of the kernel.
        kernel: String,
        /// Threads there.
        found: usize,
        /// Threads of the loop.
        expected: usize,
    },
    /// A shuffle with a thread that does not exist.
    #[error("kernel @{kernel}: thread {thread} shuffles with thread {partner} of {threads}")]
    Partner {
        /// The name of the kernel.
        kernel: String,
        /// The thread.
        thread: usize,
        /// The thread whose value it wants.
        partner: usize,
        /// Threads of the loop.
        threads: usize,
    },
    /// A kernel of a GPU on a CPU.
    #[error(
        "kernel @{kernel}: `shuffle`, `mma`, or a barrier inside a thread loop needs the threads of a block"
    )]
    NeedsBlock {
        /// The name of the kernel.
        kernel: String,
    },
    /// A division that is not allowed.
    #[error(
        "kernel @{kernel}: {dividend} divided by {divisor}, expected a positive divisor and, for `rem`, no negative dividend"
    )]
    Division {
        /// The name of the kernel.
        kernel: String,
        /// The dividend.
        dividend: i64,
        /// The divisor.
        divisor: i64,
    },
    /// The fuel is used up.
    #[error("kernel @{kernel}: not finished after {fuel} steps")]
    Fuel {
        /// The name of the kernel.
        kernel: String,
        /// The fuel given.
        fuel: u64,
    },
    /// The registers or private buffers of all threads together are too large.
    #[error("kernel @{kernel}: the threads of a block need {found} bytes, at most {MAX_STATE} are allowed")]
    TooLarge {
        /// The name of the kernel.
        kernel: String,
        /// Bytes needed.
        found: usize,
    },
}
