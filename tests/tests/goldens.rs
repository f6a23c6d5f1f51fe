//! Whole models against golden files, on every backend, fused and unfused, decode and prefill.
//!
//! The goldens come from a float64 implementation of the published equations and from the official package in f32.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rwkvc::backends;
use rwkvc::compile::Options;
use rwkvc::engine;
use rwkvc_backend_api::{Backend, Target};
use rwkvc_frontend::model::Model;
use rwkvc_passes::pipeline::Selection;
use rwkvc_runtime::manifest::ProgramKind;
use rwkvc_runtime::{State, WorkspaceOptions};
use safetensors::SafeTensors;

/// Largest difference of a logit from the float64 golden. The official package in f32 is within 1.7e-5; a wrong epsilon
/// of the group norm would show as 1e-4.
const LOGITS: f64 = 2e-5;

/// Largest difference of a part of the state, relative to its largest value.
const STATE: f64 = 2e-6;

fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    match name {
        "demo.safetensors" => root.join("../models/demo.safetensors"),
        _ => root.join("fixtures").join(name),
    }
}

/// A golden file.
struct Golden(Vec<u8>);

impl Golden {
    fn open(name: &str) -> Self {
        Golden(std::fs::read(fixture(name)).expect("the fixture is there"))
    }

    fn floats(&self, name: &str) -> Vec<f64> {
        let file = SafeTensors::deserialize(&self.0).expect("a sound file");
        let tensor = file.tensor(name).expect("the golden is there");
        let bytes = tensor.data();
        match tensor.dtype() {
            safetensors::Dtype::F64 => bytes
                .as_chunks::<8>()
                .0
                .iter()
                .map(|b| f64::from_le_bytes(*b))
                .collect(),
            _ => bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b).into())
                .collect(),
        }
    }

    fn tokens(&self) -> Vec<u32> {
        let file = SafeTensors::deserialize(&self.0).expect("a sound file");
        let tensor = file.tensor("tokens").expect("the golden is there");
        tensor
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| u32::from_le_bytes(*b))
            .collect()
    }
}

fn load(
    model: &Arc<Model>,
    backend: &'static dyn Backend,
    passes: Selection,
    program: ProgramKind,
) -> rwkvc_runtime::Model {
    let mut options = Options {
        backend,
        target: Target::host(),
        passes,
        fuel: None,
        programs: vec![program],
        probes: false,
        after_pass: &mut |_, _| {},
    };
    engine::load(model, &mut options).expect("the model compiles")
}

/// Logits of every token and the final state.
fn run(
    code: &rwkvc_runtime::Model,
    program: ProgramKind,
    tokens: &[u32],
    threads: usize,
) -> (Vec<f64>, State) {
    let mut workspace = code
        .workspace(&WorkspaceOptions { threads, pin: false })
        .expect("memory");
    let mut state = code.new_state().expect("memory");
    let mut logits = vec![];
    if program == ProgramKind::Decode {
        for &token in tokens {
            let row = code.step(&mut workspace, &mut state, token).expect("a step");
            logits.extend(row.iter().map(|&x| f64::from(x)));
        }
    } else {
        code.score(&mut workspace, &mut state, tokens, &mut |_, row| {
            logits.extend(row.iter().map(|&x| f64::from(x)))
        })
        .expect("a run");
    }
    (logits, state)
}

fn difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "as many values");
    a.iter()
        .zip(b)
        .map(|(a, b)| {
            if (a - b).is_nan() {
                f64::INFINITY
            } else {
                (a - b).abs()
            }
        })
        .fold(0.0, f64::max)
}

fn variants() -> [(&'static str, Selection); 2] {
    [("fused", Selection::all()), ("unfused", Selection::unfused())]
}

fn golden(model_file: &str, golden_file: &str, reference: &str, has_state: bool) {
    let golden = Golden::open(golden_file);
    let (tokens, expected) = (golden.tokens(), golden.floats(reference));
    let model = engine::open_checkpoint(&fixture(model_file)).expect("the model opens");
    for backend in backends::all() {
        for (variant, passes) in variants() {
            for program in [ProgramKind::Decode, ProgramKind::Score] {
                let name = format!("{model_file}, {}, {variant}, {program}", backend.name());
                let code = load(&model, backend, passes.clone(), program);
                let (logits, state) = run(&code, program, &tokens, 1);
                let found = difference(&logits, &expected);
                assert!(found <= LOGITS, "{name}: logits differ by {found:e}");
                if has_state {
                    check_state(&name, &state, &golden);
                }
                let (again, _) = run(&code, program, &tokens[..tokens.len().min(50)], 3);
                assert_eq!(
                    again,
                    logits[..again.len()],
                    "{name}: three threads give other bits than one"
                );
            }
        }
    }
}

fn check_state(name: &str, state: &State, golden: &Golden) {
    for (part, key) in [
        ("att.x_prev", "state_att_x_prev"),
        ("att.wkv", "state_att_kv_f64"),
        ("ffn.x_prev", "state_ffn_x_prev"),
    ] {
        let found: Vec<f64> = state
            .slots()
            .iter()
            .filter(|s| s.name.ends_with(part))
            .flat_map(|s| {
                state
                    .slot(&s.name)
                    .expect("the slot is there")
                    .iter()
                    .map(|&x| f64::from(x))
            })
            .collect();
        let expected = golden.floats(key);
        let largest = expected.iter().fold(0f64, |m, x| m.max(x.abs()));
        let relative = difference(&found, &expected) / largest;
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

#[test]
fn every_file_format_gives_the_same_bits() {
    let tokens: Vec<u32> = (0..40).map(|i| i * 37 % 96).collect();
    let backend = backends::all()[0];
    let families: [&[&str]; 2] = [
        &["demo.safetensors", "demo.pth", "demo-fp16.pth", "demo-hf"],
        &[
            "tracker.pth",
            "tracker-legacy-nozip.pth",
            "tracker-fp32.safetensors",
            "tracker-hf",
        ],
    ];
    for family in families {
        let mut first: Option<Vec<f64>> = None;
        for file in family {
            let model = engine::open_checkpoint(&fixture(file)).expect("the model opens");
            let code = load(&model, backend, Selection::all(), ProgramKind::Score);
            let (logits, _) = run(&code, ProgramKind::Score, &tokens, 1);
            match &first {
                None => first = Some(logits),
                Some(first) => assert_eq!(*first, logits, "{file} gives other logits than {}", family[0]),
            }
        }
    }
}

#[test]
fn prefill_of_any_length_ends_like_decode() {
    let model = engine::open_checkpoint(&fixture("demo.safetensors")).expect("the model opens");
    let tokens: Vec<u32> = (0..300).map(|i| (i * 7919 % 257) as u32).collect();
    for backend in backends::all() {
        let decode = load(&model, backend, Selection::all(), ProgramKind::Decode);
        let prefill = load(&model, backend, Selection::all(), ProgramKind::Prefill);
        for length in [1, 2, 3, 5, 31, 127, 128, 129, 300] {
            let (expected, _) = run(&decode, ProgramKind::Decode, &tokens[..length], 1);
            let mut workspace = prefill
                .workspace(&WorkspaceOptions {
                    threads: 2,
                    pin: false,
                })
                .expect("memory");
            let mut state = prefill.new_state().expect("memory");
            let found = prefill
                .prefill(&mut workspace, &mut state, &tokens[..length])
                .expect("a prefill");
            let found: Vec<f64> = found.iter().map(|&x| x.into()).collect();
            let difference = difference(&found, &expected[expected.len() - found.len()..]);
            assert!(
                difference <= 2.0 * LOGITS,
                "{}: {length} tokens differ by {difference:e}",
                backend.name()
            );
        }
    }
}

#[test]
fn a_wrong_epsilon_is_beyond_the_tolerance() {
    use rwkvc_frontend::build::{Logits, build};
    use rwkvc_ir::graph::eval::{Bindings, Tensor, eval};

    let golden = Golden::open("demo-golden.safetensors");
    let (tokens, expected) = (golden.tokens(), golden.floats("logits_f64"));
    let model = engine::open_checkpoint(&fixture("demo.safetensors")).expect("the model opens");
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
        outputs
            .into_iter()
            .find(|(name, _)| name == "logits")
            .expect("logits")
            .1
            .into_values()
    };
    let text = graph.to_string();
    assert!(difference(&logits_of(&text), &expected) <= LOGITS / 10.0);
    let wrong = text.replace("eps=0.00064", "eps=1e-5");
    assert_ne!(text, wrong, "the group norm's epsilon is in the text");
    assert!(difference(&logits_of(&wrong), &expected) > 2.0 * LOGITS);
}
