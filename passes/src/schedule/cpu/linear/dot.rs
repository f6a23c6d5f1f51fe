//! Dot products of rows, the inside of every matrix product.

use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Buf, Inst, LoopKind, Reg};

/// Dot products of some rows of `x` with some rows of `w`, all of length `n`.
pub(super) struct Dot {
    pub(super) x: Buf,
    pub(super) w: Buf,
    pub(super) n: i64,
    pub(super) lanes: u32,
    /// Independent accumulators for each pair of rows.
    pub(super) unroll: i64,
    /// How many elements ahead of each row of `w` lines are asked for.
    pub(super) prefetch: Option<i64>,
}

impl Dot {
    /// Lanes in which products are added up.
    pub(super) fn width(&self) -> u32 {
        let mut lanes = self.lanes;
        while i64::from(lanes) > self.n {
            lanes /= 2;
        }
        lanes
    }

    /// The elements that make whole vectors.
    fn vectors(&self) -> i64 {
        let step = i64::from(self.width());
        self.n / step * step
    }

    /// Adds up whole vectors of products of `xs` and `ws`, which are where the rows start. Gives `[x][w]`, in lanes.
    fn products(&self, b: &mut Builder, xs: &[Affine], ws: &[Affine]) -> Vec<Vec<Reg>> {
        let lanes = self.width();
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
        let block = |b: &mut Builder, k: Reg, unroll: i64| {
            for u in 0..unroll {
                let k = Affine::from(k) + u * step;
                let x: Vec<Reg> = xs
                    .iter()
                    .map(|x| b.load("x", self.x, x.clone() + k.clone(), lanes))
                    .collect();
                for (j, w) in ws.iter().enumerate() {
                    let at = w.clone() + k.clone();
                    if let Some(ahead) = self.prefetch.filter(|_| u == 0) {
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
        let vectors = self.vectors();
        if vectors > whole {
            b.for_loop(LoopKind::Serial, "k", whole, vectors, step, |b, k| block(b, k, 1));
        }
        let mut sums: Vec<Vec<Reg>> = vec![];
        for i in 0..xs.len() {
            let of_w = |j: usize| {
                acc[1..]
                    .iter()
                    .fold(acc[0][i][j], |sum, acc| b.add(sum, acc[i][j]))
            };
            sums.push((0..ws.len()).map(of_w).collect());
        }
        sums
    }

    /// `xs` and `ws` are where the rows start. Gives scalars: `sums[x][w]`.
    pub(super) fn emit(&self, b: &mut Builder, xs: &[Affine], ws: &[Affine]) -> Vec<Vec<Reg>> {
        let sums = self.products(b, xs, ws);
        let sums: Vec<Vec<Reg>> = sums
            .iter()
            .map(|row| row.iter().map(|&sum| b.reduce_add(sum)).collect())
            .collect();
        let vectors = self.vectors();
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

    /// Leaves the sums of [`Self::emit`] in memory, [`Self::width`] lanes of each that are to be added up, at
    /// `place(x, w)`.
    pub(super) fn leave(
        &self,
        b: &mut Builder,
        xs: &[Affine],
        ws: &[Affine],
        (sums, place): (Buf, &dyn Fn(i64, i64) -> Affine),
    ) {
        for (i, row) in (0..).zip(self.products(b, xs, ws)) {
            for (j, sum) in (0..).zip(row) {
                b.store(sums, place(i, j), sum);
            }
        }
        if self.vectors() == self.n {
            return;
        }
        b.serial("k", self.vectors(), self.n, |b, k| {
            let x: Vec<Reg> = xs.iter().map(|x| b.load("x", self.x, x.clone() + k, 1)).collect();
            for (j, w) in (0..).zip(ws) {
                let w = b.load("w", self.w, w.clone() + k, 1);
                for (i, &x) in (0..).zip(&x) {
                    let sum = b.load("sum", sums, place(i, j), 1);
                    let sum = b.fma(w, x, sum);
                    b.store(sums, place(i, j), sum);
                }
            }
        });
    }
}
