//! Dot products of rows, the inside of every matrix product.

use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Buf, Inst, LoopKind, Reg};

/// Distance of the prefetch on each stream, in bytes: what was fastest over matrices far larger than the caches.
const PREFETCH_BYTES: i64 = 512;

/// Dot products of some rows of `x` with some rows of `w`, all of length `n`.
pub(super) struct Dot {
    pub(super) x: Buf,
    pub(super) w: Buf,
    pub(super) n: i64,
    pub(super) lanes: u32,
    /// Independent accumulators for each pair of rows.
    pub(super) unroll: i64,
    pub(super) prefetch: bool,
}

impl Dot {
    /// `xs` and `ws` are where the rows start. Gives scalars: `sums[x][w]`.
    pub(super) fn emit(&self, b: &mut Builder, xs: &[Affine], ws: &[Affine]) -> Vec<Vec<Reg>> {
        let mut lanes = self.lanes;
        while i64::from(lanes) > self.n {
            lanes /= 2;
        }
        let step = i64::from(lanes);
        let unroll = if self.n >= step * self.unroll {
            self.unroll
        } else {
            1
        };
        let zero = b.float(0.0, lanes);
        let acc: Vec<Vec<Vec<Reg>>> = (0..unroll)
            .map(|_| {
                xs.iter()
                    .map(|_| ws.iter().map(|_| b.var("acc", zero)).collect())
                    .collect()
            })
            .collect();
        let ahead = PREFETCH_BYTES / b.dtype(self.w).size() as i64;
        let block = |b: &mut Builder, k: Reg, unroll: i64| {
            for u in 0..unroll {
                let k = Affine::from(k) + u * step;
                let x: Vec<Reg> = xs
                    .iter()
                    .map(|x| b.load("x", self.x, x.clone() + k.clone(), lanes))
                    .collect();
                for (j, w) in ws.iter().enumerate() {
                    let at = w.clone() + k.clone();
                    if self.prefetch && u == 0 {
                        b.prefetch(self.w, at.clone() + ahead);
                    }
                    let w = b.load("w", self.w, at, lanes);
                    for (i, &x) in x.iter().enumerate() {
                        let acc = acc[u as usize][i][j];
                        b.set(acc, Inst::Fma(w, x, acc));
                    }
                }
            }
        };
        let whole = self.n / (step * unroll) * (step * unroll);
        b.for_loop(LoopKind::Serial, "k", 0, whole, step * unroll, |b, k| {
            block(b, k, unroll)
        });
        let vectors = self.n / step * step;
        if vectors > whole {
            b.for_loop(LoopKind::Serial, "k", whole, vectors, step, |b, k| block(b, k, 1));
        }
        let mut sums: Vec<Vec<Reg>> = vec![];
        for i in 0..xs.len() {
            let mut row = vec![];
            for j in 0..ws.len() {
                let sum = acc[1..]
                    .iter()
                    .fold(acc[0][i][j], |sum, acc| b.add(sum, acc[i][j]));
                row.push(b.reduce_add(sum));
            }
            sums.push(row);
        }
        if vectors == self.n {
            return sums;
        }
        let sums: Vec<Vec<Reg>> = sums
            .iter()
            .map(|row| row.iter().map(|&sum| b.var("sum", sum)).collect())
            .collect();
        b.serial("k", vectors, self.n, |b, k| {
            let x: Vec<Reg> = xs.iter().map(|x| b.load("x", self.x, x.clone() + k, 1)).collect();
            for (j, w) in ws.iter().enumerate() {
                let w = b.load("w", self.w, w.clone() + k, 1);
                for (i, &x) in x.iter().enumerate() {
                    b.set(sums[i][j], Inst::Fma(w, x, sums[i][j]));
                }
            }
        });
        sums
    }
}
