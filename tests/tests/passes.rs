//! Every pass leaves what a whole model computes alone, by itself and after the others, however little fuel there is.

use std::sync::Arc;

use rwkvc_frontend::build::{Logits, build};
use rwkvc_frontend::generate::{GenerateOptions, generate};
use rwkvc_frontend::model::Model;
use rwkvc_ir::graph::eval::{Bindings, Tensor, eval};
use rwkvc_ir::graph::{Graph, parse, verify};
use rwkvc_passes::fuel::Fuel;
use rwkvc_passes::pipeline::{STANDARD, Selection, run};

/// Rewrites change the order of a few additions at most: far less than this in f64.
const TOLERANCE: f64 = 1e-11;

/// Two blocks of odd sizes with random weights.
fn model() -> Arc<Model> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tiny.safetensors");
    let options = GenerateOptions {
        n_layers: 2,
        width: 24,
        head_size: 8,
        ffn: 40,
        vocab: 19,
        ranks: [5, 3, 2, 7],
        ..GenerateOptions::preset("0.1b").expect("a preset")
    };
    let mut file = std::fs::File::create(&path).expect("a file");
    generate(&options, &mut file, &mut |_, _| {}).expect("a checkpoint");
    Arc::new(Model::open(&path).expect("a model"))
}

/// All outputs of a graph for a few tokens, from a state that is not zero.
fn outputs(model: &Model, graph: &Graph, time: usize) -> Vec<(String, Vec<f64>)> {
    let tokens: Vec<u32> = (0..time as u32).map(|t| t * 7 % 19).collect();
    let mut bindings = Bindings::<f64>::new(model).with("tokens", Tensor::tokens([1, time], &tokens));
    for (name, ty) in graph.inputs() {
        let shape: Option<Vec<usize>> = ty.shape.iter().map(|d| d.as_fixed()).collect();
        if let (Some(shape), true) = (shape, name != "tokens") {
            let n: usize = shape.iter().product();
            let values = (0..n).map(|i| (i as f64 * 0.7).sin() / 2.0).collect();
            bindings = bindings.with(name, Tensor::new(shape, values));
        }
    }
    let mut all: Vec<(String, Vec<f64>)> = eval(graph, &bindings)
        .expect("the graph evaluates")
        .into_iter()
        .map(|(name, value)| (name, value.into_values()))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn assert_equal(expected: &[(String, Vec<f64>)], found: &[(String, Vec<f64>)], what: &str) {
    assert_eq!(expected.len(), found.len(), "{what}: as many outputs");
    for ((name, a), (other, b)) in expected.iter().zip(found) {
        assert_eq!(name, other, "{what}");
        for (x, y) in a.iter().zip(b) {
            assert!(
                (x - y).abs() <= TOLERANCE,
                "{what}: `{name}` is {y}, expected {x}"
            );
        }
    }
}

fn after(graph: &Graph, selection: &Selection, fuel: Option<u64>) -> (Graph, u64) {
    let mut fuel = Fuel::new(fuel);
    let result = run(graph.clone(), selection, &mut fuel, &mut |_, _| {}).expect("the passes run");
    (result.into_inner(), fuel.used())
}

#[test]
fn each_pass_alone_and_each_prefix_of_the_pipeline_keeps_the_values() {
    let model = model();
    for time in [None, Some(1)] {
        let graph = build(&model, Logits::All, true)
            .expect("a graph")
            .specialise(Some(1), time);
        let length = time.unwrap_or(5);
        let expected = outputs(&model, &graph, length);
        for (i, pass) in STANDARD.iter().enumerate() {
            let alone = Selection::only(&[pass.name]).expect("a pass");
            let (result, _) = after(&graph, &alone, None);
            assert_equal(&expected, &outputs(&model, &result, length), pass.name);
            let names: Vec<&str> = STANDARD[..=i].iter().map(|p| p.name).collect();
            let (result, _) = after(&graph, &Selection::only(&names).expect("passes"), None);
            assert_equal(
                &expected,
                &outputs(&model, &result, length),
                &format!("up to {}", pass.name),
            );
            let without = Selection::all().without(&[pass.name]).expect("passes");
            let (result, _) = after(&graph, &without, None);
            assert_equal(
                &expected,
                &outputs(&model, &result, length),
                &format!("without {}", pass.name),
            );
        }
    }
}

#[test]
fn every_amount_of_fuel_keeps_the_values() {
    let model = model();
    let graph = build(&model, Logits::All, false)
        .expect("a graph")
        .specialise(Some(1), None);
    let expected = outputs(&model, &graph, 4);
    let (_, total) = after(&graph, &Selection::all(), None);
    assert!(total > 20, "{total} rewrites in two blocks");
    for fuel in 0..=total {
        let (result, used) = after(&graph, &Selection::all(), Some(fuel));
        assert_eq!(used, fuel, "as many rewrites as there is fuel");
        assert_equal(&expected, &outputs(&model, &result, 4), &format!("fuel {fuel}"));
    }
}

#[test]
fn all_fusions_fire_in_a_whole_model() {
    let model = model();
    let graph = build(&model, Logits::All, false)
        .expect("a graph")
        .specialise(Some(1), Some(1));
    let (result, _) = after(&graph, &Selection::all(), None);
    let count = |mnemonic: &str| result.nodes_of(mnemonic).len();
    // Two blocks: a norm with its shift for each half, one block op, and five products, one of them the head.
    assert_eq!(count("norm_shift_mix"), 4);
    assert_eq!(count("wkv7_block"), 2);
    assert_eq!(count("linear_group"), 10);
    assert_eq!(count("linear"), 1, "only the head has nothing around it");
    for gone in [
        "token_shift",
        "wkv7",
        "sigmoid",
        "tanh",
        "relu",
        "exp",
        "mul",
        "add",
        "sub",
    ] {
        assert_eq!(count(gone), 0, "{gone} is left");
    }
}

#[test]
fn optimised_graphs_are_text_that_reads_back() {
    let model = model();
    let graph = build(&model, Logits::Last, false)
        .expect("a graph")
        .specialise(Some(1), None);
    for selection in [Selection::unfused(), Selection::all()] {
        let text = after(&graph, &selection, None).0.to_string();
        let again = verify(parse(&text).expect("it parses")).expect("it verifies");
        assert_eq!(text, again.to_string());
    }
}
