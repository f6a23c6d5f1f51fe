//! Ops whose result elements have nothing to do with each other: a thread computes one.

use rwkvc_backend_api::GpuFeatures;
use rwkvc_ir::kernel::{Affine, Buf, Inst, Reg};

use super::super::broadcast::row_start;
use super::super::rows::{self, by_token};
use super::{Scheduled, Scope, Tensor, at};
use rwkvc_ir::graph::ops::Emit;

/// One result from operands that broadcast to its shape.
pub(super) fn elementwise(
    name: &str,
    function: Emit,
    operands: &[Tensor],
    results: &[Tensor],
    features: &GpuFeatures,
) -> Vec<Scheduled> {
    let y = &results[0];
    let mut s = Scope::new(name, operands, results, features);
    let xs: Vec<Buf> = (0..operands.len())
        .map(|i| s.read(["x", "y", "z"][i], i))
        .collect();
    let out = s.write("out", 0);
    let n = y.last();
    let (_, each) = by_token(y.len());
    s.elements(y.len(), |b, token, element| {
        let (row, i) = b.div_rem(element, n);
        let row = b.address("row", token * (each / n) + row);
        let values: Vec<Reg> = operands
            .iter()
            .zip(&xs)
            .map(|(t, &x)| {
                let start = row_start(b, row, t, y);
                let at = if t.last() == 1 { start } else { start + i };
                b.load("x", x, at, 1)
            })
            .collect();
        let value = function(b, &values);
        b.store(out, at(row, n) + i, value);
    });
    vec![s.finish()]
}

/// `y_j = Σ_i x_i m_ij`, a matrix for each row.
pub(super) fn contract(operands: &[Tensor], results: &[Tensor], features: &GpuFeatures) -> Vec<Scheduled> {
    let (inputs, outputs) = (operands[0].last(), results[0].last());
    let name = format!("contract_{inputs}x{outputs}");
    let mut s = Scope::new(&name, operands, results, features);
    let (x, m, y) = (s.read("x", 0), s.read("m", 1), s.write("y", 0));
    let (_, each) = by_token(results[0].len());
    s.elements(results[0].len(), |b, token, element| {
        let (row, j) = b.div_rem(element, outputs);
        let row = b.address("row", token * (each / outputs) + row);
        let zero = b.float(0.0, 1);
        let sum = b.var("sum", zero);
        b.serial("i", 0, inputs, |b, i| {
            let x = b.load("x", x, at(row, inputs) + i, 1);
            let m = b.load("m", m, at(row, inputs * outputs) + at(i, outputs) + j, 1);
            b.set(sum, Inst::Fma(x, m, sum));
        });
        b.store(y, at(row, outputs) + j, sum);
    });
    vec![s.finish()]
}

/// Rows of the table.
pub(super) fn embed(operands: &[Tensor], results: &[Tensor], features: &GpuFeatures) -> Vec<Scheduled> {
    let (n, vocab) = (results[0].last(), operands[0].rows().fixed);
    let name = format!("embed_{}_{n}", operands[0].dtype);
    let mut s = Scope::new(&name, operands, results, features);
    let (table, tokens, y) = (s.read("table", 0), s.read("tokens", 1), s.write("y", 0));
    let (_, each) = by_token(results[0].len());
    s.elements(results[0].len(), |b, token, element| {
        let (row, i) = b.div_rem(element, n);
        let row = b.address("row", token * (each / n) + row);
        let id = rows::named_by(b, tokens, row, vocab);
        let x = b.load("x", table, at(id, n) + i, 1);
        b.store(y, at(row, n) + i, x);
    });
    vec![s.finish()]
}

/// The rows of the last token: in a batch, the only one of each state.
pub(super) fn last(operands: &[Tensor], results: &[Tensor], features: &GpuFeatures) -> Vec<Scheduled> {
    let (all, kept) = (operands[0].len(), results[0].len());
    let (_, n) = by_token(kept);
    let mut s = Scope::new(&format!("last_{n}"), operands, results, features);
    let (x, y) = (s.read("x", 0), s.write("y", 0));
    s.elements(kept, |b, token, i| {
        let start = match (all == kept, all.as_fixed()) {
            (true, _) => token.clone() * n,
            (false, Some(len)) => Affine::from(len - n),
            (false, None) => {
                let tokens = b.inst("tokens", Inst::Tokens);
                at(tokens, all.per_token) - n
            }
        };
        let x = b.load("x", x, start + i, 1);
        b.store(y, token * n + i, x);
    });
    vec![s.finish()]
}
