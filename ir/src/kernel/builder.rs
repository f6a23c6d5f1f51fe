//! Writes kernels: open a body, append statements, close it.

use super::*;

mod affine;
pub mod transcendental;

/// Builds one [`Kernel`]. Types are inferred; a combination that has none is a bug of the caller and panics.
pub struct Builder {
    kernel: Kernel,
    /// The bodies that are open, innermost last.
    open: Vec<Vec<Stmt>>,
}

impl From<i64> for Bound {
    fn from(n: i64) -> Self {
        Bound::Extent(Extent::fixed(n))
    }
}

impl From<Extent> for Bound {
    fn from(n: Extent) -> Self {
        Bound::Extent(n)
    }
}

impl From<Reg> for Bound {
    fn from(reg: Reg) -> Self {
        Bound::Reg(reg)
    }
}

const fn scalar(scalar: Scalar) -> Type {
    Type { scalar, lanes: 1 }
}

impl Builder {
    /// An empty kernel of the given name.
    pub fn new(name: impl Into<String>) -> Self {
        let kernel = Kernel {
            name: name.into(),
            params: vec![],
            locals: vec![],
            grid: Extent::fixed(1),
            registers: vec![],
            body: vec![],
        };
        Builder {
            kernel,
            open: vec![vec![]],
        }
    }

    /// Adds a parameter. Parameters come before locals. A name that is taken gets a number.
    pub fn param(&mut self, name: &str, dtype: DType, len: Extent, access: Access) -> Buf {
        assert!(self.kernel.locals.is_empty(), "parameters come before locals");
        let taken = |name: &str| self.kernel.params.iter().any(|p| p.name == name);
        let numbered = (2..).map(|n| format!("{name}{n}"));
        let name = std::iter::once(name.to_string())
            .chain(numbered)
            .find(|n| !taken(n))
            .expect("endless");
        self.kernel.params.push(Param {
            name,
            dtype,
            len,
            access,
        });
        Buf(self.kernel.params.len() as u32 - 1)
    }

    /// Adds a private f32 buffer.
    pub fn private(&mut self, name: &str, len: i64) -> Buf {
        self.local(name, DType::F32, len, Space::Private)
    }

    /// Adds a buffer that the threads of a block share.
    pub fn shared(&mut self, name: &str, dtype: DType, len: i64) -> Buf {
        self.local(name, dtype, len, Space::Shared)
    }

    /// Adds a buffer of the kernel's own.
    pub fn local(&mut self, name: &str, dtype: DType, len: i64, space: Space) -> Buf {
        self.kernel.locals.push(Local {
            name: name.into(),
            dtype,
            len,
            space,
        });
        Buf((self.kernel.params.len() + self.kernel.locals.len()) as u32 - 1)
    }

    /// The number format of a buffer.
    pub fn dtype(&self, buf: Buf) -> DType {
        self.kernel.dtype(buf)
    }

    fn register(&mut self, name: &str, ty: Type, mutable: bool) -> Reg {
        self.kernel.registers.push(RegInfo {
            ty,
            mutable,
            name: name.into(),
        });
        Reg(self.kernel.registers.len() as u32 - 1)
    }

    fn push(&mut self, stmt: Stmt) {
        self.open.last_mut().expect("a body is open").push(stmt);
    }

    /// Appends an instruction whose result is a new immutable register.
    pub fn inst(&mut self, name: &str, inst: Inst) -> Reg {
        let ty = self.infer(&inst);
        let reg = self.register(name, ty, false);
        self.push(Stmt::Let(reg, inst));
        reg
    }

    fn infer(&self, inst: &Inst) -> Type {
        if let Inst::Binary(_, a, b) = *inst {
            assert_eq!(self.kernel.ty(a), self.kernel.ty(b), "operands of one type");
        }
        self.kernel
            .result_of(inst)
            .expect("the operands are of this builder")
    }

    /// An f32 constant in each of `lanes` lanes.
    pub fn float(&mut self, value: f32, lanes: u32) -> Reg {
        let c = self.inst("c", Inst::Float(value.into()));
        self.splat(c, lanes)
    }

    /// An i32 constant in each of `lanes` lanes.
    pub fn int(&mut self, value: i32, lanes: u32) -> Reg {
        let c = self.inst("c", Inst::Int(value));
        self.splat(c, lanes)
    }

    /// An index constant.
    pub fn index(&mut self, value: i64) -> Reg {
        self.inst("n", Inst::Index(value))
    }

    /// An affine position as a value.
    pub fn address(&mut self, name: &str, at: impl Into<Affine>) -> Reg {
        self.inst(name, Inst::Address(at.into()))
    }

    /// A scalar in each of `lanes` lanes; itself if that is one lane.
    pub fn splat(&mut self, value: Reg, lanes: u32) -> Reg {
        if lanes == 1 {
            value
        } else {
            self.inst("s", Inst::Splat(value, lanes))
        }
    }

    /// A new mutable register, set to `value`.
    pub fn var(&mut self, name: &str, value: Reg) -> Reg {
        let ty = self.kernel.ty(value);
        let reg = self.register(name, ty, true);
        self.push(Stmt::Let(reg, Inst::Copy(value)));
        reg
    }

    /// Gives a mutable register a new value.
    pub fn set(&mut self, var: Reg, value: Inst) {
        self.push(Stmt::Let(var, value));
    }

    /// Loads `lanes` consecutive elements.
    pub fn load(&mut self, name: &str, buf: Buf, at: impl Into<Affine>, lanes: u32) -> Reg {
        self.inst(
            name,
            Inst::Load {
                buf,
                at: at.into(),
                lanes,
            },
        )
    }

    /// Loads consecutive elements of less than 32 bits, as many in each lane as there is room for.
    pub fn words(&mut self, name: &str, buf: Buf, at: impl Into<Affine>, lanes: u32) -> Reg {
        let at = at.into();
        self.inst(name, Inst::Words { buf, at, lanes })
    }

    /// Stores all lanes of a register.
    pub fn store(&mut self, buf: Buf, at: impl Into<Affine>, value: Reg) {
        self.push(Stmt::Store {
            buf,
            at: at.into(),
            value,
        });
    }

    /// Hints that an element will be read soon.
    pub fn prefetch(&mut self, buf: Buf, at: impl Into<Affine>) {
        self.push(Stmt::Prefetch { buf, at: at.into() });
    }

    /// A unary operation.
    pub fn unary(&mut self, op: Unary, a: Reg) -> Reg {
        self.inst("u", Inst::Unary(op, a))
    }

    /// A binary operation.
    pub fn binary(&mut self, op: Binary, a: Reg, b: Reg) -> Reg {
        self.inst("b", Inst::Binary(op, a, b))
    }

    /// `a + b`
    pub fn add(&mut self, a: Reg, b: Reg) -> Reg {
        self.binary(Binary::Add, a, b)
    }

    /// `a - b`
    pub fn sub(&mut self, a: Reg, b: Reg) -> Reg {
        self.binary(Binary::Sub, a, b)
    }

    /// `a * b`
    pub fn mul(&mut self, a: Reg, b: Reg) -> Reg {
        self.binary(Binary::Mul, a, b)
    }

    /// `a / b`
    pub fn div(&mut self, a: Reg, b: Reg) -> Reg {
        self.binary(Binary::Div, a, b)
    }

    /// `a * b + c`, rounded once.
    pub fn fma(&mut self, a: Reg, b: Reg, c: Reg) -> Reg {
        self.inst("f", Inst::Fma(a, b, c))
    }

    /// Two neighbouring F32 lanes in each I32 lane, rounded to F16 or BF16.
    pub fn pack(&mut self, format: DType, a: Reg) -> Reg {
        self.inst("pair", Inst::Pack(format, a))
    }

    /// `a · b + c` of a warp, from fragments as [`Inst::Mma`] says.
    pub fn mma(&mut self, format: DType, a: Reg, b: Reg, c: Reg) -> Reg {
        self.inst("product", Inst::Mma { format, a, b, c })
    }

    /// The sum of all lanes, as a scalar.
    pub fn reduce_add(&mut self, a: Reg) -> Reg {
        if self.lanes(a) == 1 {
            a
        } else {
            self.inst("r", Inst::Reduce(Reduction::Add, a))
        }
    }

    /// The sums of the lanes of each of some registers, as the lanes of one.
    pub fn sums(&mut self, all: Vec<Reg>) -> Reg {
        match all[..] {
            [one] => self.reduce_add(one),
            _ => self.inst("sums", Inst::Sums(all)),
        }
    }

    /// A square of registers, as many as each has lanes, transposed: lane `i` of register `j` becomes lane `j` of register
    /// `i`. Lanes are a power of two.
    pub fn transposed(&mut self, mut square: Vec<Reg>) -> Vec<Reg> {
        let half = square.len() / 2;
        for _ in 0..square.len().ilog2() {
            let pairs: Vec<(Reg, Reg)> = (0..half).map(|i| (square[i], square[half + i])).collect();
            let halves = [Half::Lower, Half::Upper];
            let zipped = pairs
                .into_iter()
                .flat_map(|(a, b)| halves.map(|half| Inst::Zip(half, a, b)));
            let zipped: Vec<Inst> = zipped.collect();
            square = zipped.into_iter().map(|zip| self.inst("zip", zip)).collect();
        }
        square
    }

    /// Lanes of a register.
    pub fn lanes(&self, a: Reg) -> u32 {
        self.kernel.ty(a).lanes
    }

    /// The quotient and remainder of an index by a positive constant.
    pub fn div_rem(&mut self, a: Reg, divisor: i64) -> (Reg, Reg) {
        let d = self.index(divisor);
        (self.binary(Binary::Div, a, d), self.binary(Binary::Rem, a, d))
    }

    /// The parallel loop over `0..grid`.
    pub fn parallel(&mut self, name: &str, grid: Extent, body: impl FnOnce(&mut Self, Reg)) {
        self.kernel.grid = grid;
        self.for_loop(LoopKind::Parallel, name, 0, grid, 1, body);
    }

    /// The threads of a block: a thread loop over `0..count`.
    pub fn threads(&mut self, name: &str, count: i64, body: impl FnOnce(&mut Self, Reg)) {
        self.for_loop(LoopKind::Thread, name, 0, count, 1, body);
    }

    /// Waits for all threads of the block.
    pub fn barrier(&mut self) {
        self.push(Stmt::Barrier);
    }

    /// The value that the thread `thread ^ mask` of the warp has in this register.
    pub fn shuffle(&mut self, value: Reg, mask: u32) -> Reg {
        self.inst("other", Inst::Shuffle(value, mask))
    }

    /// `for name in start..end step step`.
    pub fn for_loop(
        &mut self,
        kind: LoopKind,
        name: &str,
        start: impl Into<Bound>,
        end: impl Into<Bound>,
        step: i64,
        body: impl FnOnce(&mut Self, Reg),
    ) {
        let (start, end) = (start.into(), end.into());
        let var = self.register(name, scalar(Scalar::Index), false);
        self.open.push(vec![]);
        body(self, var);
        let body = self.open.pop().expect("the loop is open");
        self.push(Stmt::For {
            kind,
            var,
            start,
            end,
            step,
            body,
        });
    }

    /// A serial loop with step 1.
    pub fn serial(
        &mut self,
        name: &str,
        start: impl Into<Bound>,
        end: impl Into<Bound>,
        body: impl FnOnce(&mut Self, Reg),
    ) {
        self.for_loop(LoopKind::Serial, name, start, end, 1, body);
    }

    /// Runs one of two bodies.
    pub fn if_else(
        &mut self,
        condition: Reg,
        then: impl FnOnce(&mut Self),
        otherwise: impl FnOnce(&mut Self),
    ) {
        self.open.push(vec![]);
        then(self);
        let then = self.open.pop().expect("the branch is open");
        self.open.push(vec![]);
        otherwise(self);
        let otherwise = self.open.pop().expect("the branch is open");
        self.push(Stmt::If {
            condition,
            then,
            otherwise,
        });
    }

    /// `a < b` on indices or floats.
    pub fn less(&mut self, a: Reg, b: Reg) -> Reg {
        self.inst("lt", Inst::Compare(Compare::Lt, a, b))
    }

    /// The finished kernel.
    pub fn finish(mut self) -> Kernel {
        self.kernel.body = self.open.pop().expect("the body is open");
        assert!(self.open.is_empty(), "every loop is closed");
        self.kernel
    }
}
