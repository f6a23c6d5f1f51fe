//! The names that llama.cpp gives to the tensors of RWKV-7, its types of tensors, and how both differ from the official
//! ones.

use rwkvc_ir::DType;

use crate::checkpoint::{BlockFormat, Storage};

/// How a tensor of a GGUF file differs from the official one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// In its name alone.
    Same,
    /// A low-rank matrix with its axes swapped.
    Transposed,
    /// A vector where the official matrix has a row for each head.
    Flat,
}

/// Names outside the blocks, and the official ones.
pub(crate) const TOP: [(&str, &str); 6] = [
    ("token_embd.weight", "emb.weight"),
    ("token_embd_norm.weight", "blocks.0.ln0.weight"),
    ("token_embd_norm.bias", "blocks.0.ln0.bias"),
    ("output_norm.weight", "ln_out.weight"),
    ("output_norm.bias", "ln_out.bias"),
    ("output.weight", "head.weight"),
];

/// Names inside a block, and the official ones.
pub(crate) const BLOCK: [(&str, &str, Form); 27] = [
    ("attn_norm.weight", "ln1.weight", Form::Same),
    ("attn_norm.bias", "ln1.bias", Form::Same),
    ("attn_norm_2.weight", "ln2.weight", Form::Same),
    ("attn_norm_2.bias", "ln2.bias", Form::Same),
    ("time_mix_w0.weight", "att.w0", Form::Same),
    ("time_mix_w1.weight", "att.w1", Form::Transposed),
    ("time_mix_w2.weight", "att.w2", Form::Transposed),
    ("time_mix_a0.weight", "att.a0", Form::Same),
    ("time_mix_a1.weight", "att.a1", Form::Transposed),
    ("time_mix_a2.weight", "att.a2", Form::Transposed),
    ("time_mix_v0.weight", "att.v0", Form::Same),
    ("time_mix_v1.weight", "att.v1", Form::Transposed),
    ("time_mix_v2.weight", "att.v2", Form::Transposed),
    ("time_mix_g1.weight", "att.g1", Form::Transposed),
    ("time_mix_g2.weight", "att.g2", Form::Transposed),
    ("time_mix_k_k.weight", "att.k_k", Form::Same),
    ("time_mix_k_a.weight", "att.k_a", Form::Same),
    ("time_mix_r_k.weight", "att.r_k", Form::Flat),
    ("time_mix_receptance.weight", "att.receptance.weight", Form::Same),
    ("time_mix_key.weight", "att.key.weight", Form::Same),
    ("time_mix_value.weight", "att.value.weight", Form::Same),
    ("time_mix_output.weight", "att.output.weight", Form::Same),
    ("time_mix_ln.weight", "att.ln_x.weight", Form::Same),
    ("time_mix_ln.bias", "att.ln_x.bias", Form::Same),
    ("channel_mix_lerp_k.weight", "ffn.x_k", Form::Same),
    ("channel_mix_key.weight", "ffn.key.weight", Form::Same),
    ("channel_mix_value.weight", "ffn.value.weight", Form::Same),
];

/// The interpolations of the token shift in one tensor: a row for each of [`MIXED`].
pub(crate) const MIXES: &str = "time_mix_lerp_fused.weight";

/// The rows of [`MIXES`]: `att.x_r`, `att.x_w` …
pub(crate) const MIXED: [&str; 6] = ["r", "w", "k", "v", "a", "g"];

/// Every type of tensor that is read, with its number.
pub(crate) const TYPES: [(u32, Storage); 11] = [
    (0, Storage::Plain(DType::F32)),
    (1, Storage::Plain(DType::F16)),
    (2, Storage::Blocks(BlockFormat::Q4_0)),
    (3, Storage::Blocks(BlockFormat::Q4_1)),
    (6, Storage::Blocks(BlockFormat::Q5_0)),
    (7, Storage::Blocks(BlockFormat::Q5_1)),
    (8, Storage::Blocks(BlockFormat::Q8_0)),
    (12, Storage::Blocks(BlockFormat::Q4K)),
    (13, Storage::Blocks(BlockFormat::Q5K)),
    (14, Storage::Blocks(BlockFormat::Q6K)),
    (30, Storage::Plain(DType::BF16)),
];
