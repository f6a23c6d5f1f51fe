//! What a model contains, for people and for JSON.

use std::collections::BTreeMap;

use rwkvc_ir::DType;
use serde::Serialize;

use crate::checkpoint::{CheckpointFormat, Tensor};
use crate::model::{Model, Ranks};

/// Facts about a model.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The file's name.
    pub name: String,
    /// The layout of the file.
    pub file_format: CheckpointFormat,
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
    /// Parameters by format, decoded if they are quantised.
    pub parameters_by_dtype: Vec<(String, u64)>,
    /// Parameters by how the file stores them: `q8_0` and the like where they are quantised.
    pub parameters_by_storage: BTreeMap<&'static str, u64>,
    /// Bytes of the weights in use, as the file stores them.
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
    /// Its format, decoded if it is quantised.
    pub dtype: String,
    /// How the file stores it.
    pub storage: &'static str,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its size in the file.
    pub bytes: u64,
}

impl Model {
    /// Facts about the model.
    pub fn summary(&self) -> Summary {
        let c = self.config();
        let tensors: Vec<TensorSummary> = self.stored().map(tensor).collect();
        let elements = |t: &TensorSummary| t.shape.iter().product::<usize>() as u64;
        let by_dtype: Vec<(String, u64)> = [DType::BF16, DType::F16, DType::F32]
            .into_iter()
            .map(|d| {
                let of_this = tensors.iter().filter(|t| t.dtype == d.name());
                (d.name().to_string(), of_this.map(elements).sum())
            })
            .filter(|(_, n)| *n > 0)
            .collect();
        let mut by_storage = BTreeMap::new();
        for t in &tensors {
            *by_storage.entry(t.storage).or_insert(0) += elements(t);
        }
        let dtype = by_dtype
            .iter()
            .max_by_key(|(_, n)| *n)
            .map(|(d, _)| d.clone())
            .unwrap_or_default();
        let weight_bytes: u64 = tensors.iter().map(|t| t.bytes).sum();
        // A step reads one row of each table that is looked up by token.
        let skipped: u64 = tensors
            .iter()
            .filter(|t| t.name == "emb.weight" || t.name.ends_with(".s_emb.weight"))
            .map(|t| t.bytes - t.bytes / t.shape[0] as u64)
            .sum();
        let state = c.n_layers * (2 * c.width + c.width * c.head_size);
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
            parameters: tensors.iter().map(elements).sum(),
            dtype,
            parameters_by_dtype: by_dtype,
            parameters_by_storage: by_storage,
            weight_bytes,
            bytes_per_token: weight_bytes - skipped,
            state_bytes: 4 * state as u64,
            ignored: self.ignored().to_vec(),
            tensors,
        }
    }
}

/// Facts about a tensor and its shape in the model.
fn tensor((tensor, shape): (&Tensor, &[usize])) -> TensorSummary {
    let dtype = tensor.dtype();
    TensorSummary {
        name: tensor.name().into(),
        dtype: dtype.name().into(),
        storage: tensor.storage().name(),
        shape: shape.to_vec(),
        bytes: match tensor.quantised() {
            Some(quantised) => quantised.blocks().len() as u64,
            None => (shape.iter().product::<usize>() * dtype.size()) as u64,
        },
    }
}
