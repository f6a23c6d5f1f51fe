//! Rows of activations, states, weights and tables: how many there are, where they start, and what mixes two of them.

use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Binary, Buf, Extent, Inst, Reg, Unary};

use super::{Tensor, at};

/// How the rows of activations relate to those of the state.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Time {
    /// Each row is the next token of its row of the state.
    Step,
    /// All rows are tokens of one state, one after the other.
    Sequence,
}

impl Time {
    pub(super) fn of(x: &Tensor, prev: &Tensor) -> Time {
        if x.rows() == prev.rows() {
            Time::Step
        } else {
            Time::Sequence
        }
    }
}

/// Splits a length into what counts tokens or members, and how much each has.
pub(super) fn by_token(len: Extent) -> (Extent, i64) {
    match len.as_fixed() {
        Some(n) => (Extent::fixed(1), n),
        None => (Extent::per_token(1), len.per_token),
    }
}

/// The number of rows as a value.
pub(super) fn count(b: &mut Builder, rows: Extent) -> Reg {
    match rows.as_fixed() {
        Some(n) => b.index(n),
        None => {
            let tokens = b.inst("tokens", Inst::Tokens);
            b.address("rows", at(tokens, rows.per_token))
        }
    }
}

/// Where the last of `rows` rows of `n` elements starts.
pub(super) fn last_row(b: &mut Builder, rows: Extent, n: i64) -> Affine {
    match rows.as_fixed() {
        Some(rows) => Affine::from((rows - 1) * n),
        None => {
            let tokens = b.inst("tokens", Inst::Tokens);
            at(tokens, rows.per_token * n) - n
        }
    }
}

/// The start of the row of `weight` that row `row` takes.
pub(super) fn turn(b: &mut Builder, row: Reg, weight: &Tensor) -> Affine {
    match weight.rows() {
        n if n == Extent::fixed(1) => Affine::default(),
        n => Affine::from(b.div_rem(row, n.fixed).1) * weight.last(),
    }
}

/// The row of a table of `rows` that the token at `position` names. An id outside the table names its nearest row, so no id
/// can lead outside.
pub(super) fn named_by(b: &mut Builder, tokens: Buf, position: Reg, rows: i64) -> Reg {
    let id = b.load("id", tokens, position, 1);
    let id = b.unary(Unary::ToIndex, id);
    let (zero, most) = (b.index(0), b.index(rows - 1));
    let id = b.binary(Binary::Max, id, zero);
    b.binary(Binary::Min, id, most)
}

/// `y_i = now + (before - now) * mix_i`, for any lane count; mixes are taken at `channel`, results stored at `position`.
pub(super) fn interpolate(
    b: &mut Builder,
    now: Reg,
    before: Reg,
    mix: &[Buf],
    y: &[Buf],
    channel: &Affine,
    position: &Affine,
) {
    let d = b.sub(before, now);
    let lanes = b.lanes(d);
    for (&mix, &y) in mix.iter().zip(y) {
        let mix = b.load("mix", mix, channel.clone(), lanes);
        let value = b.fma(d, mix, now);
        b.store(y, position.clone(), value);
    }
}
