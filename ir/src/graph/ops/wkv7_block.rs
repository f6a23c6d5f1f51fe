//! `wkv7_block`

use super::{
    Add, Const, Decompose, Exp, Infer, L2Normalize, LayerNorm, Mul, Neg, Op, Reshape, Sigmoid, Sub, Sum,
    Wkv7, Wkv7Block, shapes,
};
use crate::graph::{Dim, Graph, GraphError, TensorType, TypeError, Value};

impl Infer for Wkv7Block {
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        shapes::not_negative("eps", self.eps)?;
        shapes::not_negative("norm_eps", self.norm_eps)?;
        if !self.decay_scale.is_finite() {
            let (found, expected) = (self.decay_scale.to_string(), "a finite number".into());
            return Err(TypeError::Attribute {
                attribute: "decay_scale",
                found,
                expected,
            });
        }
        let expected = if self.value_residual { 14 } else { 12 };
        if operands.len() != expected {
            return Err(TypeError::OperandCount {
                expected: expected.to_string(),
                found: operands.len(),
            });
        }
        let [batch, heads, size, _] = shapes::axes("state", &operands[0])?;
        shapes::has_shape("state", &operands[0], &[batch, heads, size, size])?;
        let [_, time, width] = shapes::axes("r", &operands[1])?;
        let fits = match (heads, size, width) {
            (Dim::Fixed(h), Dim::Fixed(n), Dim::Fixed(c)) => h.checked_mul(n) == Some(c),
            _ => false,
        };
        shapes::ensure(
            fits,
            "r",
            &operands[1],
            format!("rows of the {heads} heads of {size} of `state`"),
        )?;
        let activation = [batch, time, width];
        let names = ["r", "w", "k", "v", "a", "g"];
        for (name, ty) in names
            .iter()
            .zip(&operands[1..7])
            .chain(["v_first", "v_gate"].iter().zip(&operands[12..]))
        {
            shapes::has_shape(name, ty, &activation)?;
        }
        shapes::has_shape("k_k", &operands[7], &[width])?;
        shapes::has_shape("k_a", &operands[8], &[width])?;
        shapes::has_shape("r_k", &operands[9], &[heads, size])?;
        shapes::has_shape("ln_weight", &operands[10], &[width])?;
        shapes::has_shape("ln_bias", &operands[11], &[width])?;
        Ok(vec![
            shapes::f32_of(operands[0].shape.iter().copied()),
            shapes::f32_of(activation),
        ])
    }
}

impl Decompose for Wkv7Block {
    /// The equations of a head: the frontend builds blocks of them, and the fusion looks for them.
    fn expand(&self, graph: &mut Graph, operands: &[Value]) -> Result<Vec<Value>, GraphError> {
        let [state, r, w, k, mut v, a, g, k_k, k_a, r_k, ln_weight, ln_bias] = operands[..12] else {
            unreachable!("the number of operands is known")
        };
        let [_, heads, size, _] = graph.ty(state).shape[..] else {
            unreachable!("state has four axes")
        };
        let channels = graph.ty(r).shape.clone();
        let as_heads = Reshape {
            shape: vec![channels[0], channels[1], heads, size],
        };
        let as_channels = Reshape { shape: channels };
        let mut add = |op: Op, operands: &[Value]| graph.add(op, operands).map(|results| results[0]);

        if let [v_first, v_gate] = operands[12..] {
            let difference = add(Sub {}.into(), &[v_first, v])?;
            let difference = add(Mul {}.into(), &[difference, v_gate])?;
            v = add(Add {}.into(), &[v, difference])?;
        }

        // decay = exp(scale σ(w))
        let decay = add(Sigmoid {}.into(), &[w])?;
        let scale = add(
            Const {
                value: self.decay_scale,
            }
            .into(),
            &[],
        )?;
        let decay = add(Mul {}.into(), &[decay, scale])?;
        let decay = add(Exp {}.into(), &[decay])?;

        // kk = k * k_k, of length 1 in each head; k = k * (1 + (a - 1) * k_a)
        let kk = add(Mul {}.into(), &[k, k_k])?;
        let kk = add(as_heads.clone().into(), &[kk])?;
        let kk = add(L2Normalize { eps: self.norm_eps }.into(), &[kk])?;
        let one = add(Const { value: 1.0 }.into(), &[])?;
        let less = add(Sub {}.into(), &[a, one])?;
        let less = add(Mul {}.into(), &[less, k_a])?;
        let factor = add(Add {}.into(), &[less, one])?;
        let k = add(Mul {}.into(), &[k, factor])?;

        let mut head = |x: Value| add(as_heads.clone().into(), &[x]);
        let (r, decay, k, v, a) = (head(r)?, head(decay)?, head(k)?, head(v)?, head(a)?);
        let remove = add(Neg {}.into(), &[kk])?;
        let replace = add(Mul {}.into(), &[kk, a])?;
        let wkv = graph.add(Wkv7 {}, &[state, r, decay, k, v, remove, replace])?;

        // Group norm, one group a head.
        let mut add = |op: Op, operands: &[Value]| graph.add(op, operands).map(|results| results[0]);
        let group = Reshape {
            shape: vec![heads, size],
        };
        let ln_weight = add(group.clone().into(), &[ln_weight])?;
        let ln_bias = add(group.into(), &[ln_bias])?;
        let y = add(LayerNorm { eps: self.eps }.into(), &[wkv[1], ln_weight, ln_bias])?;

        // The bonus: Σ_j r k r_k of a head, times v.
        let bonus = add(Mul {}.into(), &[r, k])?;
        let bonus = add(Mul {}.into(), &[bonus, r_k])?;
        let bonus = add(Sum {}.into(), &[bonus])?;
        let bonus = add(Mul {}.into(), &[bonus, v])?;
        let y = add(Add {}.into(), &[y, bonus])?;

        let y = add(as_channels.into(), &[y])?;
        let y = add(Mul {}.into(), &[y, g])?;
        Ok(vec![wkv[0], y])
    }
}
