//! What a model contains, for people and for JSON.

use rwkvc_ir::DType;
use serde::Serialize;

use crate::checkpoint::Format;
use crate::model::{Model, Ranks, Weight};

/// Facts about a model.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The file's name.
    pub name: String,
    /// The layout of the file.
    pub file_format: Format,
    /// `RWKV-7` or `RWKV-7a`.
    pub variant: &'static str,
    /// Blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Heads of a block.
    pub n_heads: usize,
    /// Channels of a head.
    pub head_size: usize,
    /// Hidden units of the channel mix.
    pub ffn: usize,
    /// Rows of the embedding and of the head.
    pub vocab: usize,
    /// Ranks of the low-rank matrices of the last block.
    pub ranks: Ranks,
    /// Trained numbers in use.
    pub parameters: u64,
    /// The format of most weights: `bf16`, `f16` or `f32`.
    pub dtype: String,
    /// Parameters by format.
    pub parameters_by_dtype: Vec<(String, u64)>,
    /// Bytes of the weights in use.
    pub weight_bytes: u64,
    /// Weight bytes that a decode step must read: everything but the embedding, of which it reads a row.
    pub bytes_per_token: u64,
    /// Bytes of a state, in f32.
    pub state_bytes: u64,
    /// Tensors in the file that are never used.
    pub ignored: Vec<String>,
    /// The weights, in the order of the file.
    pub tensors: Vec<TensorSummary>,
}

/// Facts about a weight.
#[derive(Clone, Debug, Serialize)]
pub struct TensorSummary {
    /// Its official name.
    pub name: String,
    /// How it is stored.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its size.
    pub bytes: u64,
}

impl Model {
    /// Facts about the model.
    pub fn summary(&self) -> Summary {
        let c = self.config();
        let elements = |w: &Weight<'_>| w.shape.iter().product::<usize>() as u64;
        let by_dtype: Vec<(String, u64)> = [DType::BF16, DType::F16, DType::F32]
            .into_iter()
            .map(|d| {
                (
                    d.name().to_string(),
                    self.weights()
                        .filter(|w| w.dtype == d)
                        .map(|w| elements(&w))
                        .sum(),
                )
            })
            .filter(|(_, n)| *n > 0)
            .collect();
        let dtype = by_dtype
            .iter()
            .max_by_key(|(_, n)| *n)
            .map(|(d, _)| d.clone())
            .unwrap_or_default();
        let weight_bytes: u64 = self.weights().map(|w| w.bytes.len() as u64).sum();
        // A step reads one row of each table that is looked up by token.
        let tables = self
            .weights()
            .filter(|w| w.name == "emb.weight" || w.name.ends_with(".s_emb.weight"));
        let skipped: u64 = tables
            .map(|w| (w.bytes.len() - w.bytes.len() / w.shape[0]) as u64)
            .sum();
        let state = c.n_layers * (2 * c.width + c.width * c.head_size);
        let tensor = |w: Weight<'_>| TensorSummary {
            name: w.name.into(),
            dtype: w.dtype.name().into(),
            shape: w.shape.to_vec(),
            bytes: w.bytes.len() as u64,
        };
        Summary {
            name: self.name().into(),
            file_format: self.format(),
            variant: if c.deep_embed.is_some() {
                "RWKV-7a"
            } else {
                "RWKV-7"
            },
            n_layers: c.n_layers,
            width: c.width,
            n_heads: c.n_heads,
            head_size: c.head_size,
            ffn: c.ffn,
            vocab: c.vocab,
            ranks: c.ranks[c.n_layers - 1],
            parameters: self.weights().map(|w| elements(&w)).sum(),
            dtype,
            parameters_by_dtype: by_dtype,
            weight_bytes,
            bytes_per_token: weight_bytes - skipped,
            state_bytes: 4 * state as u64,
            ignored: self.ignored().to_vec(),
            tensors: self.weights().map(tensor).collect(),
        }
    }
}
