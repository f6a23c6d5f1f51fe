//! The RWKV-7 equations, written once: symbolic in batch and time, one graph for decode, prefill and batches.
//!
//! What surrounds the recurrence of a head, and the token shift, stand in the ops `wkv7_block` and `shift_mix`: a graph starts with
//! what these decompose into, so a fusion finds by definition what was built.
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

    /// The interpolations of this token and the one before, by these weights, and the next value of the state `prev`.
    fn shift_mix<const N: usize>(
        &mut self,
        x: Value,
        prev: &str,
        mixes: [&str; N],
    ) -> Result<[Value; N], GraphError> {
        let width = self.model.config().width;
        let mut operands = vec![x, self.state(prev, &[width])?];
        for mix in mixes {
            operands.push(self.of_block(mix)?);
        }
        let results = ShiftMix {}.decompose(&mut self.graph, &operands)?;
        self.graph.set_output(self.name(prev), results[N]);
        Ok(std::array::from_fn(|i| results[i]))
    }

    fn time_mix(&mut self, x: Value, v_first: &mut Option<Value>) -> Result<Value, GraphError> {
        let config = self.model.config();
        let (n_heads, head_size) = (config.n_heads, config.head_size);
        let eps = config.group_norm_eps;

        let ln1 = self.name("ln1");
        let xn = self.layer_norm(x, &ln1)?;
        let mixes = ["att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a", "att.x_g"];
        let [x_r, x_w, x_k, x_v, x_a, x_g] = self.shift_mix(xn, "att.x_prev", mixes)?;

        let r = self.linear(x_r, &self.name("att.receptance"))?;
        let k = self.linear(x_k, &self.name("att.key"))?;
        let v = self.linear(x_v, &self.name("att.value"))?;
        let w = self.low_rank(x_w, 'w', Some(Tanh {}.into()))?;
        let a = self.low_rank(x_a, 'a', None)?;
        let a = self.op(Sigmoid {}, &[a])?;
        let g = self.times(x_g, "att.g1")?;
        let g = self.op(Sigmoid {}, &[g])?;
        let g = self.times(g, "att.g2")?;
        let mut value_residual = vec![];
        match *v_first {
            None => *v_first = Some(v),
            Some(first) => {
                let gate = self.low_rank(x_v, 'v', None)?;
                value_residual = vec![first, self.op(Sigmoid {}, &[gate])?];
            }
        }

        let state = self.state("att.wkv", &[n_heads, head_size, head_size])?;
        let mut operands = vec![state, r, w, k, v, a, g];
        for part in [
            "att.k_k",
            "att.k_a",
            "att.r_k",
            "att.ln_x.weight",
            "att.ln_x.bias",
        ] {
            operands.push(self.of_block(part)?);
        }
        let block = Wkv7Block {
            eps,
            norm_eps: KK_EPS,
            decay_scale: DECAY_SCALE,
            value_residual: !value_residual.is_empty(),
        };
        operands.extend(value_residual);
        let [next, y] = block.decompose(&mut self.graph, &operands)?[..] else {
            unreachable!("the op has two results")
        };
        self.graph.set_output(self.name("att.wkv"), next);
        self.linear(y, &self.name("att.output"))
    }

    fn channel_mix(&mut self, x: Value, table: Value, tokens: Value) -> Result<Value, GraphError> {
        let ln2 = self.name("ln2");
        let xn = self.layer_norm(x, &ln2)?;
        let [x_k] = self.shift_mix(xn, "ffn.x_prev", ["ffn.x_k"])?;
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
