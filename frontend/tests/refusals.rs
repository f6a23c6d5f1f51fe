//! Checkpoints that are not RWKV-7 models: each refusal names the thing, what was found and what was expected.

mod writers;

use writers::*;

/// The message for the small model after a change.
fn after(change: impl FnOnce(&mut Vec<Item>)) -> String {
    let mut all = items();
    change(&mut all);
    refusal(&safetensors(&all))
}

fn with(name: &str) -> String {
    after(|all| all.push(Item::zeros(name, &[2])))
}

fn without(name: &str) -> String {
    after(|all| all.retain(|i| i.name != name))
}

fn reshaped(name: &str, shape: &[usize]) -> String {
    after(|all| *named(all, name) = Item::zeros(name, shape))
}

#[test]
fn other_versions_are_named() {
    let versions = [
        (
            "blocks.0.qkv.qq.weight",
            "RWKV-7b, whose attention keeps a growing cache",
        ),
        ("blocks.0.ffn.enn.weight", "RWKV-8"),
        ("blocks.1.rosa_emb.weight", "RWKV-8 (ROSA)"),
        ("blocks.0.att.time_maa_x", "RWKV-6"),
        ("blocks.0.att.time_faaaa", "RWKV-5"),
        ("blocks.0.att.time_mix_g", "RWKV-5"),
        ("blocks.0.att.time_first", "RWKV-4 or RWKV-5"),
        ("blocks.0.att.time_decay", "RWKV-4, 5 or 6"),
        ("blocks.0.ffn.time_mix_k", "RWKV-4 or RWKV-5"),
    ];
    for (tensor, version) in versions {
        let expected = format!(
            "this is {version} (tensor `{tensor}`), which is not supported: rwkvc compiles RWKV-7 and RWKV-7a"
        );
        assert_eq!(with(tensor), expected);
    }
}

#[test]
fn unknown_tensors_are_named() {
    let known = "expected only tensors of RWKV-7";
    assert_eq!(
        with("blocks.0.att.x_z"),
        format!("tensor `blocks.0.att.x_z` is unknown: {known}")
    );
    // Not the growing cache of RWKV-7b.
    assert_eq!(
        with("blocks.0.attn.qkv.weight"),
        format!("tensor `blocks.0.attn.qkv.weight` is unknown: {known}")
    );
    let three = after(|all| all.extend(["a", "b", "c"].map(|n| Item::zeros(n, &[1]))));
    assert_eq!(
        three,
        format!("tensor `a` is unknown (and 2 more: b, c): {known}")
    );
}

#[test]
fn missing_tensors_are_named() {
    assert_eq!(without("blocks.1.att.w2"), "tensor `blocks.1.att.w2` is missing");
    assert_eq!(without("blocks.1.att.v1"), "tensor `blocks.1.att.v1` is missing");
    assert_eq!(without("head.weight"), "tensor `head.weight` is missing");
    assert_eq!(
        without("blocks.0.ln0.bias"),
        "tensor `blocks.0.ln0.bias` is missing"
    );
    assert_eq!(
        with("blocks.3.ln1.weight"),
        "tensor `blocks.2.ln1.weight` is missing: there is a block 3, so blocks 0 to 3 are expected"
    );
    assert_eq!(
        refusal(&safetensors(&[Item::zeros("transformer.wte.weight", &[4, 4])])),
        "tensor `emb.weight` is missing: is this an RWKV-7 model? The file begins with `transformer.wte.weight`"
    );
    // No loop over all the blocks that a name claims.
    let last = with(&format!("blocks.{}.ln1.weight", usize::MAX));
    assert!(
        last.starts_with("tensor `blocks.2.ln1.weight` is missing"),
        "{last}"
    );
}

#[test]
fn wrong_shapes_are_named() {
    assert_eq!(
        reshaped("blocks.1.att.r_k", &[4, 2]),
        "tensor `blocks.1.att.r_k` is [4, 2], expected [2, 4]: heads come from `blocks.0.att.r_k`"
    );
    assert_eq!(
        reshaped("blocks.0.att.r_k", &[3, 4]),
        "tensor `blocks.0.att.r_k` is [3, 4], expected [H, N] with H * N = 8: the width comes from `emb.weight`"
    );
    assert_eq!(
        reshaped("blocks.0.att.w2", &[3, 8]),
        "tensor `blocks.0.att.w2` is [3, 8], expected [2, 8]: the rank comes from `blocks.0.att.w1`"
    );
    assert_eq!(
        reshaped("blocks.0.att.w1", &[7, 2]),
        "tensor `blocks.0.att.w1` is [7, 2], expected [8, rank]: the width comes from `emb.weight`"
    );
    assert_eq!(
        reshaped("blocks.1.att.x_r", &[8, 1]),
        "tensor `blocks.1.att.x_r` is [8, 1], expected [8] or [1, 1, 8]: a vector over 8 channels"
    );
    assert_eq!(
        reshaped("blocks.1.ffn.value.weight", &[8, 11]),
        "tensor `blocks.1.ffn.value.weight` is [8, 11], expected [8, 12]: its sizes come from `blocks.1.ffn.key.weight`"
    );
    assert_eq!(
        reshaped("emb.weight", &[10]),
        "tensor `emb.weight` is [10], expected [V, C]: it must be a matrix with elements"
    );
    assert_eq!(
        reshaped("emb.weight", &[0, 8]),
        "tensor `emb.weight` is [0, 8], expected [V, C]: it must be a matrix with elements"
    );
}

#[test]
fn deep_embed_is_in_all_blocks_or_none() {
    let add = |all: &mut Vec<Item>, layer: usize, rank: usize| {
        let name = |part: &str| format!("blocks.{layer}.ffn.{part}");
        all.push(Item::zeros(&name("s_emb.weight"), &[10, rank * rank]));
        all.push(Item::zeros(&name("s_emb_x.weight"), &[rank * rank, 8]));
        all.push(Item::zeros(&name("s0"), &[1, 1, 12]));
        all.push(Item::zeros(&name("s1"), &[8, rank]));
        all.push(Item::zeros(&name("s2"), &[rank, 12]));
    };
    assert_eq!(
        after(|all| add(all, 0, 2)),
        "tensor `blocks.1.ffn.s_emb.weight` is missing: block 0 has DeepEmbed, so all blocks must"
    );
    assert_eq!(
        after(|all| add(all, 1, 2)),
        "tensor `blocks.0.ffn.s_emb.weight` is missing: block 1 has DeepEmbed, so all blocks must"
    );
    assert_eq!(
        after(|all| {
            add(all, 0, 2);
            add(all, 1, 3);
        }),
        "tensor `blocks.1.ffn.s1` is [8, 3], expected [8, 2]: the rank comes from `blocks.0.ffn.s1`"
    );
    let mut all = items();
    add(&mut all, 0, 2);
    add(&mut all, 1, 2);
    assert_eq!(open(&safetensors(&all)).unwrap().config().deep_embed, Some(2));
}

#[test]
fn optional_tensors_are_taken() {
    let mut all = items();
    all.retain(|i| !i.name.contains("ln0"));
    all.push(Item::zeros("head.bias", &[10]));
    all.push(Item::zeros("blocks.0.att.output.bias", &[8]));
    all.push(Item::zeros("blocks.1.att.time_state", &[2, 4, 4]));
    let model = open(&safetensors(&all)).unwrap();
    assert!(!model.config().has_ln0);
    assert_eq!(
        model.ignored(),
        ["blocks.0.att.v0", "blocks.0.att.v1", "blocks.0.att.v2"]
    );
    assert!(model.weight("head.bias").is_some() && model.weight("blocks.0.att.v0").is_none());
    all.retain(|i| !i.name.contains("blocks.0.att.v"));
    all.push(
        items()
            .into_iter()
            .find(|i| i.name == "blocks.0.att.value.weight")
            .unwrap(),
    );
    assert!(open(&safetensors(&all)).unwrap().ignored().is_empty());
}

#[test]
fn names_occur_once() {
    let mut twice = items();
    twice.push(twice[0].clone());
    let name = twice[0].name.clone();
    assert!(refusal(&safetensors(&twice)).contains(&format!("two tensors are named `{name}`")));
    assert!(refusal(&pth(&twice)).ends_with(&format!("two tensors are named `{name}`")));
    assert!(refusal(&legacy(&twice)).ends_with(&format!("two tensors are named `{name}`")));
}

#[test]
fn numbers_that_are_not_finite_are_found() {
    let mut all = items();
    let bytes = &mut named(&mut all, "blocks.1.att.key.weight").bytes;
    bytes[12..16].copy_from_slice(&f32::NAN.to_le_bytes());
    bytes[40..44].copy_from_slice(&f32::INFINITY.to_le_bytes());
    named(&mut all, "ln_out.bias").bytes[..4].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
    let mut found = open(&safetensors(&all)).unwrap().not_finite();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    let facts: Vec<_> = found
        .iter()
        .map(|f| (f.name.as_str(), f.index, f.value.as_str(), f.count))
        .collect();
    assert_eq!(
        facts,
        [
            ("blocks.1.att.key.weight", 3, "NaN", 2),
            ("ln_out.bias", 0, "-inf", 1)
        ]
    );
}
