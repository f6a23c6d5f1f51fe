//! Models of any shape with random weights.

use rwkvc_frontend::generate::{GenerateOptions, generate};
use rwkvc_ir::DType;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// A small generator of numbers: the same at every run.
pub struct Random(pub u64);

impl Random {
    /// From `low` to `high`, both possible.
    pub fn range(&mut self, low: usize, high: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        low + (self.0 >> 33) as usize % (high - low + 1)
    }

    /// Heads or tails.
    pub fn coin(&mut self) -> bool {
        self.range(0, 1) == 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.range(0, all.len() - 1)]
    }

    /// Tokens of a vocabulary.
    pub fn tokens(&mut self, n: usize, vocab: usize) -> Vec<u32> {
        (0..n).map(|_| self.range(0, vocab - 1) as u32).collect()
    }

    /// A number between -1 and 1.
    fn signed(&mut self) -> f32 {
        self.range(0, 2000) as f32 / 1000.0 - 1.0
    }
}

/// Sizes of a small model, of at most `layers` blocks.
pub fn sizes(random: &mut Random, layers: usize, seed: u64) -> GenerateOptions {
    let head_size = random.pick(&[4, 8, 16, 20, 32, 64]);
    GenerateOptions {
        n_layers: random.range(1, layers),
        width: head_size * random.range(1, 4),
        head_size,
        ffn: random.range(1, 150),
        vocab: random.range(5, 300),
        ranks: [0; 4].map(|_| random.range(1, 33)),
        dtype: random.pick(&[DType::F32, DType::F16, DType::BF16]),
        seed,
        layer0_value_gate: random.coin(),
        has_ln0: random.coin(),
        zero_share: None,
    }
}

/// A file with random weights.
///
/// # Panics
/// If the sizes make no model.
pub fn file(options: &GenerateOptions) -> Vec<u8> {
    let mut bytes = vec![];
    generate(options, &mut bytes, &mut |_, _| {}).expect("sizes that make a model");
    bytes
}

/// Which parts that only some models have a file gets.
#[derive(Clone, Copy, Debug)]
pub struct Extras {
    /// Biases on some of the large matrices.
    pub biases: bool,
    /// A tuned state in each block.
    pub time_state: bool,
    /// The rank of DeepEmbed (RWKV-7a).
    pub deep_embed: Option<usize>,
    /// A number format drawn for each tensor, instead of one for all.
    pub mixed: bool,
}

impl Extras {
    /// Drawn by chance.
    pub fn draw(random: &mut Random) -> Self {
        Extras {
            biases: random.coin(),
            time_state: random.coin(),
            deep_embed: random.coin().then(|| random.range(1, 5)),
            mixed: random.coin(),
        }
    }
}

struct Part {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// The file of [`file()`] with more parts, or other number formats.
///
/// # Panics
/// If the sizes make no model.
pub fn file_with(options: &GenerateOptions, extras: Extras, random: &mut Random) -> Vec<u8> {
    let plain = file(options);
    let plain = SafeTensors::deserialize(&plain).expect("a sound file");
    let mut parts: Vec<Part> = vec![];
    for (name, tensor) in plain.iter() {
        let mut values = vec![0.0; tensor.shape().iter().product()];
        options.dtype.decode(tensor.data(), &mut values);
        parts.push(Part {
            name: name.into(),
            shape: tensor.shape().to_vec(),
            values,
        });
    }
    // The order of the file is not the order of a map, which differs from run to run.
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    let mut added = vec![];
    let mut add = |name: String, shape: &[usize], scale: f32, random: &mut Random| {
        let values = (0..shape.iter().product())
            .map(|_| scale * random.signed())
            .collect();
        added.push(Part {
            name,
            shape: shape.to_vec(),
            values,
        });
    };
    let projections = ["receptance", "key", "value", "output", "head"];
    for part in &parts {
        let Some(matrix) = part.name.strip_suffix(".weight") else {
            continue;
        };
        let biased = projections.iter().any(|p| matrix.ends_with(p));
        if extras.biases && biased && random.coin() {
            add(format!("{matrix}.bias"), &part.shape[..1], 0.3, random);
        }
    }
    let (width, n) = (options.width, options.head_size);
    for layer in 0..options.n_layers {
        if extras.time_state {
            add(
                format!("blocks.{layer}.att.time_state"),
                &[width / n, n, n],
                0.5,
                random,
            );
        }
        if let Some(rank) = extras.deep_embed {
            let name = |part: &str| format!("blocks.{layer}.ffn.{part}");
            add(name("s_emb.weight"), &[options.vocab, rank * rank], 1.0, random);
            add(name("s_emb_x.weight"), &[rank * rank, width], 0.3, random);
            add(name("s1"), &[width, rank], 0.3, random);
            add(name("s2"), &[rank, options.ffn], 0.5, random);
            add(name("s0"), &[options.ffn], 1.0, random);
        }
    }
    parts.append(&mut added);
    serialise(&parts, options.dtype, extras.mixed, random)
}

fn serialise(parts: &[Part], dtype: DType, mixed: bool, random: &mut Random) -> Vec<u8> {
    let stored: Vec<(DType, Vec<u8>)> = parts
        .iter()
        .map(|part| {
            let dtype = if mixed {
                random.pick(&[DType::F32, DType::F16, DType::BF16])
            } else {
                dtype
            };
            let mut bytes = vec![0; part.values.len() * dtype.size()];
            for (i, &value) in part.values.iter().enumerate() {
                dtype.write(&mut bytes, i, value.into());
            }
            (dtype, bytes)
        })
        .collect();
    let views = parts.iter().zip(&stored).map(|(part, (dtype, bytes))| {
        let dtype = match dtype {
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            _ => Dtype::F32,
        };
        let view =
            TensorView::new(dtype, part.shape.clone(), bytes).expect("as many bytes as the shape says");
        (part.name.as_str(), view)
    });
    safetensors::serialize(views, None).expect("a sound file")
}
