//! Generated checkpoints are models of the sizes asked for.

mod writers;

use proptest::prelude::*;
use rwkvc_frontend::build::{Logits, build};
use rwkvc_frontend::generate::{GenerateOptions, generate};
use rwkvc_frontend::model::{Config, Model, Ranks};
use rwkvc_ir::DType;
use rwkvc_ir::graph::Dim;
use rwkvc_ir::graph::eval::{Bindings, Tensor, eval};
use writers::{generated, open, small};

fn refused(change: impl FnOnce(&mut GenerateOptions)) -> String {
    let mut options = small();
    change(&mut options);
    let mut file = vec![];
    let error = generate(&options, &mut file, &mut |_, _| {})
        .unwrap_err()
        .to_string();
    assert!(file.is_empty(), "something was written before the refusal");
    error
}

#[test]
fn impossible_options_are_refused() {
    assert_eq!(
        refused(|o| o.width = 10),
        "the width 10 is not a multiple of the head size 4"
    );
    assert_eq!(
        refused(|o| o.vocab = 0),
        "every size must be between 1 and 16777216"
    );
    assert_eq!(
        refused(|o| o.ffn = usize::MAX),
        "every size must be between 1 and 16777216"
    );
    assert_eq!(
        refused(|o| o.n_layers = 1 << 20),
        "1048576 layers, expected at most 16384"
    );
    assert_eq!(
        refused(|o| o.dtype = DType::I32),
        "weights of i32, expected f32, f16 or bf16"
    );
    for share in [0.0, 1.0, -1.0, f32::NAN] {
        let expected = format!("the share of zeros is {share}, expected between 0 and 1");
        assert_eq!(refused(|o| o.zero_share = Some(share)), expected);
    }
    let large = refused(|o| (o.n_layers, o.width, o.ffn) = (1 << 14, 1 << 24, 1 << 24));
    assert_eq!(
        large,
        "the model would have more than 70368744177664 bytes, which no file should"
    );
}

#[test]
fn presets_are_the_published_sizes() {
    let names: Vec<&str> = GenerateOptions::presets().collect();
    assert_eq!(names, ["0.1b", "0.4b", "1.5b", "2.9b", "7.2b"]);
    assert_eq!(GenerateOptions::preset("8b"), None);
    let published = [
        ("0.1b", 191_034_624),
        ("0.4b", 450_767_872),
        ("1.5b", 1_527_404_544),
        ("2.9b", 2_947_735_040),
        ("7.2b", 7_199_141_888),
    ];
    for (name, count) in published {
        assert_eq!(
            parameters(&GenerateOptions::preset(name).unwrap()),
            count,
            "{name}"
        );
    }
    assert_eq!(
        open(&generated(&small())).unwrap().summary().parameters,
        parameters(&small())
    );
}

/// Numbers in use.
fn parameters(o: &GenerateOptions) -> u64 {
    let (c, f) = (o.width as u64, o.ffn as u64);
    let [w, a, v, g] = o.ranks.map(|r| r as u64);
    let matrices = 4 * c * c + 2 * c * f + 2 * c * (w + a + v + g);
    // Three norms, seven mixes, w0 a0 v0, k_k k_a r_k.
    let vectors = (6 + 7 + 3 + 3) * c;
    // The first block's value gate is not in use; ln0 and ln_out are outside the blocks.
    o.n_layers as u64 * (matrices + vectors) - (2 * c * v + c) + 2 * o.vocab as u64 * c + 4 * c
}

#[test]
fn equal_seeds_give_equal_files() {
    let other = GenerateOptions { seed: 8, ..small() };
    assert!(generated(&small()) == generated(&small()));
    assert!(generated(&small()) != generated(&other));
    let (mut calls, mut file) = (vec![], vec![]);
    generate(&small(), &mut file, &mut |done, total| calls.push((done, total))).unwrap();
    assert!(calls.is_sorted() && calls.iter().all(|c| c.1 == calls[0].1));
    let header = 8 + u64::from_le_bytes(file[..8].try_into().unwrap());
    assert_eq!(header % 64, 0);
    assert_eq!(
        calls.last(),
        Some(&(file.len() as u64 - header, file.len() as u64 - header))
    );
}

/// The share of negative inputs of the channel mix's activation, in all blocks, over a few tokens.
fn zeros(model: &Model) -> f32 {
    let mut graph = build(model, Logits::Last, false).unwrap();
    for (i, node) in graph.nodes_of("relu").into_iter().enumerate() {
        let value = graph.operands(node)[0];
        graph.set_output(format!("hidden{i}"), value);
    }
    let tokens: Vec<u32> = (0..24).map(|t| t * 7 % 64).collect();
    let mut bindings = Bindings::<f32>::new(model).with("tokens", Tensor::tokens([1, 24], &tokens));
    for (name, ty) in graph.inputs().into_iter().filter(|(name, _)| name != "tokens") {
        let fixed = |d: &Dim| if let Dim::Fixed(n) = d { *n } else { 1 };
        let shape: Vec<usize> = ty.shape.iter().map(fixed).collect();
        bindings = bindings.with(name, Tensor::zeros(shape));
    }
    let outputs = eval(&graph, &bindings).unwrap();
    let hidden = outputs
        .iter()
        .filter(|(name, _)| name.starts_with("hidden"))
        .flat_map(|(_, t)| t.values());
    let (negative, all) = hidden.fold((0, 0), |(n, all), &x| (n + u32::from(x <= 0.0), all + 1));
    assert_eq!(all, 3 * 24 * 512);
    negative as f32 / all as f32
}

#[test]
fn the_share_of_zeros_is_about_what_was_asked_for() {
    let base = GenerateOptions {
        n_layers: 3,
        width: 128,
        head_size: 32,
        ffn: 512,
        vocab: 64,
        ranks: [16, 16, 8, 32],
        ..small()
    };
    for (share, expected) in [(None, 0.5), (Some(0.3), 0.3), (Some(0.7), 0.7), (Some(0.9), 0.9)] {
        let model = open(&generated(&GenerateOptions {
            zero_share: share,
            ..base.clone()
        }))
        .unwrap();
        let found = zeros(&model);
        assert!(
            (found - expected).abs() < 0.1,
            "{found} of the activations are zero, expected {expected}"
        );
    }
}

fn options() -> impl Strategy<Value = GenerateOptions> {
    let sizes = (1usize..4, 1usize..5, 1usize..9, 1usize..40, 1usize..50);
    let dtype = prop_oneof![Just(DType::F32), Just(DType::F16), Just(DType::BF16)];
    let rest = (
        [1usize..9, 1usize..9, 1usize..9, 1usize..9],
        dtype,
        any::<u64>(),
        any::<[bool; 2]>(),
    );
    (sizes, rest, proptest::option::of(0.01f32..0.99)).prop_map(
        |(sizes, (ranks, dtype, seed, flags), zero_share)| {
            let (n_layers, n_heads, head_size, ffn, vocab) = sizes;
            let [layer0_value_gate, has_ln0] = flags;
            let width = n_heads * head_size;
            GenerateOptions {
                n_layers,
                width,
                head_size,
                ffn,
                vocab,
                ranks,
                dtype,
                seed,
                layer0_value_gate,
                has_ln0,
                zero_share,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_asked_for_is_what_opens(o in options()) {
        let model = open(&generated(&o)).unwrap();
        let [decay, iclr, value, gate] = o.ranks;
        let ranks = |layer| Ranks { decay, iclr, value: (layer > 0).then_some(value), gate };
        let expected = Config {
            n_layers: o.n_layers,
            width: o.width,
            n_heads: o.width / o.head_size,
            head_size: o.head_size,
            ffn: o.ffn,
            vocab: o.vocab,
            layer_norm_eps: 1e-5,
            group_norm_eps: 64e-5,
            has_ln0: o.has_ln0,
            deep_embed: None,
            ranks: (0..o.n_layers).map(ranks).collect(),
        };
        prop_assert_eq!(model.config(), &expected);
        prop_assert_eq!(model.ignored().len(), if o.layer0_value_gate { 3 } else { 0 });
        prop_assert!(model.not_finite().is_empty());
        prop_assert!(model.weights().all(|w| w.dtype == o.dtype));
        prop_assert!(build(&model, Logits::All, true).is_ok());
    }
}
