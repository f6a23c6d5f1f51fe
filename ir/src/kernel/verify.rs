//! The verifier: what it accepts, every backend can emit, and no run of it leaves a buffer.
//!
//! It proves, for every `T` from 1 to [`MAX_TOKENS`]:
//!
//! - the shape: names, types, one parallel loop over the grid with index arithmetic beside it, fixed extents where
//!   they must be, sizes within the limits below;
//! - the scopes: an immutable register is assigned in one place, a read is preceded by an assignment in its own or an
//!   enclosing body, and a mutable register belongs to one thread loop or to none;
//! - that all threads of a block reach the same barriers, shuffles and products of warps;
//! - that every load and store lies within its buffer, that divisors are positive constants and dividends of `rem` not
//!   negative. Prefetches may go anywhere.
//!
//! Arithmetic of indices wraps, and the proof knows that: a value that may leave 64 bits (32 for I32) is one it knows
//! nothing of. An index that depends on data is proven through `min` and `max`, or by an `if` around the access.

use super::text::Names;
use super::*;
use crate::Verified;

mod bounds;
pub(crate) mod structure;
#[cfg(test)]
mod tests;
mod threads;
mod types;

/// The most tokens of one call that a proof covers.
pub const MAX_TOKENS: i64 = i32::MAX as i64;

/// Bytes of all locals of a kernel, at most: a CPU thread keeps them on its stack.
pub const MAX_LOCAL_BYTES: i64 = 1 << 20;

/// Threads of a block, at most.
pub const MAX_THREADS: i64 = 1024;

/// Registers of a kernel, at most.
const MAX_REGISTERS: usize = 1 << 16;

/// Buffers of a kernel, at most.
const MAX_BUFFERS: usize = 1 << 10;

/// Statements of a kernel with unrolled loops written out, at most.
const MAX_STATEMENTS: u64 = 1 << 18;

/// What is wrong with a kernel, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct KernelError {
    /// The name of the kernel.
    pub kernel: String,
    /// The statement, in text; absent if the fault is one of the kernel as a whole.
    pub statement: Option<String>,
    /// What is wrong.
    pub fault: Box<Fault>,
}

impl std::fmt::Display for KernelError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "kernel @{}: ", self.kernel)?;
        if let Some(statement) = &self.statement {
            write!(f, "in `{statement}`: ")?;
        }
        write!(f, "{}", self.fault)
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A name that C does not allow.
    #[error("the name of {what}, `{name}`, is not a C identifier")]
    Name {
        /// What bears the name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Two buffers of one name.
    #[error("two buffers are named `{0}`")]
    SameName(String),
    /// A limit is exceeded.
    #[error("{what}: found {found}, expected {expected}")]
    Limit {
        /// What is counted or measured.
        what: String,
        /// How much it is.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// A register or buffer number without register or buffer.
    #[error("there is no {what} {number}")]
    Missing {
        /// `register` or `buffer`.
        what: &'static str,
        /// The number.
        number: u32,
    },
    /// Something has the wrong type.
    #[error("{what} is {found}, expected {expected}")]
    Type {
        /// What has it.
        what: String,
        /// Its type.
        found: String,
        /// What is right.
        expected: String,
    },
    /// An immutable register is assigned again.
    #[error("`{0}` is assigned in a second place")]
    AssignedTwice(String),
    /// A register is read where it may have no value.
    #[error("`{0}` is read where no assignment precedes it in this body or one around it")]
    Undefined(String),
    /// A mutable register is shared by threads.
    #[error("`{0}` is assigned inside and outside of a thread loop")]
    SharedByThreads(String),
    /// Something else than index arithmetic stands beside the parallel loop.
    #[error("only index arithmetic on immutable registers may stand beside the parallel loop")]
    BesideParallel,
    /// Not exactly one parallel loop.
    #[error("found {0} parallel loops, expected one, outermost")]
    ParallelLoops(usize),
    /// The parallel loop does not run over the grid.
    #[error("the parallel loop does not run from 0 to the grid, {0}, in steps of 1")]
    ParallelRange(Extent),
    /// A loop whose extent must be fixed.
    #[error("the extent of a `{0}` loop must be fixed")]
    NotFixed(&'static str),
    /// A step that leads nowhere.
    #[error("the step is {0}, expected a positive one")]
    Step(i64),
    /// A thread loop in a thread loop.
    #[error("a thread loop stands inside of another")]
    NestedThreads,
    /// A barrier, shuffle or product of warps that some threads may not reach.
    #[error("all threads must get here, and `{0}`, which decides it, may differ between them")]
    Divergent(String),
    /// A shuffle or product of warps without threads.
    #[error("`{0}` stands outside of a thread loop")]
    OutsideThreads(&'static str),
    /// A product of warps where some warp has less than 32 threads.
    #[error("`mma` stands in a loop of {0} threads, expected whole warps of 32")]
    Warps(u64),
    /// A load or store that the parameter does not allow.
    #[error("`{buffer}` may not be {done}: its access is `{access}`")]
    Access {
        /// The buffer.
        buffer: String,
        /// `loaded from` or `stored to`.
        done: &'static str,
        /// How it was declared.
        access: &'static str,
    },
    /// An access that may lie outside of its buffer.
    #[error("it touches elements {first} to {last} of `{buffer}`, which has 0 to {length} - 1")]
    OutOfBounds {
        /// The buffer.
        buffer: String,
        /// The least first element.
        first: String,
        /// The greatest last element.
        last: String,
        /// The number of elements.
        length: String,
    },
    /// A divisor that is not a positive constant.
    #[error("the divisor `{0}` is not a positive constant")]
    Divisor(String),
    /// A dividend of `rem` that may be negative.
    #[error("the dividend `{dividend}` may be negative: it is at least {least}")]
    Dividend {
        /// The dividend.
        dividend: String,
        /// Its least value.
        least: String,
    },
    /// A loop variable that may leave 64 bits.
    #[error("the loop variable may overflow: its end is at most {0}")]
    Overflow(String),
}

/// Accepts a kernel or says what is wrong with it.
///
/// # Errors
/// The first fault found.
pub fn verify(kernel: Kernel) -> Result<Verified<Kernel>, KernelError> {
    check_form(&kernel)?;
    bounds::check(&kernel)?;
    Ok(Verified::assume(kernel))
}

/// All checks but the proofs about indices: what an evaluator needs, which checks indices itself.
pub(crate) fn check_form(kernel: &Kernel) -> Result<(), KernelError> {
    structure::check(kernel)?;
    threads::check(kernel)
}

/// Makes errors about one kernel.
struct Reporter<'k> {
    kernel: &'k Kernel,
    names: Names,
}

impl<'k> Reporter<'k> {
    fn new(kernel: &'k Kernel) -> Self {
        Reporter {
            kernel,
            names: Names::new(kernel),
        }
    }

    fn reg(&self, reg: Reg) -> String {
        self.names.reg(reg).to_owned()
    }

    fn buf(&self, buf: Buf) -> String {
        self.names.buf(buf).to_owned()
    }

    /// A fault of the whole kernel.
    fn whole(&self, fault: Fault) -> KernelError {
        KernelError {
            kernel: self.kernel.name.clone(),
            statement: None,
            fault: Box::new(fault),
        }
    }

    /// A fault of a statement.
    fn at(&self, stmt: &Stmt, fault: Fault) -> KernelError {
        KernelError {
            statement: Some(self.names.head(stmt)),
            ..self.whole(fault)
        }
    }
}

impl Stmt {
    /// The bodies inside.
    pub(crate) fn bodies(&self) -> [&[Stmt]; 2] {
        match self {
            Stmt::For { body, .. } => [body, &[]],
            Stmt::If { then, otherwise, .. } => [then, otherwise],
            Stmt::Let(..) | Stmt::Store { .. } | Stmt::Barrier | Stmt::Prefetch { .. } => [&[], &[]],
        }
    }
}

impl Inst {
    /// Calls `f` with every register that is read, in order.
    pub(crate) fn for_each_operand(&self, mut f: impl FnMut(Reg)) {
        match self {
            Inst::Float(_) | Inst::Int(_) | Inst::Index(_) | Inst::Tokens => {}
            Inst::Address(at) | Inst::Load { at, .. } | Inst::Words { at, .. } => {
                at.terms.iter().for_each(|&(reg, _)| f(reg))
            }
            Inst::Join(lanes) | Inst::Sums(lanes) => lanes.iter().copied().for_each(f),
            Inst::Copy(a)
            | Inst::Unary(_, a)
            | Inst::Splat(a, _)
            | Inst::Extract(a, _)
            | Inst::Reduce(_, a)
            | Inst::Pack(_, a)
            | Inst::Shuffle(a, _) => f(*a),
            Inst::Binary(_, a, b) | Inst::Compare(_, a, b) | Inst::Zip(_, a, b) => {
                [*a, *b].into_iter().for_each(f)
            }
            Inst::Fma(a, b, c) | Inst::Select(a, b, c) | Inst::Dot4(a, b, c) | Inst::Mma { a, b, c, .. } => {
                [*a, *b, *c].into_iter().for_each(f)
            }
        }
    }

    /// What it loads: the buffer, the first element and the number of elements.
    pub(crate) fn loaded(&self, kernel: &Kernel) -> Option<(Buf, &Affine, u32)> {
        match self {
            Inst::Load { buf, at, lanes } => Some((*buf, at, *lanes)),
            Inst::Words { buf, at, lanes } => {
                let elements = kernel.dtype_of(*buf).map_or(1, DType::in_word);
                Some((*buf, at, elements * lanes))
            }
            _ => None,
        }
    }

    /// Its name if threads compute it together, each from values of others.
    pub(crate) fn common(&self) -> Option<&'static str> {
        match self {
            Inst::Shuffle(..) => Some("shuffle"),
            Inst::Mma { .. } => Some("mma"),
            _ => None,
        }
    }
}
