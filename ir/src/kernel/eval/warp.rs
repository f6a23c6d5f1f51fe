//! What the threads of a warp compute together.

use super::arithmetic::unpack;
use super::run::{Ran, Run};
use super::*;

/// Threads of a warp.
const WARP: usize = 32;

/// Rows of A, C and D.
const ROWS: usize = 16;

/// Columns of A, rows of B.
const INNER: usize = 16;

/// Columns of B, C and D.
const COLUMNS: usize = 8;

impl Run<'_, '_, '_> {
    /// All threads read before any writes.
    pub(super) fn shuffle(&mut self, dest: Reg, from: Reg, mask: u32, active: &[usize]) -> Ran {
        self.together(active)?;
        let lanes = self.program.slots[dest.0 as usize].lanes;
        let mut values = Vec::with_capacity(lanes * active.len());
        for &thread in active {
            let partner = thread ^ mask as usize;
            if partner >= active.len() {
                return Err(EvalError::Partner {
                    kernel: self.kernel(),
                    thread,
                    partner,
                    threads: active.len(),
                });
            }
            let at = self.at(from, partner);
            values.extend_from_slice(&self.words[at..at + lanes]);
        }
        for (&thread, values) in active.iter().zip(values.chunks_exact(lanes)) {
            let at = self.at(dest, thread);
            self.words[at..at + lanes].copy_from_slice(values);
        }
        Ok(())
    }

    /// The product of matrices of each warp, whose fragments are those of [`Inst::Mma`].
    pub(super) fn products(
        &mut self,
        dest: Reg,
        format: DType,
        [a, b, c]: [Reg; 3],
        active: &[usize],
    ) -> Ran {
        self.together(active)?;
        for warp in active.chunks_exact(WARP) {
            let mut left = [[0.0; INNER]; ROWS];
            let mut right = [[0.0; COLUMNS]; INNER];
            for (lane, &thread) in warp.iter().enumerate() {
                let (group, pair) = (lane / 4, 2 * (lane % 4));
                let (a, b) = (self.at(a, thread), self.at(b, thread));
                for i in 0..4 {
                    let (row, column) = (group + 8 * (i % 2), pair + 8 * (i / 2));
                    [left[row][column], left[row][column + 1]] = unpack(format, self.words[a + i]);
                }
                for i in 0..2 {
                    let row = pair + 8 * i;
                    [right[row][group], right[row + 1][group]] = unpack(format, self.words[b + i]);
                }
            }
            for (lane, &thread) in warp.iter().enumerate() {
                let (group, pair) = (lane / 4, 2 * (lane % 4));
                let (c, d) = (self.at(c, thread), self.at(dest, thread));
                for i in 0..4 {
                    let (row, column) = (group + 8 * (i / 2), pair + i % 2);
                    let start = f64::from(f32::from_bits(self.words[c + i]));
                    let sum = (0..INNER).fold(start, |sum, k| sum + left[row][k] * right[k][column]);
                    self.words[d + i] = (sum as f32).to_bits();
                }
            }
        }
        Ok(())
    }
}
