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
//! | `words.4 %x[8*%t]` | pairs of 16-bit elements as I32 |
//! | `pack.bf16 %a`, `mma.bf16 %a, %b, %c` | pairs of lanes rounded to 16 bits, a product of a warp |
//! | `extract %a, 3`, `shuffle %a, 16` | a lane, a thread mask |
//! | `reduce.add %a`, `reduce.max %a` | all lanes combined |
//! | `lt %a, %b` | comparisons: `eq`, `ne`, `lt`, `le` |
//! | `store @tmp[8*%i], %a`, `prefetch %x[%i]`, `barrier` | statements without a result |
//! | `serial %i in 0..4*T step 4 { … }` | loops: `parallel`, `thread`, `serial`, `unrolled` |
//! | `if %c { … } else { … }` | branches |
//!
//! Any register may carry its type, as in `%a: f32x4 = …`; the printer writes it where the instruction does not
//! tell it.

use std::fmt::{self, Display, Formatter};

use super::*;

mod names;
mod words;

pub(crate) use names::Names;
use names::{Namer, write_term};
pub(crate) use words::*;

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
