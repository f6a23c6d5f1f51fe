//! The WKV-7 recurrence: alone, and with everything of a head around it.
//!
//! A task is one head of one state over all its tokens; `S[value][key]` is updated in place, row by row.

use rwkvc_backend_api::CpuFeatures;
use rwkvc_ir::graph::ops::Wkv7Block;
use rwkvc_ir::kernel::builder::{Builder, transcendental};
use rwkvc_ir::kernel::{Affine, Binary, Buf, Extent, Inst, Reg};

use super::super::head::{HeadBuffers, Heads};
use super::norm::statistics;
use super::{Scheduled, Scope, Tensor, at, math};

/// A vector over the channels of a head: a buffer and where the head's part starts.
#[derive(Clone)]
struct Row(Buf, Affine);

/// The vectors of one step of a head.
struct Step {
    decay: Row,
    k: Row,
    v: Row,
    /// What is removed: `sa = S a`.
    a: Row,
    /// What is put in its place.
    b: Row,
    r: Row,
    y: Row,
}

impl Row {
    fn load(&self, b: &mut Builder, i: Reg, lanes: u32) -> Reg {
        b.load("v", self.0, self.1.clone() + i, lanes)
    }
}

/// One token of one head: `S = S diag(decay) + (S a) bᵀ + v kᵀ`, then `y = S r`. `state` is where the head's state
/// starts, `n` the head size.
fn step(b: &mut Builder, state: Row, n: i64, lanes: u32, s: &Step) {
    b.serial("value", 0, n, |b, value| {
        let row = Row(state.0, state.1.clone() + at(value, n));
        let sa = math::sum_over(b, n, lanes, |b, i, l, acc| {
            let (x, a) = (row.load(b, i, l), s.a.load(b, i, l));
            Inst::Fma(x, a, acc)
        });
        let v = s.v.load(b, value, 1);
        let y = math::sum_over(b, n, lanes, |b, i, l, acc| {
            let (sa, v) = (b.splat(sa, l), b.splat(v, l));
            let (x, decay, k) = (row.load(b, i, l), s.decay.load(b, i, l), s.k.load(b, i, l));
            let (replace, r) = (s.b.load(b, i, l), s.r.load(b, i, l));
            let new = b.mul(v, k);
            let new = b.fma(sa, replace, new);
            let x = b.fma(x, decay, new);
            b.store(row.0, row.1.clone() + i, x);
            Inst::Fma(x, r, acc)
        });
        b.store(s.y.0, s.y.1.clone() + value, y);
    });
}

/// `wkv7`: the recurrence alone.
pub(super) fn wkv7(operands: &[Tensor], results: &[Tensor], features: &CpuFeatures) -> Vec<Scheduled> {
    let heads = Heads::of(&operands[0], &operands[1]);
    let n = heads.n;
    let mut s = Scope::new(&format!("wkv7_{n}"), operands, results, features);
    let state = s.update("state", 0);
    let [r, w, k, v, a, b_] =
        [("r", 1), ("w", 2), ("k", 3), ("v", 4), ("a", 5), ("b", 6)].map(|(x, i)| s.read(x, i));
    let y = s.write("y", 1);
    let lanes = s.lanes();
    s.b.parallel("head", heads.tasks(), |b, head| {
        b.serial("t", 0, heads.tokens, |b, t| {
            let here = |buf| Row(buf, at(t, heads.count * n) + at(head, n));
            let [decay, k, v, a, b_, r, y] = [w, k, v, a, b_, r, y].map(here);
            step(
                b,
                Row(state, at(head, n * n)),
                n,
                lanes,
                &Step {
                    decay,
                    k,
                    v,
                    a,
                    b: b_,
                    r,
                    y,
                },
            );
        });
    });
    vec![s.finish()]
}

impl Heads {
    /// One for each head of each state. States have one token each if there are several, so that heads and rows of
    /// activations are counted alike.
    fn tasks(&self) -> Extent {
        Extent {
            fixed: self.states.fixed * self.count,
            per_token: self.states.per_token * self.count,
        }
    }
}

/// `wkv7_block`: decay, key normalisation, value residual, recurrence, group norm, bonus and gate of a head.
pub(super) fn wkv7_block(
    op: &Wkv7Block,
    operands: &[Tensor],
    results: &[Tensor],
    features: &CpuFeatures,
) -> Vec<Scheduled> {
    let heads = Heads::of(&operands[0], &operands[1]);
    let n = heads.n;
    let mut s = Scope::new(&format!("wkv7_block_{n}"), operands, results, features);
    let HeadBuffers {
        state,
        r,
        w,
        k,
        v,
        a,
        g,
        k_k,
        k_a,
        r_k,
        ln_weight,
        ln_bias,
        residual,
        out,
    } = HeadBuffers::open(&mut s, op);
    let [decay_at, key_at, value_at, remove_at, replace_at, y_at] =
        ["decay", "key", "value", "remove", "replace", "y_head"]
            .map(|name| Row(s.b.private(name, n), Affine::default()));
    let lanes = s.lanes();
    s.b.parallel("head", heads.tasks(), |b, head| {
        let of_state = match heads.states.as_fixed() {
            Some(_) => head,
            None => b.div_rem(head, heads.count).1,
        };
        b.serial("t", 0, heads.tokens, |b, t| {
            let here = |buf| Row(buf, at(t, heads.count * n) + at(head, n));
            let weight = |buf| Row(buf, at(of_state, n));
            let squares = math::sum_over(b, n, lanes, |b, i, l, acc| {
                let (k, k_k) = (here(k).load(b, i, l), weight(k_k).load(b, i, l));
                let kk = b.mul(k, k_k);
                b.store(remove_at.0, i, kk);
                Inst::Fma(kk, kk, acc)
            });
            let inverse = math::inverse_norm(b, squares, op.norm_eps);
            let bonus = math::sum_over(b, n, lanes, |b, i, l, acc| {
                let w = here(w).load(b, i, l);
                let w = transcendental::sigmoid(b, w);
                let scale = b.float(op.decay_scale as f32, l);
                let w = b.mul(w, scale);
                let decay = transcendental::exp(b, w);
                b.store(decay_at.0, i, decay);

                let a = here(a).load(b, i, l);
                let inverse = b.splat(inverse, l);
                let kk = remove_at.load(b, i, l);
                let kk = b.mul(kk, inverse);
                let replace = b.mul(kk, a);
                b.store(replace_at.0, i, replace);
                let remove = b.unary(rwkvc_ir::kernel::Unary::Neg, kk);
                b.store(remove_at.0, i, remove);

                let one = b.float(1.0, l);
                let (k, k_a) = (here(k).load(b, i, l), weight(k_a).load(b, i, l));
                let less = b.sub(a, one);
                let factor = b.fma(less, k_a, one);
                let k = b.mul(k, factor);
                b.store(key_at.0, i, k);

                let mut value = here(v).load(b, i, l);
                if let Some((first, gate)) = residual {
                    let (first, gate) = (here(first).load(b, i, l), here(gate).load(b, i, l));
                    let d = b.sub(first, value);
                    value = b.fma(d, gate, value);
                }
                b.store(value_at.0, i, value);

                let (r, r_k) = (here(r).load(b, i, l), weight(r_k).load(b, i, l));
                let rk = b.mul(r, k);
                Inst::Fma(rk, r_k, acc)
            });
            let s = Step {
                decay: decay_at.clone(),
                k: key_at.clone(),
                v: value_at.clone(),
                a: remove_at.clone(),
                b: replace_at.clone(),
                r: here(r),
                y: y_at.clone(),
            };
            step(b, Row(state, at(head, n * n)), n, lanes, &s);
            let stats = statistics(b, y_at.0, &y_at.1, n, op.eps, lanes);
            math::over(b, n, lanes, |b, i, l| {
                let y = y_at.load(b, i, l);
                let (ln_weight, ln_bias) = (weight(ln_weight).load(b, i, l), weight(ln_bias).load(b, i, l));
                let y = stats.normalise(b, y, ln_weight, ln_bias);
                let (bonus, v, g) = (b.splat(bonus, l), value_at.load(b, i, l), here(g).load(b, i, l));
                let y = b.fma(bonus, v, y);
                let y = b.binary(Binary::Mul, y, g);
                let Row(out, start) = here(out);
                b.store(out, start + i, y);
            });
        });
    });
    vec![s.finish()]
}
