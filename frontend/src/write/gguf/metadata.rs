//! What a GGUF file says of a model beside its tensors.

use rwkvc_ir::DType;

use super::super::{Piece, Source, WriteError};
use super::unfit;
use crate::checkpoint::gguf::{ARCHITECTURE, HEAD_SIZE, LAYER_NORM_EPS};
use crate::checkpoint::{BlockFormat, Storage};

/// What the tensors do not say.
pub struct Metadata<'t> {
    /// A name for people.
    pub name: &'t str,
    /// The bytes of a token of the vocabulary, none for token 0, if there is a vocabulary.
    pub token: Option<&'t dyn Fn(u32) -> Option<&'t [u8]>>,
}

/// Keys and values, written.
pub(super) struct Values {
    pub(super) count: usize,
    pub(super) bytes: Vec<u8>,
}

/// A text as the format has them: its length, then its bytes.
pub(super) fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}

const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const TEXT: u32 = 8;
const LIST: u32 = 9;

impl Values {
    fn key(&mut self, key: &str, kind: u32) {
        self.count += 1;
        text(&mut self.bytes, key.as_bytes());
        self.bytes.extend(kind.to_le_bytes());
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key, TEXT);
        text(&mut self.bytes, value.as_bytes());
    }

    fn number(&mut self, key: &str, value: usize) -> Result<(), WriteError> {
        let Ok(value) = u32::try_from(value) else {
            return unfit(format!("`{key}` would be {value}"));
        };
        self.key(key, U32);
        self.bytes.extend(value.to_le_bytes());
        Ok(())
    }

    fn list(&mut self, key: &str, kind: u32, n: usize) {
        self.key(key, LIST);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((n as u64).to_le_bytes());
    }
}

/// llama.cpp counts nothing in the context of a recurrent model; its converter says this.
const CONTEXT: usize = 1 << 20;

/// Everything that llama.cpp must be told.
pub(super) fn values(
    source: &dyn Source,
    metadata: &Metadata<'_>,
    pieces: &[Piece],
) -> Result<Values, WriteError> {
    let config = source.config();
    let last = config.ranks[config.n_layers - 1];
    let same = |r: &crate::model::Ranks| (r.decay, r.iclr, r.gate) == (last.decay, last.iclr, last.gate);
    if let Some(other) = config.ranks.iter().position(|r| !same(r)) {
        return unfit(format!(
            "the ranks of block {other} are not those of the last one"
        ));
    }
    if let Some(other) = config.ranks[1..].iter().position(|r| r.value != last.value) {
        return unfit(format!(
            "the rank of the value gate of block {} is not that of the last one",
            other + 1
        ));
    }
    let units = |p: &&Piece| p.name.ends_with(".channel_mix_key.weight") && p.shape[0] != config.ffn;
    if let Some(other) = pieces.iter().find(units) {
        return unfit(format!(
            "`{}` has {} hidden units, the first block has {}",
            other.name, other.shape[0], config.ffn
        ));
    }
    let mut all = Values {
        count: 0,
        bytes: vec![],
    };
    all.text("general.architecture", ARCHITECTURE);
    all.text("general.type", "model");
    all.text("general.name", metadata.name);
    all.number("rwkv7.context_length", CONTEXT)?;
    all.number("rwkv7.embedding_length", config.width)?;
    all.number("rwkv7.block_count", config.n_layers)?;
    all.key(LAYER_NORM_EPS, F32);
    all.bytes.extend((config.layer_norm_eps as f32).to_le_bytes());
    all.number(HEAD_SIZE, config.head_size)?;
    all.number("rwkv7.attention.decay_lora_rank", last.decay)?;
    all.number("rwkv7.attention.iclr_lora_rank", last.iclr)?;
    all.number(
        "rwkv7.attention.value_residual_mix_lora_rank",
        last.value.unwrap_or(last.iclr),
    )?;
    all.number("rwkv7.attention.gate_lora_rank", last.gate)?;
    all.number("rwkv7.feed_forward_length", config.ffn)?;
    all.number("rwkv7.token_shift_count", 2)?;
    // Wanted and never looked at.
    all.number("rwkv7.attention.head_count", 0)?;
    all.number("general.file_type", file_type(pieces))?;
    all.number("general.quantization_version", 2)?;
    match metadata.token {
        Some(token) => vocabulary(&mut all, config.vocab, token)?,
        None => {
            all.text("tokenizer.ggml.model", "none");
            all.number("rwkv7.vocab_size", config.vocab)?;
        }
    }
    Ok(all)
}

/// The number of the format that most of the weights have.
fn file_type(pieces: &[Piece]) -> usize {
    let most = pieces
        .iter()
        .find(|p| p.name.ends_with(".channel_mix_key.weight"));
    match most.map(|p| p.storage) {
        Some(Storage::Plain(DType::F16)) => 1,
        Some(Storage::Blocks(BlockFormat::Q8_0)) => 7,
        Some(Storage::Plain(DType::BF16)) => 32,
        _ => 0,
    }
}

const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;

/// The token that ends a turn of a chat with a World model: two line ends.
const TURN_END: usize = 261;

/// A token for every row of the embedding.
fn vocabulary<'t>(
    all: &mut Values,
    rows: usize,
    token: &dyn Fn(u32) -> Option<&'t [u8]>,
) -> Result<(), WriteError> {
    let of = |row: usize| u32::try_from(row).ok().and_then(token);
    all.text("tokenizer.ggml.model", "rwkv");
    all.list("tokenizer.ggml.tokens", TEXT, rows);
    let mut kinds = vec![CONTROL];
    text(&mut all.bytes, b"<s>");
    for row in 1..rows {
        match of(row) {
            Some(bytes) => {
                text(&mut all.bytes, escaped(bytes).as_bytes());
                kinds.push(NORMAL);
            }
            None => {
                text(&mut all.bytes, format!("[PAD{row}]").as_bytes());
                kinds.push(UNUSED);
            }
        }
    }
    all.list("tokenizer.ggml.token_type", I32, rows);
    all.bytes.extend(kinds.iter().flat_map(|k| k.to_le_bytes()));
    all.number("tokenizer.ggml.bos_token_id", 0)?;
    all.number("tokenizer.ggml.eos_token_id", 0)?;
    if rows > TURN_END && of(TURN_END) == Some(b"\n\n") {
        all.number("tokenizer.ggml.eot_token_id", TURN_END)?;
        all.text("tokenizer.chat_template", "rwkv-world");
    }
    Ok(())
}

/// The bytes of a token as Python writes them between the quotes of `b'…'`.
fn escaped(bytes: &[u8]) -> String {
    // Python takes the other quotes around a text with this one, unless both are in it.
    let quote = bytes.contains(&b'\'') && bytes.contains(&b'"');
    let one = |&b: &u8| match b {
        b'\\' => "\\\\".into(),
        b'\'' if quote => "\\'".into(),
        b'\t' => "\\t".into(),
        b'\n' => "\\n".into(),
        b'\r' => "\\r".into(),
        b' '..=b'~' => char::from(b).to_string(),
        _ => format!("\\x{b:02x}"),
    };
    bytes.iter().map(one).collect()
}
