//! GGUF files, sound or not.

use std::collections::BTreeMap;

use super::{Item, transposed};

/// A file to be.
#[derive(Clone)]
pub struct Gguf {
    pub version: u32,
    /// Keys and values; a value is its type and its bytes.
    pub metadata: Vec<(String, u32, Vec<u8>)>,
    pub tensors: Vec<Entry>,
    pub alignment: usize,
}

/// A tensor; its dimensions are as in the file, innermost first.
#[derive(Clone)]
pub struct Entry {
    pub name: String,
    pub dimensions: Vec<u64>,
    pub kind: u32,
    pub bytes: Vec<u8>,
    /// Where it claims to be, if not where it is.
    pub offset: Option<u64>,
}

pub fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat()
}

impl Gguf {
    /// The tensors of a model in f32, with all that llama.cpp wants to be told.
    pub fn of(items: &[Item]) -> Self {
        let r_k = items.iter().find(|i| i.name.ends_with("att.r_k")).unwrap();
        let number = |key: &str, n: usize| (key.to_string(), 4, (n as u32).to_le_bytes().to_vec());
        let tokens = ["<s>", "\\x00", "b"].map(text).concat();
        let list = [&8u32.to_le_bytes()[..], &3u64.to_le_bytes(), &tokens].concat();
        let metadata = vec![
            ("general.architecture".into(), 8, text("rwkv7")),
            number("rwkv7.wkv.head_size", r_k.shape[1]),
            number("rwkv7.block_count", 2),
            (
                "rwkv7.attention.layer_norm_epsilon".into(),
                6,
                1e-5f32.to_le_bytes().to_vec(),
            ),
            ("tokenizer.ggml.tokens".into(), 9, list),
        ];
        Gguf {
            version: 3,
            metadata,
            tensors: entries(items),
            alignment: 32,
        }
    }

    pub fn set(&mut self, key: &str, kind: u32, bytes: &[u8]) {
        self.metadata.retain(|(k, ..)| k != key);
        self.metadata.push((key.into(), kind, bytes.to_vec()));
    }

    pub fn tensor(&mut self, name: &str) -> &mut Entry {
        self.tensors.iter_mut().find(|t| t.name == name).unwrap()
    }

    pub fn write(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, kind, bytes) in &self.metadata {
            out.extend(text(key));
            out.extend(kind.to_le_bytes());
            out.extend(bytes);
        }
        let mut data: Vec<u8> = vec![];
        for t in &self.tensors {
            data.resize(data.len().next_multiple_of(self.alignment), 0);
            out.extend(text(&t.name));
            out.extend((t.dimensions.len() as u32).to_le_bytes());
            t.dimensions.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(t.kind.to_le_bytes());
            out.extend(t.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&t.bytes);
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(data);
        out
    }
}

/// The tensors under llama.cpp's names and in its forms.
fn entries(items: &[Item]) -> Vec<Entry> {
    let (mut entries, mut mixes) = (vec![], BTreeMap::<String, Vec<&Item>>::new());
    for item in items {
        let Some((layer, part)) = item
            .name
            .strip_prefix("blocks.")
            .and_then(|rest| rest.split_once('.'))
        else {
            let name = item.name.replace("emb.", "token_embd.");
            entries.push(entry(
                &name
                    .replace("ln_out.", "output_norm.")
                    .replace("head.", "output."),
                item,
            ));
            continue;
        };
        let block = format!("blk.{layer}.");
        let parts = [
            ("ln1.", "attn_norm."),
            ("ln2.", "attn_norm_2."),
            ("att.ln_x.", "time_mix_ln."),
            ("att.", "time_mix_"),
            ("ffn.x_k", "channel_mix_lerp_k.weight"),
            ("ffn.", "channel_mix_"),
        ];
        if let Some(part) = part.strip_prefix("ln0.") {
            entries.push(entry(&format!("token_embd_norm.{part}"), item));
        } else if part.starts_with("att.x_") {
            mixes.entry(block).or_default().push(item);
        } else {
            let (from, to) = parts.iter().find(|(from, _)| part.starts_with(from)).unwrap();
            let mut name = format!("{block}{}", part.replacen(from, to, 1));
            if !name.ends_with(".weight") && !name.ends_with(".bias") {
                name += ".weight";
            }
            let low_rank = ["w", "a", "v", "g"]
                .iter()
                .any(|l| part == format!("att.{l}1") || part == format!("att.{l}2"));
            let item = if low_rank {
                transposed(item, name.clone())
            } else {
                item.clone()
            };
            let mut entry = entry(&name, &item);
            // Vectors have one dimension.
            if item.shape.len() == 3 || part == "att.r_k" {
                entry.dimensions = vec![entry.dimensions.iter().product()];
            }
            entries.push(entry);
        }
    }
    for (block, items) in mixes {
        let of = |l: &str| {
            items
                .iter()
                .find(|i| i.name.ends_with(&format!("x_{l}")))
                .unwrap()
        };
        let bytes: Vec<u8> = ["r", "w", "k", "v", "a", "g"]
            .iter()
            .flat_map(|l| of(l).bytes.clone())
            .collect();
        entries.push(Entry {
            name: format!("{block}time_mix_lerp_fused.weight"),
            dimensions: vec![bytes.len() as u64 / 24, 1, 1, 6],
            kind: 0,
            bytes,
            offset: None,
        });
    }
    entries
}

fn entry(name: &str, item: &Item) -> Entry {
    Entry {
        name: name.into(),
        dimensions: item.shape.iter().rev().map(|&d| d as u64).collect(),
        kind: 0,
        bytes: item.bytes.clone(),
        offset: None,
    }
}
