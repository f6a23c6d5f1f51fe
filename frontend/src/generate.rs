//! Checkpoints with random, well-scaled weights, at any size: for measuring speed and for tests.
//!
//! The distributions keep every path of the network alive: no low-rank matrix is zero, no norm is the identity.

use std::io::Write;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rwkvc_ir::DType;
use sha2::{Digest, Sha256};

use crate::model::{Config, GROUP_NORM_EPS, LAYER_NORM_EPS, Ranks};
use crate::write::{Entry, OutputLayout, Source, WriteError, write};

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// Blocks.
    pub n_layers: usize,
    /// Width; a multiple of the head size.
    pub width: usize,
    /// Channels of a head.
    pub head_size: usize,
    /// Hidden units of the channel mix.
    pub ffn: usize,
    /// Vocabulary rows.
    pub vocab: usize,
    /// Ranks of decay, in-context learning rate, value gate and gate.
    pub ranks: [usize; 4],
    /// How the weights are stored.
    pub dtype: DType,
    /// Equal seeds give equal files.
    pub seed: u64,
    /// Whether the first block has the value gate that it never uses, as older files do.
    pub layer0_value_gate: bool,
    /// Whether the embedding is normalised before the first block.
    pub has_ln0: bool,
    /// Roughly this share of the channel mix's activations is zero; about half if none is asked for.
    pub zero_share: Option<f32>,
}

/// Layers, width, ranks of the published sizes.
const PRESETS: [(&str, usize, usize, [usize; 4]); 5] = [
    ("0.1b", 12, 768, [64, 64, 32, 128]),
    ("0.4b", 24, 1024, [64, 64, 32, 128]),
    ("1.5b", 24, 2048, [96, 96, 64, 256]),
    ("2.9b", 32, 2560, [96, 96, 64, 320]),
    ("7.2b", 32, 4096, [128, 128, 96, 480]),
];

impl GenerateOptions {
    /// Names of the published sizes.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|p| p.0)
    }

    /// A published size: bf16, World vocabulary.
    pub fn preset(name: &str) -> Option<Self> {
        let &(_, n_layers, width, ranks) = PRESETS.iter().find(|p| p.0 == name)?;
        Some(GenerateOptions {
            n_layers,
            width,
            head_size: 64,
            ffn: 4 * width,
            vocab: 65536,
            ranks,
            dtype: DType::BF16,
            seed: 1,
            layer0_value_gate: true,
            has_ln0: true,
            zero_share: None,
        })
    }
}

/// Why nothing was generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The sizes do not make a model.
    #[error("{0}")]
    Options(String),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// How the elements of a tensor are drawn.
enum Fill {
    Normal {
        mean: f32,
        std: f32,
    },
    /// A value for each position of the last axis, plus noise.
    Channels {
        value: Box<dyn Fn(usize) -> f32>,
        std: f32,
    },
}

struct Spec {
    name: String,
    shape: Vec<usize>,
    fill: Fill,
}

/// Writes a `.safetensors` file with official names, tensor after tensor: at no time is more than a few megabytes in
/// memory. `progress` gets the bytes written and the total.
///
/// # Errors
/// If the sizes do not make a model, or the file cannot be written.
pub fn generate(
    options: &GenerateOptions,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), GenerateError> {
    let random = Random::new(options)?;
    Ok(write(&random, &OutputLayout::Safetensors, None, out, progress)?)
}

/// The tensors of a random model, drawn when they are asked for.
pub struct Random {
    options: GenerateOptions,
    specs: Vec<Spec>,
}

impl Random {
    /// A model of these sizes.
    ///
    /// # Errors
    /// If the sizes do not make a model.
    pub fn new(options: &GenerateOptions) -> Result<Self, GenerateError> {
        check(options)?;
        Ok(Random {
            options: options.clone(),
            specs: specs(options),
        })
    }
}

impl Source for Random {
    fn config(&self) -> Config {
        let o = &self.options;
        let [decay, iclr, value, gate] = o.ranks;
        let ranks = |layer| Ranks {
            decay,
            iclr,
            value: (layer > 0).then_some(value),
            gate,
        };
        Config {
            n_layers: o.n_layers,
            width: o.width,
            n_heads: o.width / o.head_size,
            head_size: o.head_size,
            ffn: o.ffn,
            vocab: o.vocab,
            layer_norm_eps: LAYER_NORM_EPS,
            group_norm_eps: GROUP_NORM_EPS,
            has_ln0: o.has_ln0,
            deep_embed: None,
            ranks: (0..o.n_layers).map(ranks).collect(),
        }
    }

    fn entries(&self) -> Vec<Entry> {
        let entry = |s: &Spec| Entry {
            name: s.name.clone(),
            shape: s.shape.clone(),
            dtype: self.options.dtype,
        };
        self.specs.iter().map(entry).collect()
    }

    fn read(
        &self,
        index: usize,
        each: &mut dyn FnMut(&[f32]) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        draw(&self.specs[index], &self.options, each)
    }
}

/// More would not fit the header that a safetensors file may have.
const MAX_LAYERS: usize = 1 << 14;

fn check(o: &GenerateOptions) -> Result<(), GenerateError> {
    let error = |text: String| Err(GenerateError::Options(text));
    let sizes = [o.n_layers, o.width, o.head_size, o.ffn, o.vocab]
        .into_iter()
        .chain(o.ranks);
    if sizes.into_iter().any(|n| n == 0 || n > 1 << 24) {
        return error("every size must be between 1 and 16777216".into());
    }
    if o.n_layers > MAX_LAYERS {
        return error(format!("{} layers, expected at most {MAX_LAYERS}", o.n_layers));
    }
    if !o.width.is_multiple_of(o.head_size) {
        return error(format!(
            "the width {} is not a multiple of the head size {}",
            o.width, o.head_size
        ));
    }
    if !matches!(o.dtype, DType::F32 | DType::F16 | DType::BF16) {
        return error(format!("weights of {}, expected f32, f16 or bf16", o.dtype));
    }
    match o.zero_share {
        Some(z) if !(z > 0.0 && z < 1.0) => {
            error(format!("the share of zeros is {z}, expected between 0 and 1"))
        }
        _ => Ok(()),
    }
}

/// Elements that are drawn at once.
const CHUNK: usize = 1 << 18;

/// The numbers of a tensor in order.
fn draw(
    spec: &Spec,
    options: &GenerateOptions,
    each: &mut dyn FnMut(&[f32]) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    // Every tensor has a stream of its own, so that another size of one does not change the others.
    let seed = Sha256::digest(format!("{} {}", options.seed, spec.name));
    let seed = u64::from_le_bytes(seed[..8].try_into().expect("a hash has 32 bytes"));
    let mut random = SmallRng::seed_from_u64(seed);
    let n: usize = spec.shape.iter().product();
    let last = *spec.shape.last().expect("every tensor has an axis");
    let mut values = vec![];
    for start in (0..n).step_by(CHUNK) {
        let count = CHUNK.min(n - start);
        values.clear();
        for i in start..start + count {
            let value = match &spec.fill {
                Fill::Normal { mean, std } => mean + std * normal(&mut random),
                Fill::Channels { value, std } => value(i % last) + std * normal(&mut random),
            };
            values.push(rounded(options.dtype, value));
        }
        each(&values)?;
    }
    Ok(())
}

/// Nearly normal with mean 0 and variance 1: the sum of four uniform numbers.
fn normal(random: &mut SmallRng) -> f32 {
    let bits: u64 = random.random();
    let sum: u64 = (0..4).map(|i| bits >> (16 * i) & 0xffff).sum();
    (sum as f32 / 65536.0 - 2.0) * 1.732_050_8
}

/// The number that a format has for `value`. A layout may store it in a wider one; it is the same model in all of them.
fn rounded(dtype: DType, value: f32) -> f32 {
    match dtype {
        DType::F16 => half::f16::from_f32(value).to_f32(),
        DType::BF16 => half::bf16::from_f32(value).to_f32(),
        _ => value,
    }
}

fn specs(o: &GenerateOptions) -> Vec<Spec> {
    let mut all = vec![];
    let (c, f) = (o.width, o.ffn);
    let root = |n: usize| (n as f32).powf(-0.5);
    let mut put = |name: String, shape: &[usize], mean: f32, std: f32| {
        all.push(Spec {
            name,
            shape: shape.to_vec(),
            fill: Fill::Normal { mean, std },
        });
    };
    put("emb.weight".into(), &[o.vocab, c], 0.0, 0.5);
    for layer in 0..o.n_layers {
        let block = format!("blocks.{layer}.");
        let att = |part: &str| format!("{block}att.{part}");
        if layer == 0 && o.has_ln0 {
            put(format!("{block}ln0.weight"), &[c], 1.0, 0.1);
            put(format!("{block}ln0.bias"), &[c], 0.0, 0.05);
        }
        put(format!("{block}ln1.weight"), &[c], 1.0, 0.1);
        put(format!("{block}ln1.bias"), &[c], 0.0, 0.05);
        put(format!("{block}ln2.weight"), &[c], 1.0, 0.1);
        put(
            format!("{block}ln2.bias"),
            &[c],
            if o.zero_share.is_some() { LN2_BIAS } else { 0.0 },
            0.05,
        );
        let ranks = [('w', 0.5), ('a', 0.5), ('v', 0.5), ('g', 1.5)];
        for ((letter, scale), rank) in ranks.into_iter().zip(o.ranks) {
            if letter == 'v' && layer == 0 && !o.layer0_value_gate {
                continue;
            }
            put(att(&format!("{letter}1")), &[c, rank], 0.0, root(c));
            put(att(&format!("{letter}2")), &[rank, c], 0.0, scale * root(rank));
            match letter {
                'w' => put(att("w0"), &[1, 1, c], -2.5, 2.5),
                'a' => put(att("a0"), &[1, 1, c], -0.2, 0.2),
                'v' => put(att("v0"), &[1, 1, c], 0.7, 0.2),
                _ => {}
            }
        }
        put(att("k_k"), &[1, 1, c], 0.71, 0.06);
        put(att("k_a"), &[1, 1, c], 1.02, 0.05);
        put(att("r_k"), &[c / o.head_size, o.head_size], -0.04, 0.1);
        for (part, scale) in [("receptance", 0.5), ("key", 0.5), ("value", 1.0), ("output", 0.4)] {
            put(att(&format!("{part}.weight")), &[c, c], 0.0, scale * root(c));
        }
        put(
            att("ln_x.weight"),
            &[c],
            ((1 + layer) as f32 / o.n_layers as f32).powf(0.7),
            0.1,
        );
        put(att("ln_x.bias"), &[c], 0.0, 0.02);
        put(
            format!("{block}ffn.key.weight"),
            &[f, c],
            o.zero_share.map_or(0.0, |z| key_mean(z, c)),
            root(c),
        );
        put(format!("{block}ffn.value.weight"), &[c, f], 0.0, 0.4 * root(f));
    }
    put("ln_out.weight".into(), &[c], 1.0, 0.1);
    put("ln_out.bias".into(), &[c], 0.0, 0.05);
    put("head.weight".into(), &[o.vocab, c], 0.0, 2.0 * root(c));
    for layer in 0..o.n_layers {
        mixes(&mut all, o, layer);
    }
    all
}

/// The interpolations of the token shift: from 0 at the first channel to 1 at the last, the steeper the earlier the block.
fn mixes(all: &mut Vec<Spec>, o: &GenerateOptions, layer: usize) {
    let (n, depth) = (o.width as f32, 1.0 - layer as f32 / o.n_layers as f32);
    let att = [
        ("r", 0.2),
        ("w", 0.9),
        ("k", 0.7),
        ("v", 0.7),
        ("a", 0.9),
        ("g", 0.2),
    ];
    let mut names: Vec<(String, f32)> = att
        .iter()
        .map(|(letter, p)| (format!("blocks.{layer}.att.x_{letter}"), p * depth))
        .collect();
    names.push((format!("blocks.{layer}.ffn.x_k"), depth.powi(4)));
    for (name, power) in names {
        let value = Box::new(move |i: usize| 1.0 - (i as f32 / n).powf(power));
        all.push(Spec {
            name,
            shape: vec![1, 1, o.width],
            fill: Fill::Channels { value, std: 0.02 },
        });
    }
}

/// The second layer norm's bias where a share of zeros is asked for: a direction that is in every input of `ffn.key`.
const LN2_BIAS: f32 = 0.5;

/// The mean of `ffn.key` that makes a share `zeros` of its products negative.
///
/// A product is about normal: its variance is 1 from the normalised input and `LN2_BIAS²` from the bias; its mean is
/// `c * mean * LN2_BIAS`. The normal quantile is taken from the logistic one, which is close enough for "roughly".
fn key_mean(zeros: f32, c: usize) -> f32 {
    let quantile = (zeros / (1.0 - zeros)).ln() / 1.702;
    -quantile * (1.0 + LN2_BIAS * LN2_BIAS).sqrt() / (c as f32 * LN2_BIAS)
}
