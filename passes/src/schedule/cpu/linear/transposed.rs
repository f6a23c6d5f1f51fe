//! The weights of a task for many tokens, from a matrix that lies row by row: they are transposed on their way to the nearest
//! cache.

use rwkvc_ir::DType;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Binary, Buf, Reg, Unary};

use super::super::super::group::Buffers;
use super::super::at;
use super::LINE;
use super::tiles::{DEPTH, Weights, following};

/// Rows of a matrix, an output each.
pub(super) struct Rows<'m, 'b> {
    pub(super) m: &'m Buffers<'b>,
    pub(super) first: Affine,
    pub(super) outputs: i64,
    /// Outputs of a task: these in whole vectors.
    pub(super) part: i64,
    pub(super) lanes: u32,
}

impl Rows<'_, '_> {
    fn row(&self, output: Affine) -> Affine {
        (self.first.clone() + output) * self.m.inputs
    }

    /// Runs `body(builder, first output, rows)` for each vector of outputs. Where there are no more, the last row stands in for
    /// those that are missing.
    fn for_vectors(&self, b: &mut Builder, body: &dyn Fn(&mut Builder, Affine, &[Affine])) {
        let lanes = i64::from(self.lanes);
        let (whole, rest) = (self.outputs / lanes, self.outputs % lanes);
        let run = |b: &mut Builder, first: Affine, count: i64| {
            let outputs = (0..lanes).map(|lane| first.clone() + lane.min(count - 1));
            let rows: Vec<Affine> = outputs.map(|output| self.row(output)).collect();
            body(b, first.clone(), &rows);
        };
        if whole > 0 {
            b.serial("vector", 0, whole, |b, vector| run(b, at(vector, lanes), lanes));
        }
        if rest > 0 {
            run(b, Affine::from(whole * lanes), rest);
        }
    }

    /// Whether two bf16 next to each other can be read as one word: their positions are even.
    fn is_paired(&self, b: &Builder) -> bool {
        b.dtype(self.m.w) == DType::BF16 && self.m.inputs % 2 == 0
    }

    /// Inputs that are transposed at once.
    fn step(&self, b: &Builder) -> i64 {
        let inputs_of_a_lane = if self.is_paired(b) { 2 } else { 1 };
        inputs_of_a_lane * i64::from(self.lanes)
    }

    /// Transposes [`Self::step`] inputs of a vector of outputs: a register of outputs for each input.
    fn transposed(&self, b: &mut Builder, rows: &[Affine], k: &Affine) -> Vec<Reg> {
        let starts = rows.iter().map(|row| row.clone() + k.clone());
        if !self.is_paired(b) {
            let rows = starts
                .map(|start| b.load("w", self.m.w, start, self.lanes))
                .collect();
            return b.transposed(rows);
        }
        // A bf16 is the upper half of an f32.
        let rows = starts
            .map(|start| b.words("pair", self.m.w, start, self.lanes))
            .collect();
        let pairs = b.transposed(rows);
        let (sixteen, upper) = (b.int(16, self.lanes), b.int(0xffff_0000_u32 as i32, self.lanes));
        let mut both = |pair| {
            let halves = [
                b.binary(Binary::Shl, pair, sixteen),
                b.binary(Binary::And, pair, upper),
            ];
            halves.map(|bits| b.unary(Unary::FromBits, bits))
        };
        pairs.into_iter().flat_map(&mut both).collect()
    }
}

impl Weights for Rows<'_, '_> {
    fn spread(&self, b: &mut Builder, panel: Buf, k: Reg, depth: Reg) {
        let step = self.step(b);
        let by = b.index(step);
        let whole = b.binary(Binary::Div, depth, by);
        b.serial("inputs", 0, whole, |b, c| {
            let first = at(c, step);
            self.for_vectors(b, &|b, column, rows| {
                let transposed = self.transposed(b, rows, &(Affine::from(k) + first.clone()));
                for (i, outputs) in (0..).zip(transposed) {
                    b.store(panel, (first.clone() + i) * self.part + column.clone(), outputs);
                }
            });
        });
        if self.m.inputs % step == 0 {
            return;
        }
        let done = b.address("done", at(whole, step));
        b.serial("i", done, depth, |b, i| {
            b.serial("output", 0, self.outputs, |b, output| {
                let w = b.load("w", self.m.w, self.row(output.into()) + k + i, 1);
                b.store(panel, at(i, self.part) + output, w);
            });
            let nothing = b.float(0.0, 1);
            b.serial("output", self.outputs, self.part, |b, output| {
                b.store(panel, at(i, self.part) + output, nothing);
            });
        });
    }

    fn ask(&self, b: &mut Builder, k: Reg, number: Affine) {
        let size = b.dtype(self.m.w).size() as i64;
        let next = self.row(Affine::from(0)) + k + DEPTH;
        let start = following(b, k, self.m.inputs, next, self.row(self.part.into()));
        for line in (0..DEPTH.min(self.m.inputs)).step_by((LINE / size) as usize) {
            b.prefetch(self.m.w, number.clone() * self.m.inputs + start + line);
        }
    }

    fn calls(&self) -> i64 {
        self.outputs
    }
}
