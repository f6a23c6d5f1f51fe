//! The Hugging Face / flash-linear-attention layout: other names, transposed low-rank matrices, perhaps shards.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use serde::Deserialize;

use super::{Checkpoint, CheckpointError, CheckpointFormat, Tensor, map, safetensors};

/// What `config.json` says that shapes do not.
#[derive(Debug, Default, Deserialize)]
struct Config {
    model_type: Option<String>,
    hidden_act: Option<String>,
    norm_eps: Option<f64>,
    head_dim: Option<usize>,
}

/// `norm_eps` where `config.json` says none.
const NORM_EPS: f64 = 1e-5;

/// `model.safetensors.index.json`
#[derive(Debug, Deserialize)]
struct Index {
    weight_map: std::collections::BTreeMap<String, String>,
}

/// A configuration or index of a model takes far less.
const MAX_JSON: u64 = 64 << 20;

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, CheckpointError> {
    let io = |source| CheckpointError::Io {
        path: path.into(),
        source,
    };
    let len = std::fs::metadata(path).map_err(io)?.len();
    let malformed = |reason: String| CheckpointError::Malformed {
        path: path.into(),
        reason,
    };
    if len > MAX_JSON {
        return Err(malformed(format!("is {len} bytes, expected at most {MAX_JSON}")));
    }
    let text = std::fs::read(path).map_err(io)?;
    serde_json::from_slice(&text).map_err(|e| malformed(format!("not the expected JSON: {e}")))
}

/// A folder with `config.json` and one file or several shards.
pub(super) fn open_folder(folder: &Path) -> Result<Checkpoint, CheckpointError> {
    let (single, index) = (
        folder.join("model.safetensors"),
        folder.join("model.safetensors.index.json"),
    );
    let files: Vec<PathBuf> = if index.is_file() {
        let index_content: Index = json(&index)?;
        let names: BTreeSet<&String> = index_content.weight_map.values().collect();
        // A shard is a file of this folder, whatever the index says.
        if let Some(bad) = names
            .iter()
            .find(|n| n.contains(['/', '\\']) || n.starts_with('.'))
        {
            let reason = format!("shard `{bad}` is not a file name");
            return Err(CheckpointError::Malformed { path: index, reason });
        }
        names.into_iter().map(|n| folder.join(n)).collect()
    } else if single.is_file() {
        vec![single]
    } else {
        let reason = "a folder without model.safetensors or model.safetensors.index.json".to_string();
        return Err(CheckpointError::Malformed {
            path: folder.into(),
            reason,
        });
    };
    let mut tensors = vec![];
    for file in &files {
        tensors.extend(safetensors::open(file, map(file)?)?);
    }
    or_official(folder, folder, tensors)
}

/// A safetensors file, perhaps that of a Hugging Face folder.
pub(super) fn open_file(path: &Path, map: Arc<Mmap>) -> Result<Checkpoint, CheckpointError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    or_official(path, folder, safetensors::open(path, map)?)
}

/// Tensors of safetensors files under official names, whichever names they have.
fn or_official(path: &Path, folder: &Path, tensors: Vec<Tensor>) -> Result<Checkpoint, CheckpointError> {
    let is_hf = tensors
        .iter()
        .any(|t| t.name.starts_with("model.layers.") || t.name == "model.embeddings.weight");
    if !is_hf {
        return Ok(Checkpoint {
            format: CheckpointFormat::Safetensors,
            tensors,
            group_norm_eps: None,
            layer_norm_eps: None,
            notes: vec![],
        });
    }
    let config_path = folder.join("config.json");
    let config: Config = if config_path.is_file() {
        json(&config_path)?
    } else {
        Config::default()
    };
    let unsupported = |reason: String| {
        Err(CheckpointError::Malformed {
            path: config_path.clone(),
            reason,
        })
    };
    let r_k = tensors
        .iter()
        .find(|t| t.name.ends_with(".attn.r_k"))
        .and_then(|t| t.shape.last())
        .copied();
    let eps = config.norm_eps.unwrap_or(NORM_EPS);
    match (
        config.model_type.as_deref(),
        config.hidden_act.as_deref(),
        config.head_dim,
        r_k,
    ) {
        (Some(kind), ..) if kind != "rwkv7" => {
            return unsupported(format!("model_type is `{kind}`, expected `rwkv7`"));
        }
        (_, Some(act), ..) if act != "sqrelu" => {
            return unsupported(format!("hidden_act is `{act}`, expected `sqrelu`"));
        }
        (_, _, Some(said), Some(found)) if said != found => {
            return unsupported(format!(
                "head_dim is {said}, but the heads of `attn.r_k` have {found} channels"
            ));
        }
        _ if !(eps > 0.0 && eps < 1.0) => {
            return unsupported(format!("norm_eps is {eps}, expected a number between 0 and 1"));
        }
        _ => {}
    }
    let mut official = vec![];
    for tensor in tensors {
        rename(path, tensor, &mut official)?;
    }
    Ok(Checkpoint {
        format: CheckpointFormat::HuggingFace,
        tensors: official,
        group_norm_eps: r_k.map(|n| eps * n as f64),
        layer_norm_eps: Some(eps),
        notes: vec![],
    })
}

/// Names outside the layers.
const TOP: [(&str, &str); 3] = [
    ("model.embeddings.", "emb."),
    ("model.norm.", "ln_out."),
    ("lm_head.", "head."),
];

/// Parts of a layer whose names alone differ.
const PARTS: [(&str, &str); 9] = [
    ("pre_norm.", "ln0."),
    ("attn_norm.", "ln1."),
    ("ffn_norm.", "ln2."),
    ("attn.r_proj.", "att.receptance."),
    ("attn.k_proj.", "att.key."),
    ("attn.v_proj.", "att.value."),
    ("attn.o_proj.", "att.output."),
    ("attn.g_norm.", "att.ln_x."),
    ("attn.", "att."),
];

/// Puts a tensor among the official ones. Names that do not translate stay, and are reported as unknown later.
fn rename(path: &Path, tensor: Tensor, official: &mut Vec<Tensor>) -> Result<(), CheckpointError> {
    let named = |name: String, tensor: Tensor| Tensor { name, ..tensor };
    if let Some((from, to)) = TOP.iter().find(|(from, _)| tensor.name.starts_with(from)) {
        let name = format!("{to}{}", &tensor.name[from.len()..]);
        official.push(named(name, tensor));
        return Ok(());
    }
    let Some((layer, part)) = tensor
        .name
        .strip_prefix("model.layers.")
        .and_then(|rest| rest.split_once('.'))
    else {
        official.push(tensor);
        return Ok(());
    };
    let block = format!("blocks.{layer}.");
    if part == "attn.x_x" && tensor.shape.first() == Some(&6) {
        for (i, letter) in ["r", "w", "k", "v", "a", "g"].into_iter().enumerate() {
            official.push(named(format!("{block}att.x_{letter}"), tensor.part(i, 6)));
        }
        return Ok(());
    }
    if let Some((letter, inner)) = part
        .strip_prefix("attn.")
        .and_then(|p| p.split_once("_lora.lora."))
    {
        let half = match inner {
            "0.weight" => "1",
            "2.weight" => "2",
            "2.bias" => "0",
            _ => "",
        };
        if !half.is_empty() {
            let name = format!("{block}att.{letter}{half}");
            let tensor = if half == "0" {
                Some(tensor.clone())
            } else {
                tensor.transposed()
            };
            let tensor = tensor.ok_or_else(|| CheckpointError::Tensor {
                path: path.into(),
                tensor: name.clone(),
                reason: "is not a matrix".into(),
            })?;
            official.push(named(name, tensor));
            return Ok(());
        }
    }
    let part = match PARTS.iter().find(|(from, _)| part.starts_with(from)) {
        Some((from, to)) => format!("{to}{}", &part[from.len()..]),
        None => part.to_string(),
    };
    official.push(named(format!("{block}{part}"), tensor));
    Ok(())
}
