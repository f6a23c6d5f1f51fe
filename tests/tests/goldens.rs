//! Whole models against golden files, on every backend, fused and unfused, by every program.
//!
//! The goldens come from a float64 implementation of the published equations and from the official package in f32.

use std::sync::Arc;

use rwkvc::backends;
use rwkvc_abi::ProgramKind;
use rwkvc_frontend::model::Model;
use rwkvc_frontend::write::{Metadata, OutputLayout, write};
use rwkvc_runtime::State;
use rwkvc_tests::cases::{Case, PROGRAMS, cases};
use rwkvc_tests::fixtures::{Golden, open, open_bytes};
use rwkvc_tests::numbers::{difference, largest};
use rwkvc_tests::session::Session;

/// Largest difference of a logit from the float64 golden. The official package in f32 is within 1.7e-5; a wrong epsilon
/// of the group norm would show as 1e-4.
const LOGITS: f64 = 2e-5;

/// Largest difference of a part of the state, relative to its largest value.
const STATE: f64 = 2e-6;

/// Lengths of prompts: around one token, around a chunk of the prefill program, and more than one chunk.
const PROMPTS: [usize; 10] = [1, 2, 3, 16, 17, 31, 129, 255, 256, 257];

fn golden(model: &str, golden: &str, reference: &str, has_state: bool) {
    let golden = Golden::open(golden);
    let (tokens, expected) = (golden.tokens("tokens"), golden.floats(reference));
    let model = open(model);
    for case in cases() {
        let code = case.load(&model, &PROGRAMS);
        let mut one = Session::new(&code, 1);
        let decoded = one.decode(&tokens);
        check_logits(&format!("{case}, decode"), &decoded, &expected);
        let mut chunks = Session::new(&code, 1);
        let scored = chunks.score(&tokens);
        check_logits(&format!("{case}, score"), &scored, &expected);
        if has_state {
            check_state(&format!("{case}, decode"), &one.state(), &golden);
            check_state(&format!("{case}, score"), &chunks.state(), &golden);
        }
        let vocab = code.vocab();
        for length in PROMPTS.into_iter().filter(|&n| n <= tokens.len()) {
            let last = Session::new(&code, 1).prefill(&tokens[..length]);
            let expected = &expected[(length - 1) * vocab..length * vocab];
            check_logits(&format!("{case}, prefill of {length}"), &last, expected);
        }
        any_number_of_threads(&case, &code, &tokens[..tokens.len().min(140)], &decoded, &scored);
    }
}

fn check_logits(name: &str, found: &[f32], expected: &[f64]) {
    let found = difference(found, expected);
    assert!(found <= LOGITS, "{name}: logits differ by {found:e}");
}

/// The number of threads must not change a bit.
fn any_number_of_threads(
    case: &Case,
    code: &rwkvc_runtime::Model,
    tokens: &[u32],
    decoded: &[f32],
    scored: &[f32],
) {
    let n = tokens.len() * code.vocab();
    let prompt = Session::new(code, 1).prefill(tokens);
    for threads in [1, 2, 3] {
        assert_eq!(
            Session::new(code, threads).decode(tokens),
            decoded[..n],
            "{case}, decode on {threads} threads"
        );
        assert_eq!(
            Session::new(code, threads).prefill(tokens),
            prompt,
            "{case}, prefill on {threads} threads"
        );
        // Chunks begin at the same tokens, whatever follows.
        let whole = tokens.len() / 32 * 32;
        let rows = Session::new(code, threads).score(&tokens[..whole]);
        assert_eq!(
            rows,
            scored[..whole * code.vocab()],
            "{case}, score on {threads} threads"
        );
    }
}

fn check_state(name: &str, state: &State, golden: &Golden) {
    for (part, key) in [
        ("att.x_prev", "state_att_x_prev"),
        ("att.wkv", "state_att_kv_f64"),
        ("ffn.x_prev", "state_ffn_x_prev"),
    ] {
        let slots = state.slots().iter().filter(|s| s.name.ends_with(part));
        let found: Vec<f32> = slots
            .flat_map(|s| state.slot(&s.name).expect("the slot is there"))
            .copied()
            .collect();
        let expected = golden.floats(key);
        let relative = difference(&found, &expected) / largest(&expected);
        assert!(
            relative <= STATE,
            "{name}: {part} differs by {relative:e} of its largest value"
        );
    }
}

#[test]
fn demo() {
    golden("demo.safetensors", "demo-golden.safetensors", "logits_f64", true);
}

#[test]
fn tracker() {
    golden("tracker.pth", "tracker-golden.safetensors", "logits_f64", true);
}

#[test]
fn deep_embed() {
    golden(
        "deepembed-random.pth",
        "deepembed-random-golden.safetensors",
        "logits",
        false,
    );
}

/// A model as GGUF.
fn gguf(model: &Model) -> Vec<u8> {
    let layout = OutputLayout::Gguf(Metadata {
        name: "a model",
        token: None,
    });
    let mut file = vec![];
    write(model, &layout, None, &mut file, &mut |_, _| {}).expect("a model that fits");
    file
}

#[test]
fn every_file_format_gives_the_same_bits() {
    let tokens: Vec<u32> = (0..40).map(|i| i * 37 % 96).collect();
    let families: [&[&str]; 2] = [
        &["demo.safetensors", "demo.pth", "demo-fp16.pth", "demo-hf"],
        &[
            "tracker.pth",
            "tracker-legacy-nozip.pth",
            "tracker-fp32.safetensors",
            "tracker-hf",
        ],
    ];
    for backend in backends::all() {
        for family in families {
            let logits = |model: &Arc<Model>| {
                let code = Case::fused(backend).load(model, &[ProgramKind::Score]);
                Session::new(&code, 1).score(&tokens)
            };
            let model = open(family[0]);
            let first = logits(&model);
            let others = family[1..].iter().map(|file| (*file, open(file)));
            for (file, other) in others.chain([("GGUF", open_bytes(&gguf(&model)))]) {
                assert_eq!(
                    first,
                    logits(&other),
                    "{file} and {} on {}",
                    family[0],
                    backend.name()
                );
            }
        }
    }
}

#[test]
fn a_wrong_epsilon_is_beyond_the_tolerance() {
    use rwkvc_frontend::build::{Logits, build};
    use rwkvc_ir::graph::eval::{Bindings, Tensor, eval};

    let golden = Golden::open("demo-golden.safetensors");
    let (tokens, expected) = (golden.tokens("tokens"), golden.floats("logits_f64"));
    let model = open("demo.safetensors");
    let graph = build(&model, Logits::All, false)
        .expect("a graph")
        .specialise(Some(1), None);
    let logits_of = |text: &str| {
        let graph = rwkvc_ir::graph::parse(text).expect("the printed graph parses");
        let mut bindings =
            Bindings::<f64>::new(&*model).with("tokens", Tensor::tokens([1, tokens.len()], &tokens));
        for (name, ty) in graph.inputs() {
            let shape: Option<Vec<usize>> = ty.shape.iter().map(|d| d.as_fixed()).collect();
            if let (Some(shape), true) = (shape, name != "tokens") {
                bindings = bindings.with(name, Tensor::zeros(shape));
            }
        }
        let outputs = eval(&graph, &bindings).expect("the graph evaluates");
        let logits = outputs.into_iter().find(|(name, _)| name == "logits");
        logits.expect("logits").1.into_values()
    };
    let text = graph.to_string();
    assert!(difference(&logits_of(&text), &expected) <= LOGITS / 10.0);
    let wrong = text.replace("eps=0.00064", "eps=1e-5");
    assert_ne!(text, wrong, "the group norm's epsilon is in the text");
    assert!(difference(&logits_of(&wrong), &expected) > 2.0 * LOGITS);
}
