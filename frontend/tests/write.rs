//! Checkpoints out: what is written is what is read back, and what a layout cannot say is refused.

mod writers;

use proptest::prelude::*;
use rwkvc_frontend::checkpoint::{BlockFormat, Checkpoint, CheckpointFormat, Storage};
use rwkvc_frontend::generate::{GenerateOptions, Random};
use rwkvc_frontend::model::Model;
use rwkvc_frontend::write::{Metadata, OutputLayout, Source, WriteError, write};
use rwkvc_ir::DType;
use writers::*;

const Q8_0: Storage = Storage::Blocks(BlockFormat::Q8_0);

fn layout(gguf: bool) -> OutputLayout<'static> {
    if gguf {
        OutputLayout::Gguf(Metadata {
            name: "a model",
            token: None,
        })
    } else {
        OutputLayout::Safetensors
    }
}

fn written(
    source: &dyn Source,
    layout: &OutputLayout<'_>,
    weights: Option<Storage>,
) -> Result<Vec<u8>, WriteError> {
    let (mut file, mut calls) = (vec![], vec![]);
    write(source, layout, weights, &mut file, &mut |done, all| {
        calls.push((done, all))
    })?;
    assert!(calls.is_sorted() && calls.iter().all(|c| c.1 == calls[0].1));
    let (done, all) = calls[calls.len() - 1];
    assert!(done == all && all < file.len() as u64);
    Ok(file)
}

fn gguf(source: &dyn Source, weights: Option<Storage>) -> Vec<u8> {
    written(source, &layout(true), weights).unwrap()
}

/// Why nothing is written.
fn refused(source: &dyn Source, gguf: bool, weights: Option<Storage>) -> String {
    written(source, &layout(gguf), weights).unwrap_err().to_string()
}

fn model(options: &GenerateOptions) -> Model {
    open(&generated(options)).unwrap()
}

#[test]
fn safetensors_come_back_to_the_byte() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let options = GenerateOptions {
            dtype,
            layer0_value_gate: false,
            ..small()
        };
        let file = generated(&options);
        assert!(written(&open(&file).unwrap(), &layout(false), None).unwrap() == file);
    }
}

#[test]
fn gguf_holds_the_same_numbers() {
    let original = model(&small());
    let file = gguf(&original, None);
    let copy = open(&file).unwrap();
    assert_eq!(
        (copy.format(), copy.config()),
        (CheckpointFormat::Gguf, original.config())
    );
    assert!(numbers(&copy) == numbers(&original));
    assert_eq!(copy.fingerprint(), original.fingerprint());
    // As an independent writer makes it, but for the metadata and the order.
    let independent = open(&writers::gguf::Gguf::of(&items()).write()).unwrap();
    assert!(numbers(&copy) == numbers(&independent));
    // And on to the official layout.
    let back = open(&written(&copy, &layout(false), None).unwrap()).unwrap();
    assert!(numbers(&back) == numbers(&original));
    // A random model is written as it would be read.
    assert!(gguf(&Random::new(&small()).unwrap(), None) == file);
}

#[test]
fn a_gguf_that_ends_early_is_refused() {
    let file = gguf(&model(&small()), None);
    for end in (0..file.len()).step_by(41).chain([file.len() - 1]) {
        assert!(open(&file[..end]).is_err(), "{end} of {}", file.len());
    }
}

/// The formats of some tensors of a file.
fn storages(file: &[u8]) -> [&'static str; 5] {
    let folder = Folder::new();
    let checkpoint = Checkpoint::open(&folder.write("model", file)).unwrap();
    let of = |name: &str| checkpoint.tensors().iter().find(|t| t.name() == name).unwrap();
    [
        "emb.weight",
        "blocks.1.att.w1",
        "blocks.1.att.a1",
        "blocks.1.att.r_k",
        "ln_out.bias",
    ]
    .map(|name| of(name).storage().name())
}

#[test]
fn matrices_get_the_format_that_is_asked_for() {
    let options = GenerateOptions {
        width: 32,
        ffn: 64,
        dtype: DType::BF16,
        ..small()
    };
    let original = model(&options);
    let plain = |dtype| Some(Storage::Plain(dtype));
    let official = |weights| storages(&written(&original, &layout(false), weights).unwrap());
    assert_eq!(official(None), ["bf16"; 5]);
    assert_eq!(official(plain(DType::F32)), ["f32", "f32", "f32", "bf16", "bf16"]);
    let llama = |weights| storages(&gguf(&original, weights));
    assert_eq!(llama(None), ["bf16", "f32", "bf16", "f32", "f32"]);
    assert_eq!(llama(plain(DType::F16)), ["f16", "f32", "f16", "f32", "f32"]);
    assert_eq!(llama(Some(Q8_0)), ["q8_0", "f32", "bf16", "f32", "f32"]);
}

#[test]
fn q8_0_is_off_by_half_a_step_at_most() {
    let options = GenerateOptions {
        width: 32,
        ffn: 64,
        ..small()
    };
    let original = model(&options);
    let folder = Folder::new();
    let copy = Checkpoint::open(&folder.write("model", gguf(&original, Some(Q8_0)))).unwrap();
    let tensor = |name: &str| copy.tensors().iter().find(|t| t.name() == name).unwrap();
    for name in ["emb.weight", "head.weight", "blocks.1.ffn.value.weight"] {
        let (_, expected) = &numbers(&original)[name];
        let mut found = vec![];
        let all = tensor(name).each_chunk(|values| {
            found.extend_from_slice(values);
            Ok::<(), ()>(())
        });
        assert_eq!((all, found.len()), (Ok(()), expected.len()));
        for (expected, found) in expected.chunks(32).zip(found.chunks(32)) {
            let largest = expected.iter().fold(0f32, |most, v| most.max(v.abs()));
            // Half a step, and what f16 takes off the scale.
            let most = largest * (0.5 / 127.0 + 1.0 / 2048.0);
            let worst = expected
                .iter()
                .zip(found)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(worst <= most, "{name}: off by {worst} of {largest}");
        }
    }
}

#[test]
fn the_vocabulary_has_a_token_for_every_row() {
    let token = |id: u32| match id {
        1 => Some(&b"a\\'\"\n\x00\xff"[..]),
        2 => Some(&b"it's"[..]),
        _ => None,
    };
    let metadata = Metadata {
        name: "a model",
        token: Some(&token),
    };
    let file = written(&model(&small()), &OutputLayout::Gguf(metadata), None).unwrap();
    let has = |text: &str| {
        let text = writers::gguf::text(text);
        file.windows(text.len()).any(|w| w == text)
    };
    assert!(has("<s>") && has("it's") && has("[PAD3]") && has("[PAD9]") && !has("[PAD10]"));
    assert!(has(r#"a\\\'"\n\x00\xff"#));
    assert!(has("rwkv") && !has("rwkv-world"));
    assert!(open(&file).is_ok());
}

#[test]
fn what_a_layout_cannot_say_is_refused() {
    let no_place = "a GGUF file of RWKV-7 has no place for this model: ";
    let changed = |change: &dyn Fn(&mut Vec<Item>)| {
        let mut all = items();
        change(&mut all);
        refused(&open(&safetensors(&all)).unwrap(), true, None)
    };
    assert_eq!(
        changed(&|all| all.retain(|i| !i.name.contains("ln0"))),
        format!("{no_place}it has no `blocks.0.ln0.weight`")
    );
    assert_eq!(
        changed(&|all| all.push(Item::zeros("head.bias", &[10]))),
        format!("{no_place}it has a tensor `head.bias`")
    );
    assert_eq!(
        changed(&|all| {
            *named(all, "blocks.0.att.g1") = Item::zeros("blocks.0.att.g1", &[8, 3]);
            *named(all, "blocks.0.att.g2") = Item::zeros("blocks.0.att.g2", &[3, 8]);
        }),
        format!("{no_place}the ranks of block 0 are not those of the last one")
    );
    assert_eq!(
        changed(&|all| {
            *named(all, "blocks.1.ffn.key.weight") = Item::zeros("blocks.1.ffn.key.weight", &[9, 8]);
            *named(all, "blocks.1.ffn.value.weight") = Item::zeros("blocks.1.ffn.value.weight", &[8, 9]);
        }),
        format!("{no_place}`blk.1.channel_mix_key.weight` has 9 hidden units, the first block has 12")
    );
    // Heads of four channels: the constants of the Hugging Face layout are others than the official ones.
    let other = open(&safetensors(&hugging_face(&items()))).unwrap();
    assert!(
        refused(&other, true, None).starts_with(&format!("{no_place}epsilon of its group norm is 0.00004"))
    );
    assert!(refused(&other, false, None).starts_with("epsilon of the group norm is 0.00004"));
}

#[test]
fn numbers_that_do_not_fit_are_refused() {
    let mut all = items();
    named(&mut all, "blocks.1.att.key.weight").bytes[8..12].copy_from_slice(&1e6f32.to_le_bytes());
    let large = open(&safetensors(&all)).unwrap();
    let f16 = Some(Storage::Plain(DType::F16));
    assert_eq!(
        refused(&large, false, f16),
        "tensor `blocks.1.att.key.weight` has the number 1000000, which f16 cannot hold"
    );
    assert!(written(&large, &layout(false), Some(Storage::Plain(DType::BF16))).is_ok());
    assert_eq!(
        refused(&large, false, Some(Q8_0)),
        "a safetensors file holds f32, f16 or bf16, not q8_0; a .gguf file can"
    );
    assert_eq!(
        refused(&large, true, Some(Q8_0)),
        "tensor `emb.weight` has rows of 8 numbers, expected a multiple of the 32 in a block of q8_0"
    );
    let options = GenerateOptions {
        width: 32,
        ffn: 64,
        ..small()
    };
    let mut all = items_of(&options);
    for (value, found) in [(f32::NAN, "NaN"), (1e9, "1000000000")] {
        named(&mut all, "head.weight").bytes[..4].copy_from_slice(&value.to_le_bytes());
        assert_eq!(
            refused(&open(&safetensors(&all)).unwrap(), true, Some(Q8_0)),
            format!("tensor `output.weight` has the number {found}, which q8_0 cannot hold")
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_size_comes_back(
        (n_layers, heads, head_size, ffn, vocab) in (1usize..4, 1usize..5, 1usize..9, 1usize..40, 1usize..50),
        ranks in [1usize..9, 1usize..9, 1usize..9, 1usize..9],
        dtype in prop_oneof![Just(DType::F32), Just(DType::F16), Just(DType::BF16)],
        layer0_value_gate: bool,
    ) {
        let width = heads * head_size;
        let options = GenerateOptions {
            n_layers, width, head_size, ffn, vocab, ranks, dtype, layer0_value_gate, ..small()
        };
        let original = model(&options);
        let copy = open(&gguf(&Random::new(&options).unwrap(), None)).unwrap();
        prop_assert_eq!(copy.config(), original.config());
        prop_assert!(numbers(&copy) == numbers(&original));
    }
}
