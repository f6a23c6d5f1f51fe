//! The text form of kernels: words and the printer. [`super::parse`] reads it.
//!
//! One kernel follows the other; line breaks are blanks and `;` starts a comment. A kernel reads like the example in
//! [`super`]; beyond it there are
//!
//! | text | meaning |
//! |---|---|
//! | `%x: readwrite f32[4*T + 8]` | a parameter: `read`, `write` or `readwrite`; its length |
//! | `local private @tmp: f32[64]` | a local, before all statements; `private` or `shared` |
//! | `%a = add %b, %c` | an immutable register; its type follows from the instruction |
//! | `var $sum: f32x8 = copy %zero` | the first assignment of a mutable register declares it |
//! | `$sum = fma %a, %b, $sum` | another assignment |
//! | `const 2.0`, `const inf`, `const 0x7fc00001` | F32: decimal (the nearest float) or bits |
//! | `const.i32 -5`, `const.index 7` | I32, Index |
//! | `tokens`, `address 4*%t - %i + 3` | `T`, an affine index |
//! | `load.8 %x[4*%t]`, `splat.8 %a` | a suffix counts lanes; none is one |
//! | `extract %a, 3`, `shuffle %a, 16` | a lane, a thread mask |
//! | `reduce.add %a`, `reduce.max %a` | all lanes combined |
//! | `lt %a, %b` | comparisons: `eq`, `ne`, `lt`, `le` |
//! | `store @tmp[8*%i], %a`, `prefetch %x[%i]`, `barrier` | statements without a result |
//! | `serial %i in 0..4*T step 4 { … }` | loops: `parallel`, `thread`, `serial`, `unrolled` |
//! | `if %c { … } else { … }` | branches |
//!
//! Any register may carry its type, as in `%a: f32x4 = …`; the printer writes it where the instruction does not
//! tell it.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Display, Formatter, Write};

use super::*;

pub(crate) const UNARY: [(Unary, &str); 11] = [
    (Unary::Neg, "neg"),
    (Unary::Abs, "abs"),
    (Unary::Sqrt, "sqrt"),
    (Unary::Round, "round"),
    (Unary::Exp2, "exp2"),
    (Unary::ToI32, "to_i32"),
    (Unary::ToF32, "to_f32"),
    (Unary::ToIndex, "to_index"),
    (Unary::IndexToI32, "index_to_i32"),
    (Unary::BitsOf, "bits_of"),
    (Unary::FromBits, "from_bits"),
];

pub(crate) const BINARY: [(Binary, &str); 12] = [
    (Binary::Add, "add"),
    (Binary::Sub, "sub"),
    (Binary::Mul, "mul"),
    (Binary::Div, "div"),
    (Binary::Rem, "rem"),
    (Binary::Min, "min"),
    (Binary::Max, "max"),
    (Binary::And, "and"),
    (Binary::Or, "or"),
    (Binary::Xor, "xor"),
    (Binary::Shl, "shl"),
    (Binary::Shr, "shr"),
];

pub(crate) const COMPARE: [(Compare, &str); 4] = [
    (Compare::Eq, "eq"),
    (Compare::Ne, "ne"),
    (Compare::Lt, "lt"),
    (Compare::Le, "le"),
];

pub(crate) const REDUCTION: [(Reduction, &str); 2] =
    [(Reduction::Add, "reduce.add"), (Reduction::Max, "reduce.max")];

pub(crate) const LOOP: [(LoopKind, &str); 4] = [
    (LoopKind::Parallel, "parallel"),
    (LoopKind::Thread, "thread"),
    (LoopKind::Serial, "serial"),
    (LoopKind::Unrolled, "unrolled"),
];

pub(crate) const ACCESS: [(Access, &str); 3] = [
    (Access::Read, "read"),
    (Access::Write, "write"),
    (Access::ReadWrite, "readwrite"),
];

pub(crate) const SPACE: [(Space, &str); 2] = [(Space::Private, "private"), (Space::Shared, "shared")];

pub(crate) const SCALAR: [(Scalar, &str); 4] = [
    (Scalar::F32, "f32"),
    (Scalar::I32, "i32"),
    (Scalar::Index, "index"),
    (Scalar::Bool, "bool"),
];

/// The word of a value. Each table has a row for each value of its enum.
pub(crate) fn word<T: PartialEq>(table: &[(T, &'static str)], value: T) -> &'static str {
    table
        .iter()
        .find(|(v, _)| *v == value)
        .map_or("?", |(_, word)| word)
}

/// The value of a word.
pub(crate) fn value<T: Copy>(table: &[(T, &'static str)], word: &str) -> Option<T> {
    table.iter().find(|(_, w)| *w == word).map(|(value, _)| *value)
}

/// Whether a text is a C identifier.
pub(crate) fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Display for Type {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(word(&SCALAR, self.scalar))?;
        if self.lanes == 1 {
            Ok(())
        } else {
            write!(f, "x{}", self.lanes)
        }
    }
}

/// `± factor*name` as a part of a sum; `first` says that nothing stands before it.
fn write_term(f: &mut impl Write, first: bool, factor: i64, name: Option<&str>) -> fmt::Result {
    let sign = match (first, factor < 0) {
        (true, false) => "",
        (true, true) => "-",
        (false, false) => " + ",
        (false, true) => " - ",
    };
    f.write_str(sign)?;
    match (factor.unsigned_abs(), name) {
        (1, Some(name)) => f.write_str(name),
        (n, Some(name)) => write!(f, "{n}*{name}"),
        (n, None) => write!(f, "{n}"),
    }
}

impl Display for Extent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.per_token != 0 {
            write_term(f, true, self.per_token, Some("T"))?;
        }
        if self.fixed != 0 || self.per_token == 0 {
            write_term(f, self.per_token == 0, self.fixed, None)?;
        }
        Ok(())
    }
}

/// Printed names with sigils, unique in the kernel.
pub(crate) struct Names {
    buffers: Vec<String>,
    registers: Vec<String>,
}

/// Hands out names once.
#[derive(Default)]
struct Namer {
    taken: HashSet<String>,
    next: HashMap<String, u32>,
}

impl Namer {
    /// The name, made an identifier; with a number behind it if it was handed out before.
    fn unique(&mut self, name: &str) -> String {
        let mut base: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        if !is_identifier(&base) {
            base.insert(0, '_');
        }
        if self.taken.insert(base.clone()) {
            return base;
        }
        let next = self.next.entry(base.clone()).or_insert(1);
        loop {
            let numbered = format!("{base}{next}");
            *next += 1;
            if self.taken.insert(numbered.clone()) {
                return numbered;
            }
        }
    }
}

impl Names {
    pub(crate) fn new(kernel: &Kernel) -> Self {
        let mut namer = Namer::default();
        let params = kernel
            .params
            .iter()
            .map(|p| format!("%{}", namer.unique(&p.name)));
        let mut buffers: Vec<String> = params.collect();
        buffers.extend(
            kernel
                .locals
                .iter()
                .map(|l| format!("@{}", namer.unique(&l.name))),
        );
        let sigil = |mutable| if mutable { '$' } else { '%' };
        let registers = kernel
            .registers
            .iter()
            .map(|r| format!("{}{}", sigil(r.mutable), namer.unique(&r.name)));
        Names {
            registers: registers.collect(),
            buffers,
        }
    }

    pub(crate) fn reg(&self, reg: Reg) -> &str {
        self.registers.get(reg.0 as usize).map_or("%?", String::as_str)
    }

    pub(crate) fn buf(&self, buf: Buf) -> &str {
        self.buffers.get(buf.0 as usize).map_or("%?", String::as_str)
    }

    /// An affine index.
    pub(crate) fn affine(&self, at: &Affine) -> String {
        let mut text = String::new();
        let mut term = |factor, name| {
            let is_first = text.is_empty();
            write_term(&mut text, is_first, factor, name).expect("a string takes all");
        };
        for &(reg, factor) in &at.terms {
            term(factor, Some(self.reg(reg)));
        }
        if at.offset != 0 || at.terms.is_empty() {
            term(at.offset, None);
        }
        text
    }

    fn bound(&self, bound: Bound) -> String {
        match bound {
            Bound::Extent(extent) => extent.to_string(),
            Bound::Reg(reg) => self.reg(reg).to_owned(),
        }
    }

    /// An instruction.
    pub(crate) fn inst(&self, inst: &Inst) -> String {
        let r = |reg: &Reg| self.reg(*reg);
        match inst {
            Inst::Float(x) if x.is_nan() => format!("const 0x{:08x}", x.to_bits()),
            Inst::Float(x) => format!("const {x:?}"),
            Inst::Int(n) => format!("const.i32 {n}"),
            Inst::Index(n) => format!("const.index {n}"),
            Inst::Tokens => "tokens".to_owned(),
            Inst::Address(at) => format!("address {}", self.affine(at)),
            Inst::Copy(a) => format!("copy {}", r(a)),
            Inst::Unary(op, a) => format!("{} {}", word(&UNARY, *op), r(a)),
            Inst::Binary(op, a, b) => format!("{} {}, {}", word(&BINARY, *op), r(a), r(b)),
            Inst::Fma(a, b, c) => format!("fma {}, {}, {}", r(a), r(b), r(c)),
            Inst::Compare(op, a, b) => format!("{} {}, {}", word(&COMPARE, *op), r(a), r(b)),
            Inst::Select(c, a, b) => format!("select {}, {}, {}", r(c), r(a), r(b)),
            Inst::Splat(a, lanes) => format!("splat{} {}", Suffix(*lanes), r(a)),
            Inst::Extract(a, lane) => format!("extract {}, {lane}", r(a)),
            Inst::Reduce(op, a) => format!("{} {}", word(&REDUCTION, *op), r(a)),
            Inst::Load { buf, at, lanes } => {
                format!("load{} {}[{}]", Suffix(*lanes), self.buf(*buf), self.affine(at))
            }
            Inst::Shuffle(a, mask) => format!("shuffle {}, {mask}", r(a)),
        }
    }

    /// The first line of a statement: all of it, or what stands before a body.
    pub(crate) fn head(&self, stmt: &Stmt) -> String {
        match stmt {
            Stmt::Let(reg, inst) => format!("{} = {}", self.reg(*reg), self.inst(inst)),
            Stmt::Store { buf, at, value } => {
                format!(
                    "store {}[{}], {}",
                    self.buf(*buf),
                    self.affine(at),
                    self.reg(*value)
                )
            }
            Stmt::For {
                kind,
                var,
                start,
                end,
                step,
                ..
            } => {
                let (start, end) = (self.bound(*start), self.bound(*end));
                let step = if *step == 1 {
                    String::new()
                } else {
                    format!(" step {step}")
                };
                format!(
                    "{} {} in {start}..{end}{step}",
                    word(&LOOP, *kind),
                    self.reg(*var)
                )
            }
            Stmt::If { condition, .. } => format!("if {}", self.reg(*condition)),
            Stmt::Barrier => "barrier".to_owned(),
            Stmt::Prefetch { buf, at } => format!("prefetch {}[{}]", self.buf(*buf), self.affine(at)),
        }
    }
}

/// `.8`, or nothing for one lane.
struct Suffix(u32);

impl Display for Suffix {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0 == 1 {
            Ok(())
        } else {
            write!(f, ".{}", self.0)
        }
    }
}

struct Printer<'k, 'f, 'g> {
    kernel: &'k Kernel,
    names: Names,
    /// Whether a mutable register was declared.
    declared: Vec<bool>,
    f: &'f mut Formatter<'g>,
}

impl Printer<'_, '_, '_> {
    fn body(&mut self, body: &[Stmt], depth: usize) -> fmt::Result {
        body.iter().try_for_each(|stmt| self.stmt(stmt, depth))
    }

    fn stmt(&mut self, stmt: &Stmt, depth: usize) -> fmt::Result {
        let indent = 2 * depth;
        write!(self.f, "{:indent$}", "")?;
        match stmt {
            Stmt::Let(reg, inst) => self.assignment(*reg, inst),
            Stmt::For { body, .. } => {
                writeln!(self.f, "{} {{", self.names.head(stmt))?;
                self.body(body, depth + 1)?;
                writeln!(self.f, "{:indent$}}}", "")
            }
            Stmt::If { then, otherwise, .. } => {
                writeln!(self.f, "{} {{", self.names.head(stmt))?;
                self.body(then, depth + 1)?;
                if !otherwise.is_empty() {
                    writeln!(self.f, "{:indent$}}} else {{", "")?;
                    self.body(otherwise, depth + 1)?;
                }
                writeln!(self.f, "{:indent$}}}", "")
            }
            Stmt::Store { .. } | Stmt::Barrier | Stmt::Prefetch { .. } => {
                writeln!(self.f, "{}", self.names.head(stmt))
            }
        }
    }

    fn assignment(&mut self, reg: Reg, inst: &Inst) -> fmt::Result {
        let name = self.names.reg(reg);
        if let Some(info) = self.kernel.registers.get(reg.0 as usize) {
            let declares = !std::mem::replace(&mut self.declared[reg.0 as usize], true);
            if declares && info.mutable {
                write!(self.f, "var {name}: {}", info.ty)?;
            } else if declares && self.kernel.result_of(inst) != Some(info.ty) {
                write!(self.f, "{name}: {}", info.ty)?;
            } else {
                self.f.write_str(name)?;
            }
        } else {
            self.f.write_str(name)?;
        }
        writeln!(self.f, " = {}", self.names.inst(inst))
    }
}

impl Display for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let names = Names::new(self);
        let params = self.params.iter().zip(&names.buffers);
        let params: Vec<String> = params
            .map(|(p, name)| format!("{name}: {} {}[{}]", word(&ACCESS, p.access), p.dtype, p.len))
            .collect();
        let name = Namer::default().unique(&self.name);
        writeln!(f, "kernel @{name}({}) grid {} {{", params.join(", "), self.grid)?;
        for (local, name) in self.locals.iter().zip(&names.buffers[self.params.len()..]) {
            writeln!(
                f,
                "  local {} {name}: {}[{}]",
                word(&SPACE, local.space),
                local.dtype,
                local.len
            )?;
        }
        let declared = vec![false; self.registers.len()];
        Printer {
            kernel: self,
            names,
            declared,
            f,
        }
        .body(&self.body, 1)?;
        f.write_str("}\n")
    }
}

#[cfg(test)]
mod tests;
