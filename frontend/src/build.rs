//! The RWKV-7 equations, written once: symbolic in batch and time, one graph for decode, prefill and batches.
//!
//! Source: the RWKV-7 paper (arXiv 2503.14456) and the reference code of BlinkDL/RWKV-LM. The letters r w k v a g are
//! the paper's: receptance, decay, key, value, in-context learning rate, gate.

use rwkvc_ir::DType;
use rwkvc_ir::graph::ops::*;
use rwkvc_ir::graph::{Dim, Graph, GraphError, TensorType, Value};

use crate::model::Model;

/// Which logits a graph gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// One row for each token: `[B, T, V]`.
    All,
    /// Only the last token's: `[B, 1, V]`.
    Last,
}

/// `-exp(-0.5)`: the decay is `exp(-exp(-0.5) σ(w))`, between 0.5452 and 1.
const DECAY_SCALE: f64 = -0.606_530_659_712_633_4;

/// The kk of a head is divided by its norm, but by no less than this.
const KK_EPS: f64 = 1e-12;

/// Builds the graph of `model`.
///
/// Inputs: `tokens` i32\[B, T\] and, for each block, its state (`blocks.N.att.x_prev` \[B, C\], `blocks.N.att.wkv`
/// \[B, H, N, N\] as \[value\]\[key\], `blocks.N.ffn.x_prev` \[B, C\]). Outputs: `logits` and the next state under the same
/// names; with `probes`, also the residual stream after each block as `blocks.N`, `[B, T, C]`.
///
/// # Errors
/// If the model has a part that the equations have no place for: a bug of the reader.
pub fn build(model: &Model, logits: Logits, probes: bool) -> Result<Graph, GraphError> {
    let c = model.config();
    let mut n = Net {
        model,
        graph: Graph::new("rwkv7"),
        layer: 0,
    };
    let tokens = n
        .graph
        .add_input("tokens", TensorType::new(DType::I32, [Dim::Batch, Dim::Time]))?;

    let table = n.weight("emb.weight")?;
    let mut x = n.op(Embed {}, &[table, tokens])?;
    if c.has_ln0 {
        x = n.layer_norm(x, "blocks.0.ln0")?;
    }
    let mut v_first = None;
    for layer in 0..c.n_layers {
        n.layer = layer;
        let mixed = n.time_mix(x, &mut v_first)?;
        x = n.op(Add {}, &[x, mixed])?;
        let mixed = n.channel_mix(x, table, tokens)?;
        x = n.op(Add {}, &[x, mixed])?;
        if probes {
            n.graph.set_output(format!("blocks.{layer}"), x);
        }
    }
    if logits == Logits::Last {
        x = n.op(Last {}, &[x])?;
    }
    let x = n.layer_norm(x, "ln_out")?;
    let logits = n.linear(x, "head")?;
    n.graph.set_output("logits", logits);
    Ok(n.graph)
}

/// The tuned value of a part of the state before any token: the name of the weight and a graph with it as its only
/// output, `[1, H, N, N]`. `None` means zeros.
///
/// State tuning of RWKV-7 (RWKV-PEFT) stores `time_state` as \[value\]\[key\], the order of the state itself, so it is taken
/// as it is. Loaders of RWKV-5 and RWKV-6 transpose theirs, because the state of those is \[key\]\[value\].
///
/// # Errors
/// If the tuned state does not have the shape of the state.
pub fn initial_state(model: &Model, state: &str) -> Result<Option<(String, Graph)>, GraphError> {
    let Some(block) = state.strip_suffix(".wkv") else {
        return Ok(None);
    };
    let name = format!("{block}.time_state");
    if model.weight(&name).is_none() {
        return Ok(None);
    }
    let mut n = Net {
        model,
        graph: Graph::new("initial_state"),
        layer: 0,
    };
    let weight = n.weight(&name)?;
    let c = model.config();
    let shape = [1, c.n_heads, c.head_size, c.head_size].map(Dim::Fixed).to_vec();
    let value = n.op(Reshape { shape }, &[weight])?;
    n.graph.set_output("value", value);
    Ok(Some((name, n.graph)))
}

struct Net<'m> {
    model: &'m Model,
    graph: Graph,
    layer: usize,
}

impl Net<'_> {
    /// Adds an op with one result.
    fn op(&mut self, op: impl Into<Op>, operands: &[Value]) -> Result<Value, GraphError> {
        Ok(self.ops(op, operands)?[0])
    }

    fn ops(&mut self, op: impl Into<Op>, operands: &[Value]) -> Result<Vec<Value>, GraphError> {
        self.graph.add(op.into(), operands)
    }

    fn constant(&mut self, value: f64) -> Result<Value, GraphError> {
        self.op(Const { value }, &[])
    }

    /// A weight by its official name.
    fn weight(&mut self, name: &str) -> Result<Value, GraphError> {
        let weight = self
            .model
            .weight(name)
            .expect("the model has checked its weights");
        let ty = TensorType::new(weight.dtype, weight.shape.iter().map(|&d| Dim::Fixed(d)));
        self.graph.add_param(name, ty)
    }

    /// The name of a weight of this block.
    fn name(&self, part: &str) -> String {
        format!("blocks.{}.{part}", self.layer)
    }

    fn of_block(&mut self, part: &str) -> Result<Value, GraphError> {
        self.weight(&self.name(part))
    }

    fn state(&mut self, part: &str, shape: &[usize]) -> Result<Value, GraphError> {
        let dims = std::iter::once(Dim::Batch).chain(shape.iter().map(|&d| Dim::Fixed(d)));
        self.graph
            .add_input(self.name(part), TensorType::new(DType::F32, dims))
    }

    fn layer_norm(&mut self, x: Value, name: &str) -> Result<Value, GraphError> {
        let (weight, bias) = (
            self.weight(&format!("{name}.weight"))?,
            self.weight(&format!("{name}.bias"))?,
        );
        let eps = self.model.config().layer_norm_eps;
        self.op(LayerNorm { eps }, &[x, weight, bias])
    }

    /// `W x`, plus the bias that some research models have.
    fn linear(&mut self, x: Value, name: &str) -> Result<Value, GraphError> {
        let w = self.weight(&format!("{name}.weight"))?;
        let y = self.op(Linear {}, &[x, w])?;
        let bias = format!("{name}.bias");
        if self.model.weight(&bias).is_none() {
            return Ok(y);
        }
        let bias = self.weight(&bias)?;
        self.op(Add {}, &[y, bias])
    }

    /// `x w` for a matrix stored [in, out], as the low-rank ones are.
    fn times(&mut self, x: Value, name: &str) -> Result<Value, GraphError> {
        let w = self.of_block(name)?;
        let w = self.op(Transpose {}, &[w])?;
        self.op(Linear {}, &[x, w])
    }

    /// `x0 + inner(x x1) x2`, the low-rank form of decay, learning rate and value gate.
    fn low_rank(&mut self, x: Value, letter: char, inner: Option<Op>) -> Result<Value, GraphError> {
        let mut y = self.times(x, &format!("att.{letter}1"))?;
        if let Some(inner) = inner {
            y = self.op(inner, &[y])?;
        }
        let y = self.times(y, &format!("att.{letter}2"))?;
        let bias = self.of_block(&format!("att.{letter}0"))?;
        self.op(Add {}, &[y, bias])
    }

    /// Interpolates between this token and the one before: `now + (before - now) * mix`.
    fn mix(&mut self, now: Value, difference: Value, name: &str) -> Result<Value, GraphError> {
        let mix = self.of_block(name)?;
        let part = self.op(Mul {}, &[difference, mix])?;
        self.op(Add {}, &[now, part])
    }

    /// [B, T, C] as heads, [B, T, H, N].
    fn heads(&mut self, x: Value) -> Result<Value, GraphError> {
        let c = self.model.config();
        let shape = vec![
            Dim::Batch,
            Dim::Time,
            Dim::Fixed(c.n_heads),
            Dim::Fixed(c.head_size),
        ];
        self.op(Reshape { shape }, &[x])
    }

    /// [B, T, H, N] as channels, [B, T, C].
    fn channels(&mut self, x: Value) -> Result<Value, GraphError> {
        let c = self.model.config();
        self.op(
            Reshape {
                shape: vec![Dim::Batch, Dim::Time, Dim::Fixed(c.width)],
            },
            &[x],
        )
    }

    fn time_mix(&mut self, x: Value, v_first: &mut Option<Value>) -> Result<Value, GraphError> {
        let config = self.model.config();
        let (width, n_heads, head_size) = (config.width, config.n_heads, config.head_size);
        let group_eps = config.group_norm_eps;

        let ln1 = self.name("ln1");
        let xn = self.layer_norm(x, &ln1)?;
        let prev = self.state("att.x_prev", &[width])?;
        let shifted = self.ops(TokenShift {}, &[xn, prev])?;
        self.graph.set_output(self.name("att.x_prev"), shifted[1]);
        let difference = self.op(Sub {}, &[shifted[0], xn])?;

        let x_r = self.mix(xn, difference, "att.x_r")?;
        let x_w = self.mix(xn, difference, "att.x_w")?;
        let x_k = self.mix(xn, difference, "att.x_k")?;
        let x_v = self.mix(xn, difference, "att.x_v")?;
        let x_a = self.mix(xn, difference, "att.x_a")?;
        let x_g = self.mix(xn, difference, "att.x_g")?;

        let r = self.linear(x_r, &self.name("att.receptance"))?;
        let k = self.linear(x_k, &self.name("att.key"))?;
        let mut v = self.linear(x_v, &self.name("att.value"))?;
        let w = self.low_rank(x_w, 'w', Some(Tanh {}.into()))?;
        let a = self.low_rank(x_a, 'a', None)?;
        let a = self.op(Sigmoid {}, &[a])?;
        let g = self.times(x_g, "att.g1")?;
        let g = self.op(Sigmoid {}, &[g])?;
        let g = self.times(g, "att.g2")?;

        match *v_first {
            None => *v_first = Some(v),
            Some(first) => {
                let gate = self.low_rank(x_v, 'v', None)?;
                let gate = self.op(Sigmoid {}, &[gate])?;
                let d = self.op(Sub {}, &[first, v])?;
                let d = self.op(Mul {}, &[d, gate])?;
                v = self.op(Add {}, &[v, d])?;
            }
        }

        // decay = exp(-exp(-0.5) σ(w))
        let decay = self.op(Sigmoid {}, &[w])?;
        let scale = self.constant(DECAY_SCALE)?;
        let decay = self.op(Mul {}, &[decay, scale])?;
        let decay = self.op(Exp {}, &[decay])?;

        // kk = k * k_k, of length 1 in each head; k = k * (1 + (a - 1) * k_a)
        let k_k = self.of_block("att.k_k")?;
        let kk = self.op(Mul {}, &[k, k_k])?;
        let kk = self.heads(kk)?;
        let kk = self.op(L2Normalize { eps: KK_EPS }, &[kk])?;
        let one = self.constant(1.0)?;
        let k_a = self.of_block("att.k_a")?;
        let less = self.op(Sub {}, &[a, one])?;
        let less = self.op(Mul {}, &[less, k_a])?;
        let factor = self.op(Add {}, &[less, one])?;
        let k = self.op(Mul {}, &[k, factor])?;

        let [r, decay, k, v, a] = [r, decay, k, v, a].map(|x| self.heads(x));
        let (r, decay, k, v, a) = (r?, decay?, k?, v?, a?);
        let remove = self.op(Neg {}, &[kk])?;
        let replace = self.op(Mul {}, &[kk, a])?;
        let state = self.state("att.wkv", &[n_heads, head_size, head_size])?;
        let wkv = self.ops(Wkv7 {}, &[state, r, decay, k, v, remove, replace])?;
        self.graph.set_output(self.name("att.wkv"), wkv[0]);

        // Group norm, one group a head.
        let shape = vec![Dim::Fixed(n_heads), Dim::Fixed(head_size)];
        let ln_weight = self.of_block("att.ln_x.weight")?;
        let ln_weight = self.op(Reshape { shape: shape.clone() }, &[ln_weight])?;
        let ln_bias = self.of_block("att.ln_x.bias")?;
        let ln_bias = self.op(Reshape { shape }, &[ln_bias])?;
        let y = self.op(LayerNorm { eps: group_eps }, &[wkv[1], ln_weight, ln_bias])?;

        // The bonus: Σ_j r k r_k of a head, times v.
        let r_k = self.of_block("att.r_k")?;
        let bonus = self.op(Mul {}, &[r, k])?;
        let bonus = self.op(Mul {}, &[bonus, r_k])?;
        let bonus = self.op(Sum {}, &[bonus])?;
        let bonus = self.op(Mul {}, &[bonus, v])?;
        let y = self.op(Add {}, &[y, bonus])?;

        let y = self.channels(y)?;
        let y = self.op(Mul {}, &[y, g])?;
        self.linear(y, &self.name("att.output"))
    }

    fn channel_mix(&mut self, x: Value, table: Value, tokens: Value) -> Result<Value, GraphError> {
        let width = self.model.config().width;
        let ln2 = self.name("ln2");
        let xn = self.layer_norm(x, &ln2)?;
        let prev = self.state("ffn.x_prev", &[width])?;
        let shifted = self.ops(TokenShift {}, &[xn, prev])?;
        self.graph.set_output(self.name("ffn.x_prev"), shifted[1]);
        let difference = self.op(Sub {}, &[shifted[0], xn])?;
        let x_k = self.mix(xn, difference, "ffn.x_k")?;
        let k = self.linear(x_k, &self.name("ffn.key"))?;
        let k = self.op(Relu {}, &[k])?;
        let mut k = self.op(Mul {}, &[k, k])?;
        if let Some(rank) = self.model.config().deep_embed {
            let gate = self.deep_embed(xn, table, tokens, rank)?;
            k = self.op(Mul {}, &[k, gate])?;
        }
        self.linear(k, &self.name("ffn.value"))
    }

    /// RWKV-7a: `((xn s1) E) s2 + s0`, where `E` is the token's own [R, R] matrix:
    /// its row of `s_emb + LN0(emb) s_emb_xᵀ`.
    fn deep_embed(
        &mut self,
        xn: Value,
        table: Value,
        tokens: Value,
        rank: usize,
    ) -> Result<Value, GraphError> {
        let normed = if self.model.config().has_ln0 {
            self.layer_norm(table, "blocks.0.ln0")?
        } else {
            table
        };
        let own = self.linear(normed, &self.name("ffn.s_emb_x"))?;
        let own_table = self.of_block("ffn.s_emb.weight")?;
        let own = self.op(Add {}, &[own_table, own])?;
        let own = self.op(Embed {}, &[own, tokens])?;
        let shape = vec![Dim::Batch, Dim::Time, Dim::Fixed(rank), Dim::Fixed(rank)];
        let own = self.op(Reshape { shape }, &[own])?;
        let y = self.times(xn, "ffn.s1")?;
        let y = self.op(Contract {}, &[y, own])?;
        let y = self.times(y, "ffn.s2")?;
        let bias = self.of_block("ffn.s0")?;
        self.op(Add {}, &[y, bias])
    }
}
