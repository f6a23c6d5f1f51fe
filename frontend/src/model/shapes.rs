//! Every tensor, its shape, and where that shape comes from.

use std::collections::HashMap;

use super::{Config, GROUP_NORM_EPS, LAYER_NORM_EPS, ModelError, Ranks};
use crate::checkpoint::{Checkpoint, Tensor};

/// What a checkpoint turned out to be.
pub(super) struct Checked {
    pub(super) config: Config,
    /// The used tensors, by position in the checkpoint, with their shapes in the model.
    pub(super) shapes: Vec<(usize, Vec<usize>)>,
    pub(super) ignored: Vec<String>,
}

/// Checks all tensors of a checkpoint.
pub(super) fn check(checkpoint: &Checkpoint) -> Result<Checked, ModelError> {
    let mut tensors = Tensors::new(checkpoint.tensors())?;
    if !tensors.has("emb.weight") {
        let first = checkpoint.tensors().first().map_or("nothing", |t| t.name());
        let reason = format!(": is this an RWKV-7 model? The file begins with `{first}`");
        return Err(ModelError::Missing {
            name: "emb.weight".into(),
            reason,
        });
    }
    let [vocab, width] = tensors.matrix("emb.weight", "[V, C]")?;
    tensors.width = width;
    let n_layers = tensors.n_layers();
    let [n_heads, head_size] = tensors.matrix("blocks.0.att.r_k", "[H, N]")?;
    if n_heads.checked_mul(head_size) != Some(width) {
        return Err(ModelError::Shape {
            name: "blocks.0.att.r_k".into(),
            found: vec![n_heads, head_size],
            expected: format!("[H, N] with H * N = {width}"),
            reason: "the width comes from `emb.weight`".into(),
        });
    }
    let sizes = Sizes {
        vocab,
        width,
        n_heads,
        head_size,
    };
    let has_ln0 = tensors.has("blocks.0.ln0.weight") || tensors.has("blocks.0.ln0.bias");
    if has_ln0 {
        tensors.norm("blocks.0.ln0", width)?;
    }
    let mut deep_embed = None;
    let mut ranks = vec![];
    let mut ffn = 0;
    for layer in 0..n_layers {
        tensors.expect_block(layer, n_layers)?;
        ranks.push(time_mix(&mut tensors, layer, &sizes)?);
        let (units, rank) = channel_mix(&mut tensors, layer, &sizes)?;
        if layer == 0 {
            (ffn, deep_embed) = (units, rank);
        } else if rank != deep_embed {
            return Err(tensors.deep_embed_error(layer, deep_embed, rank));
        }
    }
    tensors.norm("ln_out", width)?;
    tensors.projection("head", [vocab, width], "`emb.weight`")?;
    let (shapes, ignored) = tensors.finish()?;
    let config = Config {
        n_layers,
        width,
        n_heads,
        head_size,
        ffn,
        vocab,
        layer_norm_eps: checkpoint.layer_norm_eps().unwrap_or(LAYER_NORM_EPS),
        group_norm_eps: checkpoint.group_norm_eps().unwrap_or(GROUP_NORM_EPS),
        has_ln0,
        deep_embed,
        ranks,
    };
    Ok(Checked {
        config,
        shapes,
        ignored,
    })
}

struct Sizes {
    vocab: usize,
    width: usize,
    n_heads: usize,
    head_size: usize,
}

fn time_mix(tensors: &mut Tensors<'_>, layer: usize, s: &Sizes) -> Result<Ranks, ModelError> {
    let name = |part: &str| format!("blocks.{layer}.att.{part}");
    let width = s.width;
    tensors.norm(&format!("blocks.{layer}.ln1"), width)?;
    for letter in ["r", "w", "k", "v", "a", "g"] {
        tensors.vector(&name(&format!("x_{letter}")), width)?;
    }
    for part in ["receptance", "key", "value", "output"] {
        tensors.projection(&name(part), [width, width], "`emb.weight`")?;
    }
    for part in ["k_k", "k_a"] {
        tensors.vector(&name(part), width)?;
    }
    tensors.exact(
        &name("r_k"),
        &[s.n_heads, s.head_size],
        "heads come from `blocks.0.att.r_k`",
    )?;
    tensors.norm(&name("ln_x"), width)?;
    let state = name("time_state");
    if tensors.has(&state) {
        let shape = [s.n_heads, s.head_size, s.head_size];
        tensors.exact(&state, &shape, "heads come from `blocks.0.att.r_k`")?;
    }
    let mut low_rank = |letter: char, biased: bool| {
        if biased {
            tensors.vector(&name(&format!("{letter}0")), width)?;
        }
        let first = name(&format!("{letter}1"));
        let [inputs, rank] = tensors.matrix(&first, "[C, rank]")?;
        if inputs != width {
            return Err(ModelError::Shape {
                name: first,
                found: vec![inputs, rank],
                expected: format!("[{width}, rank]"),
                reason: "the width comes from `emb.weight`".into(),
            });
        }
        let reason = format!("the rank comes from `{first}`");
        tensors.exact(&name(&format!("{letter}2")), &[rank, width], &reason)?;
        Ok(rank)
    };
    let (decay, iclr) = (low_rank('w', true)?, low_rank('a', true)?);
    let gate = low_rank('g', false)?;
    // The first block's value is the one that the others mix in: it mixes nothing in itself.
    let value = if layer > 0 {
        Some(low_rank('v', true)?)
    } else {
        None
    };
    if layer == 0 {
        for part in ["v0", "v1", "v2"] {
            tensors.ignore(&name(part));
        }
    }
    Ok(Ranks {
        decay,
        iclr,
        value,
        gate,
    })
}

/// Hidden units, and the rank of DeepEmbed.
fn channel_mix(
    tensors: &mut Tensors<'_>,
    layer: usize,
    s: &Sizes,
) -> Result<(usize, Option<usize>), ModelError> {
    let name = |part: &str| format!("blocks.{layer}.ffn.{part}");
    let width = s.width;
    tensors.norm(&format!("blocks.{layer}.ln2"), width)?;
    tensors.vector(&name("x_k"), width)?;
    let key = name("key.weight");
    let [units, _] = tensors.matrix(&key, "[F, C]")?;
    tensors.projection(&name("key"), [units, width], "`emb.weight`")?;
    tensors.projection(&name("value"), [width, units], &format!("`{key}`"))?;
    if !tensors.has(&name("s_emb.weight")) {
        return Ok((units, None));
    }
    let first = name("s1");
    let [_, rank] = tensors.matrix(&first, "[C, R]")?;
    let reason = format!("the rank comes from `{first}`");
    tensors.exact(&first, &[width, rank], "the width comes from `emb.weight`")?;
    let square = rank.saturating_mul(rank);
    tensors.exact(&name("s_emb.weight"), &[s.vocab, square], &reason)?;
    tensors.exact(&name("s_emb_x.weight"), &[square, width], &reason)?;
    tensors.exact(&name("s2"), &[rank, units], &reason)?;
    tensors.vector(&name("s0"), units)?;
    Ok((units, Some(rank)))
}

/// The tensors of a checkpoint, ticked off one by one.
struct Tensors<'c> {
    all: &'c [Tensor],
    index: HashMap<&'c str, usize>,
    used: Vec<Option<Vec<usize>>>,
    ignored: Vec<bool>,
    width: usize,
}

impl<'c> Tensors<'c> {
    fn new(all: &'c [Tensor]) -> Result<Self, ModelError> {
        let mut index = HashMap::new();
        for (i, tensor) in all.iter().enumerate() {
            if index.insert(tensor.name(), i).is_some() {
                return Err(ModelError::Twice {
                    name: tensor.name().into(),
                });
            }
        }
        Ok(Tensors {
            all,
            index,
            used: vec![None; all.len()],
            ignored: vec![false; all.len()],
            width: 0,
        })
    }

    fn has(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// Numbers of the blocks that have any tensor.
    fn blocks(&self) -> impl Iterator<Item = usize> {
        self.all
            .iter()
            .filter_map(|t| t.name().strip_prefix("blocks.")?.split_once('.')?.0.parse().ok())
    }

    /// As many as the last block says.
    fn n_layers(&self) -> usize {
        self.blocks().max().map_or(1, |n| n.saturating_add(1))
    }

    /// An error if a block in the middle is missing.
    fn expect_block(&self, layer: usize, n_layers: usize) -> Result<(), ModelError> {
        let name = format!("blocks.{layer}.ln1.weight");
        if self.has(&name) {
            return Ok(());
        }
        let reason = match n_layers - 1 {
            last if last > layer => format!(": there is a block {last}, so blocks 0 to {last} are expected"),
            _ => String::new(),
        };
        Err(ModelError::Missing { name, reason })
    }

    /// Why the DeepEmbed of a block does not go with that of the first.
    fn deep_embed_error(&self, layer: usize, first: Option<usize>, found: Option<usize>) -> ModelError {
        let name = |layer: usize| format!("blocks.{layer}.ffn.s_emb.weight");
        let missing = |layer: usize, there: usize| ModelError::Missing {
            name: name(layer),
            reason: format!(": block {there} has DeepEmbed, so all blocks must"),
        };
        match (first, found) {
            (None, _) => missing(0, layer),
            (_, None) => missing(layer, 0),
            (Some(first), Some(found)) => ModelError::Shape {
                name: format!("blocks.{layer}.ffn.s1"),
                found: vec![self.width, found],
                expected: format!("[{}, {first}]", self.width),
                reason: "the rank comes from `blocks.0.ffn.s1`".into(),
            },
        }
    }

    fn get(&self, name: &str) -> Result<(usize, &'c Tensor), ModelError> {
        let missing = || ModelError::Missing {
            name: name.into(),
            reason: String::new(),
        };
        let &i = self.index.get(name).ok_or_else(missing)?;
        Ok((i, &self.all[i]))
    }

    fn shape_error(tensor: &Tensor, expected: String, reason: &str) -> ModelError {
        let (name, found) = (tensor.name().into(), tensor.shape().to_vec());
        ModelError::Shape {
            name,
            found,
            expected,
            reason: reason.into(),
        }
    }

    /// A matrix whose sizes are not known yet.
    fn matrix(&mut self, name: &str, expected: &str) -> Result<[usize; 2], ModelError> {
        let (i, tensor) = self.get(name)?;
        match tensor.shape()[..] {
            [rows, columns] if rows > 0 && columns > 0 => {
                self.used[i] = Some(vec![rows, columns]);
                Ok([rows, columns])
            }
            _ => Err(Self::shape_error(
                tensor,
                expected.into(),
                "it must be a matrix with elements",
            )),
        }
    }

    /// A tensor of exactly this shape.
    fn exact(&mut self, name: &str, shape: &[usize], reason: &str) -> Result<(), ModelError> {
        let (i, tensor) = self.get(name)?;
        if tensor.shape() != shape {
            return Err(Self::shape_error(tensor, format!("{shape:?}"), reason));
        }
        self.used[i] = Some(shape.to_vec());
        Ok(())
    }

    /// A vector, perhaps stored as `[1, 1, n]`.
    fn vector(&mut self, name: &str, n: usize) -> Result<(), ModelError> {
        let (i, tensor) = self.get(name)?;
        let (last, leading) = tensor.shape().split_last().unwrap_or((&0, &[]));
        if *last != n || leading.iter().any(|&d| d != 1) {
            let reason = format!("a vector over {n} channels");
            return Err(Self::shape_error(
                tensor,
                format!("[{n}] or [1, 1, {n}]"),
                &reason,
            ));
        }
        self.used[i] = Some(vec![n]);
        Ok(())
    }

    fn norm(&mut self, name: &str, n: usize) -> Result<(), ModelError> {
        self.vector(&format!("{name}.weight"), n)?;
        self.vector(&format!("{name}.bias"), n)
    }

    /// A matrix and the bias that some research models have.
    fn projection(&mut self, name: &str, shape: [usize; 2], source: &str) -> Result<(), ModelError> {
        self.exact(
            &format!("{name}.weight"),
            &shape,
            &format!("its sizes come from {source}"),
        )?;
        let bias = format!("{name}.bias");
        if self.has(&bias) {
            self.vector(&bias, shape[0])
        } else {
            Ok(())
        }
    }

    /// A tensor that may be there and is never used.
    fn ignore(&mut self, name: &str) {
        if let Some(&i) = self.index.get(name) {
            self.ignored[i] = true;
        }
    }

    /// The used tensors and the ignored ones; an error if any is left.
    #[expect(clippy::type_complexity, reason = "two lists")]
    fn finish(self) -> Result<(Vec<(usize, Vec<usize>)>, Vec<String>), ModelError> {
        let (mut shapes, mut ignored, mut unknown) = (vec![], vec![], vec![]);
        for (i, used) in self.used.into_iter().enumerate() {
            let name = || self.all[i].name().to_string();
            match used {
                Some(shape) => shapes.push((i, shape)),
                None if self.ignored[i] => ignored.push(name()),
                None => unknown.push(name()),
            }
        }
        if unknown.is_empty() {
            Ok((shapes, ignored))
        } else {
            Err(ModelError::Unknown { names: unknown })
        }
    }
}
