//! Names, and statements written with them.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Display, Formatter, Write};

use super::words::*;
use crate::kernel::*;

/// Printed names with sigils, unique in the kernel.
pub(crate) struct Names {
    pub(super) buffers: Vec<String>,
    registers: Vec<String>,
}

/// Hands out names once.
#[derive(Default)]
pub(super) struct Namer {
    taken: HashSet<String>,
    next: HashMap<String, u32>,
}

impl Namer {
    /// The name, made an identifier; with a number behind it if it was handed out before.
    pub(super) fn unique(&mut self, name: &str) -> String {
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
            Inst::Float(x) if x.get().is_nan() => format!("const 0x{:08x}", x.get().to_bits()),
            Inst::Float(x) => format!("const {x:?}"),
            Inst::Int(n) => format!("const.i32 {n}"),
            Inst::Index(n) => format!("const.index {n}"),
            Inst::Tokens => "tokens".to_owned(),
            Inst::Address(at) => format!("address {}", self.affine(at)),
            Inst::Copy(a) => format!("copy {}", r(a)),
            Inst::Unary(op, a) => format!("{} {}", word(Unary::WORDS, *op), r(a)),
            Inst::Binary(op, a, b) => format!("{} {}, {}", word(Binary::WORDS, *op), r(a), r(b)),
            Inst::Fma(a, b, c) => format!("fma {}, {}, {}", r(a), r(b), r(c)),
            Inst::Compare(op, a, b) => format!("{} {}, {}", word(Compare::WORDS, *op), r(a), r(b)),
            Inst::Select(c, a, b) => format!("select {}, {}, {}", r(c), r(a), r(b)),
            Inst::Splat(a, lanes) => format!("splat{} {}", Suffix(*lanes), r(a)),
            Inst::Extract(a, lane) => format!("extract {}, {lane}", r(a)),
            Inst::Join(lanes) => {
                let lanes: Vec<&str> = lanes.iter().map(r).collect();
                format!("join {}", lanes.join(", "))
            }
            Inst::Sums(all) => {
                let all: Vec<&str> = all.iter().map(r).collect();
                format!("sums {}", all.join(", "))
            }
            Inst::Zip(Half::Lower, a, b) => format!("zip_lower {}, {}", r(a), r(b)),
            Inst::Zip(Half::Upper, a, b) => format!("zip_upper {}, {}", r(a), r(b)),
            Inst::Reduce(op, a) => format!("{} {}", word(&REDUCTION, *op), r(a)),
            Inst::Load { buf, at, lanes } => {
                format!("load{} {}[{}]", Suffix(*lanes), self.buf(*buf), self.affine(at))
            }
            Inst::Words { buf, at, lanes } => {
                format!("words{} {}[{}]", Suffix(*lanes), self.buf(*buf), self.affine(at))
            }
            Inst::Pack(format, a) => format!("pack.{format} {}", r(a)),
            Inst::Dot4(a, b, c) => format!("dot4 {}, {}, {}", r(a), r(b), r(c)),
            Inst::Shuffle(a, mask) => format!("shuffle {}, {mask}", r(a)),
            Inst::Mma { format, a, b, c } => format!("mma.{format} {}, {}, {}", r(a), r(b), r(c)),
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

/// `± factor*name` as a part of a sum; `first` says that nothing stands before it.
pub(super) fn write_term(f: &mut impl Write, first: bool, factor: i64, name: Option<&str>) -> fmt::Result {
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
