//! Kernel IR: what one launch does, as loops over buffers.
//!
//! A [`Kernel`] is a register machine with structured control flow. Scheduling decisions (tiles, vector lanes, which
//! loop runs where) are already taken when a kernel exists; a backend spells it in its own language and decides
//! nothing.
//!
//! ```text
//! kernel @scale(%x: read f32[4*T], %y: write f32[4*T]) grid T {
//!   parallel %t in 0..T {
//!     %two = const 2.0
//!     %a = load.4 %x[4*%t]
//!     %b = splat.4 %two
//!     %c = mul %a, %b
//!     store %y[4*%t], %c
//!   }
//! }
//! ```
//!
//! **Invariant:** a kernel contains exactly one `parallel` loop, outermost; its iterations are independent, so a CPU
//! thread may run any contiguous range of them and a GPU block exactly one.
//! **Invariant:** `thread` loops have a fixed extent; all threads of a block reach every `barrier`, `shuffle`
//! and `mma`.

pub mod builder;
pub mod eval;
mod operations;
pub mod parse;
mod reference;
pub mod text;
mod typing;
pub mod verify;

use crate::DType;

pub use operations::{Binary, Compare, Unary};
pub use reference::reference;

/// A count known at compile time or linear in `T`, the number of tokens in this call (`T ≥ 1`).
///
/// The value is `fixed + per_token * T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Extent {
    /// The part that does not depend on the number of tokens.
    pub fixed: i64,
    /// How much each token adds.
    pub per_token: i64,
}

impl Extent {
    /// An extent known at compile time.
    pub const fn fixed(n: i64) -> Self {
        Self {
            fixed: n,
            per_token: 0,
        }
    }

    /// `n` for each token of the call.
    pub const fn per_token(n: i64) -> Self {
        Self {
            fixed: 0,
            per_token: n,
        }
    }

    /// The value for `tokens` tokens.
    pub const fn at(self, tokens: i64) -> i64 {
        self.fixed + self.per_token * tokens
    }

    /// The value, if it does not depend on the number of tokens.
    pub const fn as_fixed(self) -> Option<i64> {
        if self.per_token == 0 {
            Some(self.fixed)
        } else {
            None
        }
    }
}

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scalar {
    /// A float: f32 on every backend.
    F32,
    /// A 32-bit integer: bit tricks of the expanded functions, loaded token ids.
    I32,
    /// A 64-bit signed integer: loop variables and positions in buffers.
    Index,
    /// A truth value.
    Bool,
}

/// A register's type: `lanes` copies of a scalar; one lane is a plain scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Type {
    /// The type of each lane.
    pub scalar: Scalar,
    /// A power of two from 1 to 64.
    pub lanes: u32,
}

/// A virtual register: an index into [`Kernel::registers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reg(pub u32);

/// A buffer: an index into [`Kernel::params`] followed by [`Kernel::locals`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Buf(pub u32);

/// One virtual register.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegInfo {
    /// Its type.
    pub ty: Type,
    /// A mutable register (`$name` in text) may be assigned many times, an immutable one (`%name`) in one place.
    pub mutable: bool,
    /// Its name in text, without the sigil; the printer makes names unique.
    pub name: String,
}

/// What a kernel may do with a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Only loads; no other parameter overlaps it for writing.
    Read,
    /// Only stores.
    Write,
    /// Loads and stores: state updated in place, accumulated outputs.
    ReadWrite,
}

/// A buffer that the caller passes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Param {
    /// Its name in text, without the sigil.
    pub name: String,
    /// How its elements are stored.
    pub dtype: DType,
    /// The number of elements.
    pub len: Extent,
    /// What the kernel does with it.
    pub access: Access,
}

/// Where a local buffer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Private to one iteration of the parallel loop on a CPU (its stack), to a thread on a GPU.
    Private,
    /// Seen by all threads of a GPU block; the same as private on a CPU.
    Shared,
}

/// A buffer that lives for one iteration of the parallel loop. Its contents are undefined at the start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    /// Its name in text, without the sigil.
    pub name: String,
    /// How its elements are stored.
    pub dtype: DType,
    /// The number of elements.
    pub len: i64,
    /// Where it lives.
    pub space: Space,
}

/// A position in a buffer: `offset + Σ factor * register`, in elements. Registers are scalar `Index`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Affine {
    /// Registers and what they are multiplied with.
    pub terms: Vec<(Reg, i64)>,
    /// The constant part.
    pub offset: i64,
}

/// How lanes are combined by [`Inst::Reduce`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// Sum.
    Add,
    /// Maximum.
    Max,
}

/// Half of the lanes of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Half {
    /// From lane 0 on.
    Lower,
    /// From the middle on.
    Upper,
}

/// An f32 that equals another if their bits do, so that kernels can be compared and hashed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Float(u32);

impl Float {
    /// The number.
    pub const fn get(self) -> f32 {
        f32::from_bits(self.0)
    }
}

impl From<f32> for Float {
    fn from(x: f32) -> Self {
        Float(x.to_bits())
    }
}

impl std::fmt::Debug for Float {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.get().fmt(f)
    }
}

/// Computes one register.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Inst {
    /// A scalar F32 constant.
    Float(Float),
    /// A scalar I32 constant.
    Int(i32),
    /// A scalar Index constant.
    Index(i64),
    /// `T`, the number of tokens in this call (Index).
    Tokens,
    /// An affine index as a value (Index).
    Address(Affine),
    /// Copies a register; the usual way to give a mutable register its value.
    Copy(Reg),
    /// An operation on one operand.
    Unary(Unary, Reg),
    /// An operation on two operands.
    Binary(Binary, Reg, Reg),
    /// `a * b + c`, rounded once (F32).
    Fma(Reg, Reg, Reg),
    /// A comparison.
    Compare(Compare, Reg, Reg),
    /// Lane by lane, `a` where the condition holds, else `b`: `Select(condition, a, b)`.
    Select(Reg, Reg, Reg),
    /// All lanes equal to a scalar.
    Splat(Reg, u32),
    /// One lane as a scalar.
    Extract(Reg, u32),
    /// Scalars as the lanes of one register, from lane 0 on (F32, I32).
    Join(Vec<Reg>),
    /// All lanes combined into a scalar: the upper half with the lower, lane by lane, until one is left.
    Reduce(Reduction, Reg),
    /// The sums of the lanes of each of some registers of one type, as the lanes of one register, from lane 0 on: each as
    /// [`Inst::Reduce`] has it, with fewer instructions (F32).
    Sums(Vec<Reg>),
    /// The lanes of one half of two registers in turn: `a0 b0 a1 b1 …` (F32, I32; two lanes or more). As many rounds of it as
    /// there are bits in the number of registers transpose a square of them.
    Zip(Half, Reg, Reg),
    /// `lanes` consecutive elements from a position: F16, BF16 and F32 become F32, I8 and I32 become I32.
    Load {
        /// The buffer.
        buf: Buf,
        /// The first element.
        at: Affine,
        /// How many elements.
        lanes: u32,
    },
    /// The bits of consecutive elements as `lanes` I32: two F16 or BF16 in each, or four I8, the first in the lowest bits.
    Words {
        /// The buffer.
        buf: Buf,
        /// The first element.
        at: Affine,
        /// How many words of 32 bits.
        lanes: u32,
    },
    /// `2 * n` lanes of F32, rounded to nearest even to F16 or BF16, as `n` lanes of I32: lane `2 * i` becomes the low
    /// half of lane `i`, lane `2 * i + 1` the high half.
    Pack(DType, Reg),
    /// Lane by lane `c + Σ aᵢ bᵢ` over the four bytes of each operand (I32): the bytes of `a` are unsigned, those of `b`
    /// signed. Exact but for wrapping.
    Dot4(Reg, Reg, Reg),
    /// The value that the thread `thread ^ mask` of the same warp has in this register (F32, I32). GPU only.
    Shuffle(Reg, u32),
    /// The product `D = A·B + C` of a warp: A is 16 × 16 and B is 16 × 8, both of `format` (F16 or BF16), C and D are
    /// 16 × 8 of F32. GPU only; the threads of the block must be whole warps of 32, and all get here.
    ///
    /// Each thread holds fragments of the matrices, as in `mma.sync.aligned.m16n8k16.row.col` of PTX. With `l` the
    /// thread's number in its warp, `g = l / 4`, `q = l % 4`, and two elements in one I32 as in [`Inst::Words`]:
    ///
    /// | lane | `a` (I32 × 4) | `b` (I32 × 2) | `c` and the result (F32 × 4) |
    /// |---|---|---|---|
    /// | 0 | `A[g][2q], A[g][2q+1]` | `B[2q][g], B[2q+1][g]` | `C[g][2q]` |
    /// | 1 | `A[g+8][2q], A[g+8][2q+1]` | `B[2q+8][g], B[2q+9][g]` | `C[g][2q+1]` |
    /// | 2 | `A[g][2q+8], A[g][2q+9]` | | `C[g+8][2q]` |
    /// | 3 | `A[g+8][2q+8], A[g+8][2q+9]` | | `C[g+8][2q+1]` |
    ///
    /// Products are exact. The order of the sum and how it is rounded are not specified: hardware differs, and the
    /// evaluator adds in f64 and rounds once. Results are compared with a tolerance.
    Mma {
        /// The format of A and B.
        format: DType,
        /// The fragment of A.
        a: Reg,
        /// The fragment of B.
        b: Reg,
        /// The fragment of C.
        c: Reg,
    },
}

/// Where the iterations of a loop run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoopKind {
    /// Ranges of iterations on the threads of a CPU; one block each on a GPU.
    Parallel,
    /// One thread each of a GPU block; a plain loop on a CPU. The extent is fixed.
    Thread,
    /// One after the other.
    Serial,
    /// One after the other, written out. The extent is fixed.
    Unrolled,
}

/// The end of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    /// Known from the shapes.
    Extent(Extent),
    /// Computed by the kernel (Index).
    Reg(Reg),
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stmt {
    /// Computes a register.
    Let(Reg, Inst),
    /// Writes a register's lanes to consecutive elements, rounding to the buffer's format.
    Store {
        /// The buffer.
        buf: Buf,
        /// The first element.
        at: Affine,
        /// The lanes: F32 into F32, F16 and BF16 buffers; I32 into I32 buffers, and the lowest byte of it into I8
        /// buffers.
        value: Reg,
    },
    /// `for var in start..end step step`. `step` is positive.
    For {
        /// Where it runs.
        kind: LoopKind,
        /// The loop variable: an immutable Index register of the body.
        var: Reg,
        /// First value.
        start: Bound,
        /// One past the last value.
        end: Bound,
        /// Distance of consecutive values.
        step: i64,
        /// The body.
        body: Vec<Stmt>,
    },
    /// Runs one of two bodies.
    If {
        /// A scalar Bool.
        condition: Reg,
        /// When it holds.
        then: Vec<Stmt>,
        /// When it does not.
        otherwise: Vec<Stmt>,
    },
    /// Waits for all threads of the block. Nothing on a CPU.
    Barrier,
    /// Hints that the cache line of an element will be read soon. Any position is allowed.
    Prefetch {
        /// The buffer.
        buf: Buf,
        /// The element.
        at: Affine,
    },
}

/// A kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// Its name: a C identifier, unique in its plan.
    pub name: String,
    /// The buffers that the caller passes, in order.
    pub params: Vec<Param>,
    /// Buffers of its own.
    pub locals: Vec<Local>,
    /// The iterations of the parallel loop, `0..grid`.
    pub grid: Extent,
    /// All virtual registers.
    pub registers: Vec<RegInfo>,
    /// The body: straight-line index arithmetic and exactly one `parallel` loop.
    pub body: Vec<Stmt>,
}

impl Kernel {
    /// The type of a register.
    pub fn ty(&self, reg: Reg) -> Type {
        self.registers[reg.0 as usize].ty
    }

    /// The number format of a buffer.
    pub fn dtype(&self, buf: Buf) -> DType {
        let i = buf.0 as usize;
        self.params
            .get(i)
            .map_or_else(|| self.locals[i - self.params.len()].dtype, |p| p.dtype)
    }
}
