//! A model: its configuration, and its weights under official names with every shape checked.

mod error;
mod refuse;
mod shapes;

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;

use rwkvc_ir::DType;
use rwkvc_ir::graph::eval::{ParamSource, ParamView};
use rwkvc_ir::quantized;
use sha2::{Digest, Sha256};

pub use error::ModelError;

use crate::checkpoint::{Checkpoint, CheckpointFormat, Quantised, Tensor};

/// Epsilon of the layer norms in official files.
pub(crate) const LAYER_NORM_EPS: f64 = 1e-5;

/// Epsilon of the group norm in official files, at every head size.
pub(crate) const GROUP_NORM_EPS: f64 = 64e-5;

/// Sizes and constants of a model, all of them read off the shapes of its tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Blocks.
    pub n_layers: usize,
    /// Width of the residual stream, C.
    pub width: usize,
    /// Heads of a block, H.
    pub n_heads: usize,
    /// Channels of a head, N.
    pub head_size: usize,
    /// Hidden units of the first block's channel mix, F.
    pub ffn: usize,
    /// Rows of the embedding and of the head, V.
    pub vocab: usize,
    /// Added to the variance of layer norms.
    pub layer_norm_eps: f64,
    /// Added to the variance of the group norm of each head.
    pub group_norm_eps: f64,
    /// Whether the embedding is normalised before the first block.
    pub has_ln0: bool,
    /// The rank of DeepEmbed (RWKV-7a), if the model has it.
    pub deep_embed: Option<usize>,
    /// Ranks of the low-rank matrices of each block.
    pub ranks: Vec<Ranks>,
}

/// Ranks of the low-rank matrices of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Ranks {
    /// Of the decay, `w1`.
    pub decay: usize,
    /// Of the in-context learning rate, `a1`.
    pub iclr: usize,
    /// Of the value gate, `v1`; none in the first block.
    pub value: Option<usize>,
    /// Of the gate, `g1`.
    pub gate: usize,
}

/// A weight in official orientation. The bytes are little-endian, and stay in the mapped file.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'m> {
    /// Its official name.
    pub name: &'m str,
    /// How it is stored.
    pub dtype: DType,
    /// Its shape; vectors that are stored as `[1,1,C]` are `[C]`.
    pub shape: &'m [usize],
    /// Its elements, row-major.
    pub bytes: &'m [u8],
    /// Whether these are where the file is mapped, rather than rearranged or decoded.
    pub is_mapped: bool,
}

/// A model whose weights are known to be complete and of matching shapes.
#[derive(Debug)]
pub struct Model {
    name: String,
    format: CheckpointFormat,
    config: Config,
    weights: Vec<Stored>,
    index: HashMap<String, usize>,
    ignored: Vec<String>,
    notes: Vec<String>,
}

/// A tensor and its shape in the model.
#[derive(Debug)]
struct Stored {
    tensor: Tensor,
    shape: Vec<usize>,
}

/// A weight that is not a finite number.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct NotFinite {
    /// The weight.
    pub name: String,
    /// Its first element that is not finite, row-major.
    pub index: usize,
    /// `NaN`, `inf` or `-inf`.
    pub value: String,
    /// How many there are in this weight.
    pub count: usize,
}

impl Model {
    /// Opens a checkpoint of any supported format.
    ///
    /// # Errors
    /// If the file is no checkpoint, is of another RWKV version, or has unknown, missing or wrongly shaped tensors.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let name = path.file_name().map_or_else(
            || path.display().to_string(),
            |n| n.to_string_lossy().into_owned(),
        );
        Self::from_checkpoint(name, Checkpoint::open(path)?)
    }

    /// Checks the tensors of a checkpoint.
    ///
    /// # Errors
    /// If it is of another RWKV version, or has unknown, missing or wrongly shaped tensors.
    pub fn from_checkpoint(name: String, checkpoint: Checkpoint) -> Result<Self, ModelError> {
        refuse::other_versions(checkpoint.tensors())?;
        let shapes::Checked {
            config,
            shapes,
            ignored,
        } = shapes::check(&checkpoint)?;
        let mut weights = vec![];
        let mut index = HashMap::new();
        for (position, shape) in shapes {
            let tensor = checkpoint.tensors()[position].clone();
            index.insert(tensor.name().to_string(), weights.len());
            weights.push(Stored { tensor, shape });
        }
        Ok(Model {
            name,
            format: checkpoint.format(),
            config,
            weights,
            index,
            ignored,
            notes: checkpoint.notes().to_vec(),
        })
    }

    /// A name for people: that of the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The layout of the file.
    pub fn format(&self) -> CheckpointFormat {
        self.format
    }

    /// Its sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Names of tensors that are in the file but never used.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// What a user should know of how the file is read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The tensors in use with their shapes in the model, in the order of the file. Nothing is decoded yet.
    pub(crate) fn stored(&self) -> impl Iterator<Item = (&Tensor, &[usize])> {
        self.weights.iter().map(|w| (&w.tensor, &w.shape[..]))
    }

    /// All weights, in the order of the file.
    pub fn weights(&self) -> impl Iterator<Item = Weight<'_>> {
        self.weights.iter().map(Stored::weight)
    }

    /// A weight by its official name.
    pub fn weight(&self, name: &str) -> Option<Weight<'_>> {
        self.index.get(name).map(|&i| self.weights[i].weight())
    }

    /// The blocks of a weight that is stored in some, row by row.
    pub fn quantised(&self, name: &str) -> Option<&Quantised> {
        let quantised = self
            .index
            .get(name)
            .and_then(|&i| self.weights[i].tensor.quantised());
        quantised.filter(|q| !q.is_transposed())
    }

    /// The matrices that are stored in blocks, and the format that holds these as they are, or with hardly more rounding.
    pub fn groups(&self) -> impl Iterator<Item = (&str, quantized::Format)> {
        self.weights.iter().filter_map(|w| {
            let name = w.tensor.name();
            let format = self.quantised(name)?.format().groups();
            Some((name, format.unwrap_or(quantized::Format::Int8)))
        })
    }

    /// The weights that hold NaN or infinity. Reads all of them.
    pub fn not_finite(&self) -> Vec<NotFinite> {
        self.stored()
            .filter_map(|(tensor, _)| not_finite(tensor))
            .collect()
    }

    /// Ties state files and tunings to a model: SHA-256 of the official name and the shape of each weight in use, in the order of
    /// names, and of some 64 to 127 of its values as f32, evenly spaced (all of them if it has fewer). The layout and the format of
    /// the file do not count where they store the same numbers. Values between the samples do not count either: this tells
    /// models apart, and proves nothing about a file that somebody made to deceive.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let mut sorted: Vec<Weight<'_>> = self.weights().collect();
        sorted.sort_by_key(|w| w.name);
        for w in sorted {
            hash.update(format!("{} {:?}\n", w.name, w.shape));
            // The same numbers in another format are the same model.
            let n = w.bytes.len() / w.dtype.size();
            for i in (0..n).step_by((n / 64).max(1)) {
                hash.update((w.dtype.read(w.bytes, i) as f32).to_le_bytes());
            }
        }
        hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl Stored {
    fn weight(&self) -> Weight<'_> {
        Weight {
            name: self.tensor.name(),
            dtype: self.tensor.dtype(),
            shape: &self.shape,
            bytes: self.tensor.bytes(),
            is_mapped: self.tensor.is_mapped(),
        }
    }
}

impl ParamSource for Model {
    fn param(&self, name: &str) -> Option<ParamView<'_>> {
        self.weight(name).map(|w| ParamView {
            dtype: w.dtype,
            bytes: w.bytes,
        })
    }
}

fn not_finite(tensor: &Tensor) -> Option<NotFinite> {
    let (mut first, mut count, mut start) = (None, 0, 0);
    let Ok(()) = tensor.each_chunk(|values| -> Result<(), Infallible> {
        let mut bad = values.iter().enumerate().filter(|(_, x)| !x.is_finite());
        if let Some((at, value)) = bad.next() {
            first.get_or_insert((start + at, *value));
            count += 1 + bad.count();
        }
        start += values.len();
        Ok(())
    });
    let (index, value) = first?;
    Some(NotFinite {
        name: tensor.name().into(),
        index,
        value: value.to_string(),
        count,
    })
}
