//! GGUF files: the same model under llama.cpp's names, quantised tensors, and what is refused.

mod writers;

use rwkvc_frontend::checkpoint::{BlockFormat, Checkpoint, CheckpointFormat, Storage};
use rwkvc_frontend::generate::GenerateOptions;
use rwkvc_frontend::model::Model;
use rwkvc_ir::DType;
use safetensors::SafeTensors;
use writers::gguf::{Gguf, text};
use writers::*;

#[test]
fn it_is_the_same_model() {
    let expected = open(&safetensors(&items())).unwrap();
    for (version, alignment) in [(3, 32), (2, 32), (3, 8)] {
        let mut file = Gguf {
            version,
            alignment,
            ..Gguf::of(&items())
        };
        file.set("general.alignment", 4, &(alignment as u32).to_le_bytes());
        let model = open(&file.write()).unwrap();
        assert_eq!(model.format(), CheckpointFormat::Gguf);
        assert_eq!(model.config(), expected.config());
        assert!(numbers(&model) == numbers(&expected));
        assert_eq!(model.fingerprint(), expected.fingerprint());
        assert_eq!(model.ignored().len(), 3, "v0, v1 and v2 of the first block");
        assert!(model.notes().is_empty());
    }
    // Epsilon of the layer norms, as a number and not as the f32 next to it.
    let mut file = Gguf::of(&items());
    let key = "rwkv7.attention.layer_norm_epsilon";
    file.set(key, 6, &0.001f32.to_le_bytes());
    assert_eq!(open(&file.write()).unwrap().config().layer_norm_eps, 0.001);
    file.metadata.retain(|(k, ..)| k != key);
    assert_eq!(open(&file.write()).unwrap().config().layer_norm_eps, 1e-5);
}

/// Blocks and what the Python package `gguf` decodes from them.
fn blocks(format: BlockFormat) -> (Vec<u8>, Vec<f32>) {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/fixtures/ggml-blocks.safetensors"
    );
    let file = std::fs::read(path).unwrap();
    let all = SafeTensors::deserialize(&file).unwrap();
    let bytes = |what: &str| {
        let name = format!("{}.{what}", format.name());
        all.tensor(&name).unwrap().data().to_vec()
    };
    let values = bytes("values");
    let values = values
        .chunks(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    (bytes("blocks"), values.collect())
}

#[test]
fn blocks_are_decoded_as_others_do() {
    for format in BlockFormat::ALL {
        let (bytes, expected) = blocks(format);
        assert_eq!(expected.len() / format.values(), 2);
        let mut values = vec![0f32; expected.len()];
        let parts = bytes
            .chunks(format.bytes())
            .zip(values.chunks_mut(format.values()));
        parts.for_each(|(block, values)| format.decode(block, values));
        assert_eq!(values, expected, "{}", format.name());
    }
}

#[test]
fn blocks_are_decoded_as_they_are_documented() {
    // Scale 0.5, the numbers -2, 0, 2 and so on.
    let mut block = half::f16::from_f32(0.5).to_le_bytes().to_vec();
    block.extend((0..32).map(|i| (4 * (i as i8 - 1)) as u8));
    let mut values = [0f32; 32];
    BlockFormat::Q8_0.decode(&block, &mut values);
    assert_eq!(values[..3], [-2.0, 0.0, 2.0]);
    assert_eq!(values[31], 60.0);
    // Number 17 is in the upper half of byte 1.
    let mut block = half::f16::from_f32(2.0).to_le_bytes().to_vec();
    block.extend([0x88; 16]);
    block[2 + 1] = 0xf8;
    BlockFormat::Q4_0.decode(&block, &mut values);
    assert_eq!(values.iter().position(|v| *v != 0.0), Some(17));
    assert_eq!(values[17], 14.0);
}

/// Sizes of which every matrix has whole blocks.
fn blocky() -> Vec<Item> {
    items_of(&GenerateOptions {
        width: 512,
        head_size: 64,
        ffn: 256,
        vocab: 12,
        ranks: [32, 32, 32, 64],
        ..small()
    })
}

/// A model that has this tensor in blocks of a format, the fixture's repeated; and the numbers of it in order.
fn quantised(name: &str, kind: u32, format: BlockFormat) -> (Vec<u8>, Vec<f32>) {
    let (bytes, values) = blocks(format);
    let mut file = Gguf::of(&blocky());
    let entry = file.tensor(name);
    let n = entry.bytes.len() / 4;
    entry.kind = kind;
    entry.bytes = bytes
        .iter()
        .copied()
        .cycle()
        .take(n / format.values() * format.bytes())
        .collect();
    (file.write(), values.into_iter().cycle().take(n).collect())
}

/// The numbers of the types in the file.
const KINDS: [(u32, BlockFormat); 8] = [
    (2, BlockFormat::Q4_0),
    (3, BlockFormat::Q4_1),
    (6, BlockFormat::Q5_0),
    (7, BlockFormat::Q5_1),
    (8, BlockFormat::Q8_0),
    (12, BlockFormat::Q4K),
    (13, BlockFormat::Q5K),
    (14, BlockFormat::Q6K),
];

#[test]
fn quantised_tensors_become_f16() {
    for (kind, format) in KINDS {
        let (file, values) = quantised("blk.1.channel_mix_key.weight", kind, format);
        let model = open(&file).unwrap();
        let note = format!(
            "it has quantised tensors (1 in {}); what is not multiplied in blocks is decoded to f16 in memory",
            format.name()
        );
        assert_eq!(model.notes(), [note]);
        let weight = model.weight("blocks.1.ffn.key.weight").unwrap();
        assert_eq!((weight.dtype, weight.shape), (DType::F16, &[256, 512][..]));
        let mut found = vec![0f32; values.len()];
        weight.dtype.decode(weight.bytes, &mut found);
        let rounded = values.iter().map(|v| half::f16::from_f32(*v).to_f32());
        assert!(found.into_iter().eq(rounded), "{}", format.name());
        let summary = model.summary();
        assert_eq!(summary.parameters_by_storage[format.name()], 256 * 512);
        assert!(model.not_finite().is_empty());
    }
}

#[test]
fn blocks_stay_reachable() {
    let (file, values) = quantised("blk.0.time_mix_output.weight", 8, BlockFormat::Q8_0);
    let folder = Folder::new();
    let checkpoint = Checkpoint::open(&folder.write("model.gguf", file)).unwrap();
    let of = |name: &str| checkpoint.tensors().iter().find(|t| t.name() == name).unwrap();
    let tensor = of("blocks.0.att.output.weight");
    assert_eq!(tensor.storage(), Storage::Blocks(BlockFormat::Q8_0));
    let view = tensor.quantised().unwrap();
    assert_eq!(view.blocks()[..34], blocks(BlockFormat::Q8_0).0[..34]);
    assert!(!view.is_transposed());
    // More exact than f16, in order.
    let mut found = vec![];
    tensor
        .each_chunk(|chunk| -> Result<(), ()> {
            found.extend_from_slice(chunk);
            Ok(())
        })
        .unwrap();
    assert!(found == values);
    assert!(of("emb.weight").quantised().is_none());
}

#[test]
fn quantised_low_rank_matrices_are_transposed() {
    let (file, values) = quantised("blk.1.time_mix_a1.weight", 8, BlockFormat::Q8_0);
    let model = open(&file).unwrap();
    let weight = model.weight("blocks.1.att.a1").unwrap();
    assert_eq!(weight.shape, [512, 32]);
    for (row, column) in [(0, 0), (0, 1), (1, 0), (511, 31)] {
        let found = weight.dtype.read(weight.bytes, row * 32 + column) as f32;
        assert_eq!(found, half::f16::from_f32(values[column * 512 + row]).to_f32());
    }
}

#[test]
fn large_scales_need_f32() {
    let mut file = Gguf::of(&blocky());
    let entry = file.tensor("output.weight");
    let n = entry.bytes.len() / 4 / 32;
    let mut block = half::f16::from_f32(1000.0).to_le_bytes().to_vec();
    block.extend([100; 32]);
    (entry.kind, entry.bytes) = (8, block.repeat(n));
    let model = open(&file.write()).unwrap();
    let weight = model.weight("head.weight").unwrap();
    assert_eq!(
        (weight.dtype, weight.dtype.read(weight.bytes, 77)),
        (DType::F32, 1e5)
    );
    // What is not a number is found as in every format.
    let entry = file.tensor("output.weight");
    entry.bytes[..2].copy_from_slice(&half::f16::INFINITY.to_le_bytes());
    let bad = open(&file.write()).unwrap().not_finite();
    assert_eq!((bad[0].name.as_str(), bad[0].count), ("head.weight", 32));
}

/// The message for the small model after a change.
fn after(change: impl FnOnce(&mut Gguf)) -> String {
    let mut file = Gguf::of(&items());
    change(&mut file);
    refusal(&file.write())
}

#[test]
fn other_files_are_named() {
    let said = |key: &str, kind: u32, bytes: &[u8]| after(|f| f.set(key, kind, bytes));
    assert_eq!(
        said("general.architecture", 8, &text("llama")),
        "`FILE`: its `general.architecture` is `llama`, expected `rwkv7`"
    );
    assert_eq!(
        after(|f| f.metadata.clear()),
        "`FILE`: it does not say `general.architecture`, expected `rwkv7`"
    );
    assert_eq!(
        said("rwkv7.wkv.head_size", 4, &[0; 4]),
        "`FILE`: its `rwkv7.wkv.head_size` is 0, expected a number of channels"
    );
    assert_eq!(
        said("rwkv7.wkv.head_size", 4, &3u32.to_le_bytes()),
        "`FILE`: tensor `blk.0.time_mix_r_k.weight` is [8], expected whole heads of 3 channels, as `rwkv7.wkv.head_size` says"
    );
    assert_eq!(
        said("rwkv7.attention.layer_norm_epsilon", 6, &f32::NAN.to_le_bytes()),
        "`FILE`: its `rwkv7.attention.layer_norm_epsilon` is NaN, expected a number between 0 and 1"
    );
    assert_eq!(
        said("split.count", 2, &2u16.to_le_bytes()),
        "`FILE`: it is one of several parts of a model; llama-gguf-split --merge joins them"
    );
    assert_eq!(
        said("general.alignment", 4, &7u32.to_le_bytes()),
        "`FILE`: its `general.alignment` is 7, expected a power of two"
    );
    assert_eq!(
        said("more", 13, &[]),
        "`FILE`: the value of `more` is of type 13, which GGUF does not have"
    );
    assert_eq!(
        after(|f| f.metadata.push(f.metadata[0].clone())),
        "`FILE`: it says `general.architecture` twice"
    );
    assert_eq!(
        after(|f| f.version = 1),
        "`FILE`: it is GGUF of version 1, expected 2 or 3"
    );
    assert_eq!(
        after(|f| f.version = 3u32.swap_bytes()),
        "`FILE`: its byte order is `big`, expected `little`"
    );
    let list = [&8u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat();
    assert!(said("more", 9, &list).starts_with("`FILE`: its header needs "));
    let list = [&10u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat();
    assert!(said("more", 9, &list).starts_with(&format!("`FILE`: its header needs {} bytes", u64::MAX)));
    let nested = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
    assert!(said("more", 9, &nested).ends_with("is of type 9, which GGUF does not have"));
}

#[test]
fn tensors_lie_in_the_file() {
    let head = |change: &dyn Fn(&mut writers::gguf::Entry)| after(|f| change(f.tensor("output.weight")));
    let starts = "`FILE`: tensor `output.weight` ";
    assert_eq!(
        head(&|t| t.kind = 10),
        format!(
            "{starts}is of type 10, expected one of f32, f16, q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k, q6_k, bf16"
        )
    );
    assert_eq!(
        head(&|t| t.kind = 8),
        format!("{starts}has rows of 8 numbers, expected a multiple of the 32 in a block of q8_0")
    );
    assert_eq!(
        head(&|t| t.dimensions = vec![1 << 40, 1 << 40]),
        format!(
            "{starts}has the impossible shape [{}, {}]",
            1u64 << 40,
            1u64 << 40
        )
    );
    assert_eq!(
        head(&|t| t.dimensions = vec![1; 5]),
        format!("{starts}has 5 dimensions, expected at most 4")
    );
    assert!(
        head(&|t| t.offset = Some(1 << 20 | 4))
            .contains("begins at byte 1048580 of the data, expected a multiple of 32")
    );
    assert!(
        head(&|t| t.offset = Some(1 << 63))
            .contains(&format!("has 320 bytes from byte {} of the data", 1u64 << 63))
    );
    assert!(head(&|t| t.dimensions[1] = 1 << 20).contains(" of the data, which has "));
    // All begin with the first.
    let overlap = head(&|t| t.offset = Some(0));
    assert!(
        overlap.contains(" of the data, but another begins at byte 0"),
        "{overlap}"
    );
    assert_eq!(
        after(|f| f.tensors.push(f.tensors[3].clone())),
        format!(
            "`FILE`: two tensors are named `{}`",
            Gguf::of(&items()).tensors[3].name
        )
    );
}

#[test]
fn tensors_are_those_of_the_architecture() {
    let renamed = |name: &'static str| after(|f| f.tensor("output.weight").name = name.into());
    assert_eq!(
        renamed("rope_freqs.weight"),
        "`FILE`: tensor `rope_freqs.weight` is none of those that a GGUF file of RWKV-7 has"
    );
    assert_eq!(
        renamed("blk.0.time_mix_first.weight"),
        "`FILE`: tensor `blk.0.time_mix_first.weight` is none of those that a block of a GGUF file of RWKV-7 has"
    );
    assert_eq!(
        after(|f| f.tensors.retain(|t| t.name != "output.weight")),
        "tensor `head.weight` is missing"
    );
    // A model without a gate.
    let five = after(|f| {
        let mixes = f.tensor("blk.0.time_mix_lerp_fused.weight");
        mixes.bytes.truncate(5 * 32);
        mixes.dimensions[3] = 5;
    });
    assert_eq!(five, "tensor `blocks.0.att.x_g` is missing");
    let seven = after(|f| f.tensor("blk.0.time_mix_lerp_fused.weight").dimensions = vec![48]);
    assert!(seven.ends_with("is [48], expected [6, 1, 1, C]"), "{seven}");
    let vector = after(|f| f.tensor("blk.0.time_mix_w1.weight").dimensions = vec![16]);
    assert!(vector.ends_with("is [16], expected a matrix"), "{vector}");
}

#[test]
fn a_file_that_ends_early_is_refused() {
    let (quantised, _) = quantised("output.weight", 12, BlockFormat::Q4K);
    for file in [Gguf::of(&items()).write(), quantised] {
        for end in (4..file.len())
            .step_by(1 + file.len() / 700)
            .chain([file.len() - 1])
        {
            let folder = Folder::new();
            assert!(
                Model::open(&folder.write("short", &file[..end])).is_err(),
                "{end} of {}",
                file.len()
            );
        }
    }
}
