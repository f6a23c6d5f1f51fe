//! Edits, the verifier, and generated graphs.

use std::collections::HashMap;

use proptest::prelude::*;

use super::eval::{Bindings, EvalError, Tensor, eval, eval_const};
use super::ops::*;
use super::*;
use crate::DType;

fn f32_type(shape: &[usize]) -> TensorType {
    TensorType::new(DType::F32, shape.iter().map(|&n| Dim::Fixed(n)))
}

/// `y = exp(x) + exp(x)`, as two nodes `exp`.
fn doubled() -> (Graph, Value, Value, Value) {
    let mut graph = Graph::new("doubled");
    let x = graph.add_input("x", f32_type(&[2])).unwrap();
    let a = graph.add(Exp {}, &[x]).unwrap()[0];
    let b = graph.add(Exp {}, &[x]).unwrap()[0];
    let y = graph.add(Add {}, &[a, b]).unwrap()[0];
    graph.set_output("y", y);
    (graph, a, b, y)
}

#[test]
fn uses_are_replaced_and_what_is_left_is_removed() {
    let (mut graph, a, b, y) = doubled();
    assert!(graph.single_use(b));
    graph.replace_uses(b, a).unwrap();
    assert_eq!(graph.users(a), [(y.node, 0), (y.node, 1)]);
    assert_eq!(graph.operands(y.node), [a, a]);
    assert!(!graph.single_use(a) && graph.users(b).is_empty());
    assert_eq!(graph.remove_dead(), 1);
    assert_eq!(graph.node_count(), 3);
    graph.replace_uses(y, a).unwrap();
    assert_eq!(graph.output("y"), Some(a));
    assert_eq!(graph.replace_uses(b, a), Err(GraphError::NoSuchValue(b)));
    assert_eq!(graph.add(Neg {}, &[b]), Err(GraphError::NoSuchValue(b)));
    let x = graph.input("x").unwrap();
    let sum = graph.add(Sum {}, &[x]).unwrap()[0];
    let error = graph.replace_uses(a, sum).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a value of type f32[2] cannot be replaced by one of type f32[1]"
    );
}

#[test]
fn the_verifier_accepts_and_gives_back() {
    let (graph, ..) = doubled();
    let text = graph.to_string();
    assert_eq!(verify(graph).unwrap().into_inner().to_string(), text);
}

#[test]
fn the_verifier_rejects_a_value_computed_from_itself() {
    let (mut graph, a, _, y) = doubled();
    graph.replace_uses(a, y).unwrap();
    assert_eq!(graph.topological().len(), 3);
    assert!(matches!(verify(graph), Err(GraphError::Cycle { op: "add", .. })));
}

#[test]
fn the_verifier_rejects_missing_values() {
    let (mut graph, a, ..) = doubled();
    graph.nodes.remove_node(a.node.index());
    assert!(matches!(
        verify(graph.clone()),
        Err(GraphError::Type {
            op: "add",
            error: TypeError::OperandCount { found: 1, .. }
        })
    ));
    let (mut graph, ..) = doubled();
    graph.set_output(
        "z",
        Value {
            node: a.node,
            result: 1,
        },
    );
    let missing = Value {
        node: a.node,
        result: 1,
    };
    assert_eq!(verify(graph).map(drop), Err(GraphError::NoSuchValue(missing)));
}

#[test]
fn the_verifier_rejects_wrong_types_and_names() {
    let (mut graph, a, ..) = doubled();
    graph.nodes[a.node.index()].types[0] = f32_type(&[3]);
    let error = verify(graph).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "result 0 of `exp` is f32[3], expected f32[2]");

    let (mut graph, a, ..) = doubled();
    graph.nodes[a.node.index()].types.clear();
    assert!(verify(graph).is_err());

    let (mut graph, _, _, y) = doubled();
    graph.outputs.push(("y".into(), y));
    assert_eq!(
        verify(graph).map(drop),
        Err(GraphError::DuplicateOutput("y".into()))
    );

    let (mut graph, ..) = doubled();
    let x = graph.inputs[0];
    graph.inputs.push(x);
    assert_eq!(
        verify(graph).map(drop),
        Err(GraphError::DuplicateInput("x".into()))
    );

    let (mut graph, ..) = doubled();
    graph.add_param("w", f32_type(&[2])).unwrap();
    graph.add_param("w", f32_type(&[3])).unwrap();
    let error = verify(graph).map(drop).unwrap_err();
    assert_eq!(
        error.to_string(),
        "weight `w` is f32[3], but f32[2] elsewhere in the graph"
    );

    let (mut graph, ..) = doubled();
    graph
        .add_param("w", TensorType::new(DType::F32, [Dim::Batch]))
        .unwrap();
    assert!(matches!(verify(graph), Err(GraphError::SymbolicWeight { .. })));
}

#[test]
fn specialising_settles_lengths_everywhere() {
    let text =
        "func @f(%x: f32[B,T,4]) -> (y: %0) {\n  %0 = reshape %x {shape=[B,T,2,2]} : f32[B,T,2,2]\n}\n";
    let graph = parse(text).unwrap();
    let decode = verify(graph.clone().specialise(Some(1), None)).unwrap();
    assert_eq!(decode.to_string(), text.replace('B', "1"));
    let both = verify(graph.specialise(Some(3), Some(7))).unwrap();
    assert_eq!(both.to_string(), text.replace('B', "3").replace('T', "7"));
}

/// A norm of a looked-up row, folded into the table.
const FOLDED: &str = "func @f(%tokens: i32[B,T]) -> (y: %1) {
  %table = param \"table\" : f16[2,2]
  %w = param \"w\" : f32[2]
  %0 = layer_norm %table, %w, %w {eps=0.0} : f32[2,2]
  %1 = embed %0, %tokens : f32[B,T,2]
}
";

fn weights() -> HashMap<String, (DType, Vec<u8>)> {
    let mut table = vec![0; 8];
    [1.0, 3.0, 5.0, -5.0]
        .iter()
        .enumerate()
        .for_each(|(i, &x)| DType::F16.write(&mut table, i, x));
    let mut w = vec![0; 8];
    [1.0, 2.0]
        .iter()
        .enumerate()
        .for_each(|(i, &x)| DType::F32.write(&mut w, i, x));
    HashMap::from([
        ("table".into(), (DType::F16, table)),
        ("w".into(), (DType::F32, w)),
    ])
}

#[test]
fn what_depends_on_weights_only_is_known_early() {
    let graph = parse(FOLDED).unwrap();
    let norm = graph.nodes_of("layer_norm")[0];
    let known = graph.const_stage();
    assert_eq!(known.len(), 3);
    assert!(known.contains(&norm) && graph.is_constant(graph.value(norm, 0)));
    assert!(!graph.is_constant(graph.outputs()[0].1));
    let folded = eval_const(&graph, graph.value(norm, 0), &weights()).unwrap();
    assert_eq!(folded, Tensor::new([2, 2], vec![0.0, 4.0, 2.0, 0.0]));
    let error = eval_const(&graph, graph.outputs()[0].1, &weights()).unwrap_err();
    assert_eq!(error, EvalError::NoInput("tokens".into()));
    let names: Vec<String> = graph.params().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["table", "w"]);
}

#[test]
fn extracted_parts_stand_alone() {
    let graph = parse(FOLDED).unwrap();
    let part = graph.extract(graph.value(graph.nodes_of("layer_norm")[0], 0));
    assert!(part.inputs().is_empty());
    let outputs = eval::<f32>(&verify(part).unwrap(), &Bindings::new(&weights())).unwrap();
    assert_eq!(outputs[0].0, "value");
    assert_eq!(outputs[0].1.values(), [0.0, 4.0, 2.0, 0.0]);
    let whole = graph.extract(graph.outputs()[0].1);
    assert_eq!(
        whole.to_string(),
        FOLDED.replace("@f", "@value").replace("(y:", "(value:")
    );
}

#[test]
fn bindings_are_checked() {
    let graph = parse("func @f(%x: f32[B,T], %y: f32[T]) -> (z: %0) { %0 = add %x, %y : f32[B,T] }").unwrap();
    let none = Bindings::<f64>::new(&());
    assert_eq!(eval(&graph, &none), Err(EvalError::NoInput("x".into())));
    let wrong = Bindings::<f64>::new(&())
        .with("x", Tensor::zeros([2, 3]))
        .with("y", Tensor::zeros([2]));
    let message = eval(&graph, &wrong).unwrap_err().to_string();
    assert_eq!(message, "input `y` is [2], expected f32[3]");
    let graph = parse("func @f() -> (w: %w) { %w = param \"w\" : f32[3] }").unwrap();
    let message = |params: &HashMap<_, _>| {
        eval::<f64>(&graph, &Bindings::new(params))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        message(&weights()),
        "weight `w` is 8 bytes of f32, expected f32[3]"
    );
    assert_eq!(message(&HashMap::new()), "there is no weight `w`");
}

#[test]
fn graphviz_names_ops_weights_and_types() {
    let dot = parse(FOLDED).unwrap().to_dot();
    assert!(dot.starts_with("digraph \"f\" {"));
    assert!(
        dot.contains("label=\"layer_norm {eps=0.0}\\ntable\\nw\\nw\""),
        "{dot}"
    );
    assert!(dot.contains("[label=\"f32[B,T,2]\"]"), "{dot}");
}

/// Adds ops chosen by `choices` to a graph, as far as they fit.
fn generated(choices: &[(u8, u16, u16, u16)]) -> Graph {
    let mut graph = Graph::new("generated");
    let activation = TensorType::new(DType::F32, [Dim::Batch, Dim::Time, Dim::Fixed(4)]);
    let mut values = vec![
        graph.add_input("x", activation).unwrap(),
        graph
            .add_input("prev", TensorType::new(DType::F32, [Dim::Batch, Dim::Fixed(4)]))
            .unwrap(),
        graph
            .add_param("w", TensorType::new(DType::BF16, [Dim::Fixed(4), Dim::Fixed(4)]))
            .unwrap(),
        graph
            .add_param("mix", TensorType::new(DType::F32, [Dim::Fixed(4)]))
            .unwrap(),
    ];
    for &(op, a, b, c) in choices {
        let pick = |n: u16| values[usize::from(n) % values.len()];
        let (a, b, c) = (pick(a), pick(b), pick(c));
        let member = Member {
            skip_zeros: false,
            bias: op % 2 == 0,
            activation: Activation::Relu2,
            scale: false,
            residual: false,
        };
        let (op, operands): (Op, Vec<Value>) = match op % 16 {
            0 => (Add {}.into(), vec![a, b]),
            1 => (Sub {}.into(), vec![a, b]),
            2 => (Mul {}.into(), vec![a, b]),
            3 => (Neg {}.into(), vec![a]),
            4 => (Tanh {}.into(), vec![a]),
            5 => (Sigmoid {}.into(), vec![a]),
            6 => (Linear {}.into(), vec![a, b]),
            7 => (Transpose {}.into(), vec![a]),
            8 => (LayerNorm { eps: 1e-5 }.into(), vec![a, b, c]),
            9 => (L2Normalize { eps: 1e-12 }.into(), vec![a]),
            10 => (Sum {}.into(), vec![a]),
            11 => (TokenShift {}.into(), vec![a, b]),
            12 => (ShiftMix {}.into(), vec![a, b, c]),
            13 => (Last {}.into(), vec![a]),
            14 => (Const { value: 0.25 }.into(), vec![]),
            _ if member.bias => (
                LinearGroup {
                    members: vec![member],
                }
                .into(),
                vec![a, b, c],
            ),
            _ => (
                LinearGroup {
                    members: vec![member],
                }
                .into(),
                vec![a, b],
            ),
        };
        if let Ok(results) = graph.add(op, &operands) {
            values.extend(results);
        }
    }
    for (i, &value) in values.iter().rev().take(3).enumerate() {
        graph.set_output(format!("y{i}"), value);
    }
    graph
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn generated_graphs_survive_their_text(choices in proptest::collection::vec(any::<(u8, u16, u16, u16)>(), 0..40)) {
        let graph = verify(generated(&choices)).unwrap();
        let text = graph.to_string();
        let again = verify(parse(&text).unwrap()).unwrap();
        prop_assert_eq!(again.to_string(), text);
        let mut w = vec![0; 32];
        (0..16).for_each(|i| DType::BF16.write(&mut w, i, i as f64 / 16.0 - 0.5));
        let mut params = weights();
        params.insert("w".into(), (DType::BF16, w.clone()));
        params.insert("mix".into(), (DType::F32, w[..16].to_vec()));
        let x = (0..24).map(|i| f64::from(i % 7) - 3.0).collect();
        let bindings = Bindings::new(&params)
            .with("x", Tensor::new([2, 3, 4], x))
            .with("prev", Tensor::new([2, 4], vec![0.5; 8]));
        let bits = |graph: &Graph| -> Vec<Vec<u64>> {
            let outputs = eval::<f64>(graph, &bindings).unwrap();
            outputs.iter().map(|(_, t)| t.values().iter().map(|x| x.to_bits()).collect()).collect()
        };
        prop_assert_eq!(bits(&graph), bits(&again));
    }

    #[test]
    fn arbitrary_text_does_not_panic(text in "\\PC{0,80}") {
        _ = parse(&text);
    }
}
