//! The trained models, in every layout that they are stored in.

mod writers;

use std::path::PathBuf;

use rwkvc_frontend::checkpoint::CheckpointFormat;
use rwkvc_frontend::model::{Config, Model, Ranks};
use rwkvc_ir::DType;

fn open(name: &str) -> Model {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    Model::open(&path).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// All of these hold the same numbers.
fn assert_same(first: &str, others: &[(&str, CheckpointFormat, DType)]) {
    let model = open(first);
    let expected = writers::numbers(&model);
    for (name, format, dtype) in others {
        let other = open(name);
        assert_eq!(other.format(), *format, "{name}");
        assert_eq!(other.config(), model.config(), "{name}");
        assert_eq!(other.fingerprint(), model.fingerprint(), "{name}");
        assert!(
            other.weights().all(|w| w.dtype == *dtype),
            "{name} is not all {dtype}"
        );
        assert!(
            writers::numbers(&other) == expected,
            "{name} holds other numbers than {first}"
        );
    }
}

#[test]
fn every_file_of_the_demo_is_the_same_model() {
    let others = [
        ("tests/fixtures/demo.pth", CheckpointFormat::Pth, DType::BF16),
        ("tests/fixtures/demo-fp16.pth", CheckpointFormat::Pth, DType::F16),
        (
            "tests/fixtures/demo-hf",
            CheckpointFormat::HuggingFace,
            DType::BF16,
        ),
        (
            "tests/fixtures/demo-hf/model.safetensors",
            CheckpointFormat::HuggingFace,
            DType::BF16,
        ),
        (
            "models/demo.safetensors",
            CheckpointFormat::Safetensors,
            DType::BF16,
        ),
    ];
    assert_same("models/demo.safetensors", &others);
}

#[test]
fn every_file_of_the_tracker_is_the_same_model() {
    let others = [
        ("tests/fixtures/tracker.pth", CheckpointFormat::Pth, DType::F32),
        (
            "tests/fixtures/tracker-legacy-nozip.pth",
            CheckpointFormat::PthLegacy,
            DType::F32,
        ),
        (
            "tests/fixtures/tracker-hf",
            CheckpointFormat::HuggingFace,
            DType::F32,
        ),
    ];
    assert_same("tests/fixtures/tracker-fp32.safetensors", &others);
}

#[test]
fn sizes_come_from_the_shapes() {
    let demo = open("models/demo.safetensors");
    let ranks = |value| Ranks {
        decay: 32,
        iclr: 32,
        value,
        gate: 64,
    };
    let expected = Config {
        n_layers: 4,
        width: 256,
        n_heads: 4,
        head_size: 64,
        ffn: 1024,
        vocab: 320,
        layer_norm_eps: 1e-5,
        group_norm_eps: 64e-5,
        has_ln0: true,
        deep_embed: None,
        ranks: vec![ranks(None), ranks(Some(16)), ranks(Some(16)), ranks(Some(16))],
    };
    assert_eq!(demo.config(), &expected);
    let summary = demo.summary();
    assert_eq!(
        (summary.parameters, summary.dtype.as_str(), summary.variant),
        (3_616_512, "bf16", "RWKV-7")
    );
    assert_eq!(summary.state_bytes, 4 * 4 * (2 * 256 + 4 * 64 * 64));
    assert_eq!(summary.weight_bytes - summary.bytes_per_token, 319 * 256 * 2);
    assert!(demo.ignored().is_empty() && demo.not_finite().is_empty());
}

#[test]
fn deep_embed_is_recognised() {
    let model = open("tests/fixtures/deepembed-random.pth");
    let c = model.config();
    assert_eq!(
        (c.n_layers, c.width, c.ffn, c.vocab, c.deep_embed),
        (2, 128, 512, 96, Some(32))
    );
    assert_eq!(model.summary().variant, "RWKV-7a");
    assert_eq!(
        model.weight("blocks.1.ffn.s_emb.weight").unwrap().shape,
        [96, 1024]
    );
    assert!(model.not_finite().is_empty());
}
