//! Which powers of two divide indices: they tell how addresses are aligned.
//!
//! A power of two is counted by the low bits that are zero, which arithmetic modulo 2⁶⁴ keeps.

use rwkvc_ir::kernel::{Affine, Binary, Bound, Inst, Kernel, Reg, Stmt};

/// What zero has: more than any size in memory.
const ALL: u32 = 64;

/// For each register, the low bits that are zero whenever it is read; none where that is not known.
pub(crate) fn low_zeros(kernel: &Kernel) -> Vec<u32> {
    let mut zeros = vec![0; kernel.registers.len()];
    visit(kernel, &kernel.body, &mut zeros);
    zeros
}

/// The low bits that are zero in an index.
pub(crate) fn zeros_of(at: &Affine, zeros: &[u32]) -> u32 {
    let terms = at.terms.iter();
    let terms = terms.map(|&(reg, factor)| zeros[reg.0 as usize].saturating_add(of(factor)));
    terms.fold(of(at.offset), u32::min).min(ALL)
}

fn of(value: i64) -> u32 {
    value.trailing_zeros()
}

fn visit(kernel: &Kernel, body: &[Stmt], zeros: &mut [u32]) {
    for statement in body {
        match statement {
            // A mutable register is assigned in many places, of which not all were seen yet.
            Stmt::Let(reg, _) if kernel.registers[reg.0 as usize].mutable => {}
            Stmt::Let(reg, inst) => zeros[reg.0 as usize] = of_inst(inst, zeros),
            Stmt::For {
                var,
                start,
                step,
                body,
                ..
            } => {
                zeros[var.0 as usize] = of_bound(start, zeros).min(of(*step));
                visit(kernel, body, zeros);
            }
            Stmt::If { then, otherwise, .. } => {
                visit(kernel, then, zeros);
                visit(kernel, otherwise, zeros);
            }
            Stmt::Store { .. } | Stmt::Barrier | Stmt::Prefetch { .. } => {}
        }
    }
}

fn of_bound(bound: &Bound, zeros: &[u32]) -> u32 {
    match bound {
        Bound::Extent(extent) => of(extent.fixed).min(of(extent.per_token)),
        Bound::Reg(reg) => zeros[reg.0 as usize],
    }
}

fn of_inst(inst: &Inst, zeros: &[u32]) -> u32 {
    let of_reg = |reg: &Reg| zeros[reg.0 as usize];
    match inst {
        Inst::Index(value) => of(*value),
        Inst::Address(at) => zeros_of(at, zeros),
        Inst::Copy(from) => of_reg(from),
        Inst::Binary(Binary::Mul, x, y) => of_reg(x).saturating_add(of_reg(y)).min(ALL),
        // The remainder of multiples is a multiple too.
        Inst::Binary(Binary::Add | Binary::Sub | Binary::Min | Binary::Max | Binary::Rem, x, y)
        | Inst::Select(_, x, y) => of_reg(x).min(of_reg(y)),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_have_the_zeros_that_all_terms_have() {
        let zeros = [0, 3];
        let at = |offset, terms: &[(u32, i64)]| Affine {
            terms: terms.iter().map(|&(reg, factor)| (Reg(reg), factor)).collect(),
            offset,
        };
        assert_eq!(zeros_of(&at(0, &[]), &zeros), 64);
        assert_eq!(zeros_of(&at(24, &[(0, 16), (1, 3)]), &zeros), 3);
        assert_eq!(zeros_of(&at(-4, &[(1, 2)]), &zeros), 2);
        assert_eq!(zeros_of(&at(0, &[(0, 48), (1, i64::MIN)]), &zeros), 4);
        assert_eq!(zeros_of(&at(1, &[(1, 2)]), &zeros), 0);
    }
}
