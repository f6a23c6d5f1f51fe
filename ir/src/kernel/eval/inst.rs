//! One instruction of one thread.

use super::arithmetic::{dot4, pack, reduce};
use super::run::{Ran, Run};
use super::*;
use crate::kernel::operations::UnaryFn;

/// Why an operation has a function for its operands.
const CHECKED: &str = "the verifier checks the types of operands";

impl Run<'_, '_, '_> {
    /// Any instruction that a thread computes alone.
    pub(super) fn inst(&mut self, dest: Reg, inst: &Inst, thread: usize) -> Ran {
        let lanes = self.program.slots[dest.0 as usize].lanes;
        let d = self.at(dest, thread);
        let is_index = |reg: Reg| self.program.kernel.ty(reg).scalar == Scalar::Index;
        match *inst {
            Inst::Float(x) => self.words[d] = x.get().to_bits(),
            Inst::Int(n) => self.words[d] = n as u32,
            Inst::Index(n) => self.indices[d] = n,
            Inst::Tokens => self.indices[d] = self.tokens,
            Inst::Address(ref at) => self.indices[d] = self.affine(at, thread),
            Inst::Copy(a) => {
                let a = self.at(a, thread);
                if is_index(dest) {
                    self.indices.copy_within(a..a + lanes, d);
                } else {
                    self.words.copy_within(a..a + lanes, d);
                }
            }
            Inst::Unary(op, a) => {
                let a = self.at(a, thread);
                match op.function() {
                    UnaryFn::Word(f) => (0..lanes).for_each(|i| self.words[d + i] = f(self.words[a + i])),
                    UnaryFn::ToIndex(f) => {
                        (0..lanes).for_each(|i| self.indices[d + i] = f(self.words[a + i]))
                    }
                    UnaryFn::FromIndex(f) => {
                        (0..lanes).for_each(|i| self.words[d + i] = f(self.indices[a + i]))
                    }
                }
            }
            Inst::Binary(op, a, b) => return self.binary(op, dest, a, b, thread),
            Inst::Fma(a, b, c) => {
                let [a, b, c] = [a, b, c].map(|reg| self.at(reg, thread));
                for i in 0..lanes {
                    let [x, y, z] = [a, b, c].map(|at| f32::from_bits(self.words[at + i]));
                    self.words[d + i] = x.mul_add(y, z).to_bits();
                }
            }
            Inst::Dot4(a, b, c) => {
                let [a, b, c] = [a, b, c].map(|reg| self.at(reg, thread));
                for i in 0..lanes {
                    let [x, y, z] = [a, b, c].map(|at| self.words[at + i]);
                    self.words[d + i] = dot4(x, y, z);
                }
            }
            Inst::Compare(op, a, b) => {
                let scalar = self.program.kernel.ty(a).scalar;
                let (a, b) = (self.at(a, thread), self.at(b, thread));
                for i in 0..lanes {
                    let pair = |file: &[u32]| (file[a + i], file[b + i]);
                    self.words[d + i] = match (scalar, pair) {
                        (Scalar::Index, _) => op.of(self.indices[a + i], self.indices[b + i]),
                        (Scalar::F32, pair) => {
                            let (x, y) = pair(&self.words);
                            op.of(f32::from_bits(x), f32::from_bits(y))
                        }
                        (_, pair) => {
                            let (x, y) = pair(&self.words);
                            op.of(x as i32, y as i32)
                        }
                    };
                }
            }
            Inst::Select(condition, a, b) => {
                let is_index = is_index(dest);
                let [condition, a, b] = [condition, a, b].map(|reg| self.at(reg, thread));
                for i in 0..lanes {
                    let from = if self.words[condition + i] != 0 {
                        a + i
                    } else {
                        b + i
                    };
                    if is_index {
                        self.indices[d + i] = self.indices[from];
                    } else {
                        self.words[d + i] = self.words[from];
                    }
                }
            }
            Inst::Splat(a, _) => {
                let from = self.at(a, thread);
                if is_index(dest) {
                    let value = self.indices[from];
                    self.indices[d..d + lanes].fill(value);
                } else {
                    let value = self.words[from];
                    self.words[d..d + lanes].fill(value);
                }
            }
            Inst::Extract(a, lane) => {
                let from = self.at(a, thread) + lane as usize;
                if is_index(dest) {
                    self.indices[d] = self.indices[from];
                } else {
                    self.words[d] = self.words[from];
                }
            }
            Inst::Join(ref from) => {
                for (i, a) in from.iter().enumerate() {
                    self.words[d + i] = self.words[self.at(*a, thread)];
                }
            }
            Inst::Sums(ref all) => {
                for (i, &a) in all.iter().enumerate() {
                    self.words[d + i] = self.reduce(Reduction::Add, a, thread);
                }
            }
            Inst::Zip(half, a, b) => {
                let first = if half == Half::Upper { lanes / 2 } else { 0 };
                let [a, b] = [a, b].map(|from| self.at(from, thread) + first);
                for i in 0..lanes / 2 {
                    self.words[d + 2 * i] = self.words[a + i];
                    self.words[d + 2 * i + 1] = self.words[b + i];
                }
            }
            Inst::Reduce(op, a) => self.words[d] = self.reduce(op, a, thread),
            Inst::Load { buf, ref at, .. } => return self.load(dest, buf, at, lanes, thread),
            Inst::Words { buf, ref at, .. } => {
                let elements = self.program.kernel.dtype(buf).in_word() as usize;
                return self.load(dest, buf, at, elements * lanes, thread);
            }
            Inst::Pack(format, a) => {
                let a = self.at(a, thread);
                for i in 0..lanes {
                    self.words[d + i] = pack(format, [a + 2 * i, a + 2 * i + 1].map(|at| self.words[at]));
                }
            }
            Inst::Shuffle(..) | Inst::Mma { .. } => unreachable!("these are for all threads at once"),
        }
        Ok(())
    }

    fn reduce(&mut self, op: Reduction, a: Reg, thread: usize) -> u32 {
        let ty = self.program.kernel.ty(a);
        let from = self.at(a, thread);
        let mut lanes = self.words[from..from + ty.lanes as usize].to_vec();
        let op = match op {
            Reduction::Add => Binary::Add,
            Reduction::Max => Binary::Max,
        };
        if ty.scalar == Scalar::F32 {
            let combine = op.of_floats().expect(CHECKED);
            reduce(&mut lanes, |x, y| {
                combine(f32::from_bits(x), f32::from_bits(y)).to_bits()
            })
        } else {
            let combine = op.of_words().expect(CHECKED);
            reduce(&mut lanes, |x, y| combine(x as i32, y as i32) as u32)
        }
    }

    fn binary(&mut self, op: Binary, dest: Reg, a: Reg, b: Reg, thread: usize) -> Ran {
        let ty = self.program.kernel.ty(dest);
        let [d, a, b] = [dest, a, b].map(|reg| self.at(reg, thread));
        let lanes = ty.lanes as usize;
        match ty.scalar {
            Scalar::Index => {
                let f = op.of_indices().expect(CHECKED);
                for i in 0..lanes {
                    let (dividend, divisor) = (self.indices[a + i], self.indices[b + i]);
                    self.indices[d + i] = f(dividend, divisor).ok_or_else(|| EvalError::Division {
                        kernel: self.kernel(),
                        dividend,
                        divisor,
                    })?;
                }
            }
            Scalar::F32 => {
                let f = op.of_floats().expect(CHECKED);
                for i in 0..lanes {
                    let (x, y) = (
                        f32::from_bits(self.words[a + i]),
                        f32::from_bits(self.words[b + i]),
                    );
                    self.words[d + i] = f(x, y).to_bits();
                }
            }
            Scalar::I32 | Scalar::Bool => {
                let f = op.of_words().expect(CHECKED);
                for i in 0..lanes {
                    self.words[d + i] = f(self.words[a + i] as i32, self.words[b + i] as i32) as u32;
                }
            }
        }
        Ok(())
    }
}
