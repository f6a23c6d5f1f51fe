//! Writers of small checkpoints in every layout, sound or not.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part of it"
)]

pub mod gguf;

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use rwkvc_frontend::generate::{GenerateOptions, generate};
use rwkvc_frontend::model::{Model, ModelError};
use rwkvc_ir::DType;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// A tensor to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Item {
    pub fn f32(name: &str, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Item {
            name: name.into(),
            dtype: DType::F32,
            shape: shape.to_vec(),
            bytes,
        }
    }

    pub fn zeros(name: &str, shape: &[usize]) -> Self {
        Self::f32(name, shape, &vec![0.0; shape.iter().product()])
    }
}

/// Sizes that are all different.
pub fn small() -> GenerateOptions {
    GenerateOptions {
        n_layers: 2,
        width: 8,
        head_size: 4,
        ffn: 12,
        vocab: 10,
        ranks: [2, 3, 5, 6],
        dtype: DType::F32,
        seed: 7,
        layer0_value_gate: true,
        has_ln0: true,
        zero_share: None,
    }
}

pub fn generated(options: &GenerateOptions) -> Vec<u8> {
    let mut file = vec![];
    generate(options, &mut file, &mut |_, _| {}).unwrap();
    file
}

/// The tensors of a small model.
pub fn items() -> Vec<Item> {
    items_of(&small())
}

/// The tensors of a generated model.
pub fn items_of(options: &GenerateOptions) -> Vec<Item> {
    let file = generated(options);
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let mut items: Vec<Item> = tensors
        .iter()
        .map(|(name, t)| Item {
            name: name.into(),
            dtype: DType::F32,
            shape: t.shape().to_vec(),
            bytes: t.data().to_vec(),
        })
        .collect();
    items.sort_by(|a, b| a.name.cmp(&b.name));
    items
}

pub fn named<'i>(items: &'i mut [Item], name: &str) -> &'i mut Item {
    items.iter_mut().find(|i| i.name == name).unwrap()
}

pub fn safetensors(items: &[Item]) -> Vec<u8> {
    let (mut entries, mut data) = (vec![], vec![]);
    for i in items {
        let start = data.len();
        data.extend(&i.bytes);
        let dtype = i.dtype.name().to_uppercase();
        let (name, shape, end) = (&i.name, &i.shape, data.len());
        entries.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        ));
    }
    with_header(&format!("{{{}}}", entries.join(",")), &data)
}

/// A safetensors file with any header.
pub fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

/// A view of a storage, in elements.
#[derive(Clone, Debug)]
pub struct Strided {
    pub name: String,
    pub dtype: DType,
    pub key: String,
    pub len: i64,
    pub offset: i64,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
}

pub type Storages = Vec<(String, Vec<u8>)>;

/// Every tensor in a storage of its own.
pub fn contiguous(items: &[Item]) -> (Vec<Strided>, Storages) {
    let view = |(key, i): (usize, &Item)| {
        let mut strides = vec![1i64; i.shape.len()];
        for axis in (1..i.shape.len()).rev() {
            strides[axis - 1] = strides[axis] * i.shape[axis] as i64;
        }
        Strided {
            name: i.name.clone(),
            dtype: i.dtype,
            key: key.to_string(),
            len: (i.bytes.len() / i.dtype.size()) as i64,
            offset: 0,
            shape: i.shape.iter().map(|&d| d as i64).collect(),
            strides,
        }
    };
    let storages = items
        .iter()
        .enumerate()
        .map(|(key, i)| (key.to_string(), i.bytes.clone()))
        .collect();
    (items.iter().enumerate().map(view).collect(), storages)
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn integer(out: &mut Vec<u8>, n: i64) {
    out.extend([0x8a, 8]);
    out.extend(n.to_le_bytes());
}

/// The pickle of a dictionary of tensors.
pub fn pickle(views: &[Strided]) -> Vec<u8> {
    let mut out = vec![0x80, 2, b'}', b'('];
    for v in views {
        text(&mut out, &v.name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        let class = match v.dtype {
            DType::F32 => "FloatStorage",
            DType::F16 => "HalfStorage",
            DType::BF16 => "BFloat16Storage",
            DType::I32 => "IntStorage",
            DType::I8 => "CharStorage",
        };
        out.extend(format!("ctorch\n{class}\n").bytes());
        text(&mut out, &v.key);
        text(&mut out, "cpu");
        integer(&mut out, v.len);
        out.extend(b"tQ");
        integer(&mut out, v.offset);
        for sizes in [&v.shape, &v.strides] {
            out.push(b'(');
            sizes.iter().for_each(|&n| integer(&mut out, n));
            out.push(b't');
        }
        out.push(0x89);
        out.extend(b"ccollections\nOrderedDict\n)RtR");
    }
    out.extend(b"u.");
    out
}

/// A zip of stored entries.
pub fn zipped(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(vec![]));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in entries {
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

pub fn pth_with(views: &[Strided], storages: &Storages, byte_order: &str) -> Vec<u8> {
    let pickle = pickle(views);
    let names: Vec<String> = storages
        .iter()
        .map(|(key, _)| format!("archive/data/{key}"))
        .collect();
    let mut entries: Vec<(&str, &[u8])> = vec![
        ("archive/data.pkl", &pickle),
        ("archive/byteorder", byte_order.as_bytes()),
    ];
    entries.extend(
        names
            .iter()
            .zip(storages)
            .map(|(name, (_, bytes))| (name.as_str(), bytes.as_slice())),
    );
    zipped(&entries)
}

pub fn pth(items: &[Item]) -> Vec<u8> {
    let (views, storages) = contiguous(items);
    pth_with(&views, &storages, "little")
}

pub fn legacy_with(views: &[Strided], storages: &Storages, little_endian: bool) -> Vec<u8> {
    let mut out = vec![
        0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.',
    ];
    out.extend([0x80, 2, b'M', 0xe9, 3, b'.']);
    out.extend([0x80, 2, b'}', b'(']);
    text(&mut out, "little_endian");
    out.extend([if little_endian { 0x88 } else { 0x89 }, b'u', b'.']);
    out.extend(pickle(views));
    out.extend([0x80, 2, b']', b'(']);
    storages.iter().for_each(|(key, _)| text(&mut out, key));
    out.extend(b"e.");
    for (key, bytes) in storages {
        let size = views.iter().find(|v| v.key == *key).map_or(1, |v| v.dtype.size());
        out.extend(((bytes.len() / size) as i64).to_le_bytes());
        out.extend(bytes);
    }
    out
}

pub fn legacy(items: &[Item]) -> Vec<u8> {
    let (views, storages) = contiguous(items);
    legacy_with(&views, &storages, true)
}

pub fn transposed(item: &Item, name: String) -> Item {
    let (rows, columns, size) = (item.shape[0], item.shape[1], item.dtype.size());
    let element = |c: usize, r: usize| item.bytes[(r * columns + c) * size..][..size].iter().copied();
    let bytes = (0..columns)
        .flat_map(|c| (0..rows).flat_map(move |r| element(c, r)))
        .collect();
    Item {
        name,
        dtype: item.dtype,
        shape: vec![columns, rows],
        bytes,
    }
}

/// The same tensors in the Hugging Face layout.
pub fn hugging_face(items: &[Item]) -> Vec<Item> {
    let rename = |item: &Item| {
        let renamed = |name: String| Item { name, ..item.clone() };
        let Some((layer, part)) = item
            .name
            .strip_prefix("blocks.")
            .and_then(|rest| rest.split_once('.'))
        else {
            let top = [
                ("emb.", "model.embeddings."),
                ("ln_out.", "model.norm."),
                ("head.", "lm_head."),
            ];
            let (from, to) = top.iter().find(|(from, _)| item.name.starts_with(from)).unwrap();
            return renamed(item.name.replacen(from, to, 1));
        };
        let block = format!("model.layers.{layer}.");
        if let Some(low_rank) = part
            .strip_prefix("att.")
            .filter(|p| p.len() == 2 && p.as_bytes()[1].is_ascii_digit())
        {
            let (letter, kind) = low_rank.split_at(1);
            let name = |inner: &str| format!("{block}attn.{letter}_lora.lora.{inner}");
            return match kind {
                "0" => Item {
                    shape: vec![*item.shape.last().unwrap()],
                    ..renamed(name("2.bias"))
                },
                "1" => transposed(item, name("0.weight")),
                _ => transposed(item, name("2.weight")),
            };
        }
        let parts = [
            ("ln0.", "pre_norm."),
            ("ln1.", "attn_norm."),
            ("ln2.", "ffn_norm."),
            ("att.receptance.", "attn.r_proj."),
            ("att.key.", "attn.k_proj."),
            ("att.value.", "attn.v_proj."),
            ("att.output.", "attn.o_proj."),
            ("att.ln_x.", "attn.g_norm."),
            ("att.", "attn."),
        ];
        match parts.iter().find(|(from, _)| part.starts_with(from)) {
            Some((from, to)) => renamed(format!("{block}{}", part.replacen(from, to, 1))),
            None => renamed(format!("{block}{part}")),
        }
    };
    items.iter().map(rename).collect()
}

/// A folder that goes with the test.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

pub fn open(bytes: &[u8]) -> Result<Model, ModelError> {
    let folder = Folder::new();
    Model::open(&folder.write("model", bytes))
}

/// The message of a refusal, without the path of the file.
pub fn refusal(bytes: &[u8]) -> String {
    let folder = Folder::new();
    let path = folder.write("model", bytes);
    let message = Model::open(&path).unwrap_err().to_string();
    message.replace(&path.display().to_string(), "FILE")
}

/// Numbers of every weight, by name.
pub fn numbers(model: &Model) -> std::collections::BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let decode = |w: rwkvc_frontend::model::Weight<'_>| {
        let mut values = vec![0f32; w.bytes.len() / w.dtype.size()];
        w.dtype.decode(w.bytes, &mut values);
        (w.name.to_string(), (w.shape.to_vec(), values))
    };
    model.weights().map(decode).collect()
}
