//! What each op computes, by hand.

use std::collections::HashMap;

use super::*;
use crate::DType;
use crate::graph::eval::{Bindings, Tensor, eval};
use crate::graph::{parse, verify};

mod block;
mod types;

/// Name, shape and elements of an input.
type Input<'a> = (&'a str, &'a [usize], &'a [f64]);

/// Evaluates a graph in text form.
fn run(text: &str, inputs: &[Input<'_>]) -> Vec<Vec<f64>> {
    let graph = verify(parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"))).unwrap();
    let mut bindings = Bindings::new(&());
    for (name, shape, values) in inputs {
        bindings = bindings.with(*name, Tensor::new(shape.to_vec(), values.to_vec()));
    }
    let outputs = eval::<f64>(&graph, &bindings).unwrap();
    for ((_, value), (_, tensor)) in graph.outputs().iter().zip(&outputs) {
        assert_eq!(tensor.shape().len(), graph.ty(*value).shape.len());
    }
    outputs
        .into_iter()
        .map(|(_, tensor)| tensor.into_values())
        .collect()
}

/// Evaluates one op without attributes on `x` and `y` of the given shapes.
#[track_caller]
fn check(op: &str, result: &str, inputs: &[Input<'_>], expected: &[f64]) {
    let types: Vec<String> = inputs
        .iter()
        .map(|(name, shape, _)| format!("%{name}: f32{shape:?}"))
        .collect();
    let operands: Vec<String> = inputs.iter().map(|(name, ..)| format!("%{name}")).collect();
    let (op, attributes) = op.split_once(' ').unwrap_or((op, ""));
    let text = format!(
        "func @f({}) -> (y: %0) {{ %0 = {op} {} {attributes} : {result} }}",
        types.join(", "),
        operands.join(", ")
    );
    assert_close(&run(&text, inputs)[0], expected);
}

#[track_caller]
fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (f, e) in found.iter().zip(expected) {
        assert!(
            (f - e).abs() <= 1e-12 * e.abs().max(1.0),
            "{found:?} is not {expected:?}"
        );
    }
}

#[test]
fn functions_of_elements() {
    let x: Input<'_> = ("x", &[3], &[-1.0, 0.0, 2.0]);
    let e = std::f64::consts::E;
    check("neg", "f32[3]", &[x], &[1.0, 0.0, -2.0]);
    check("exp", "f32[3]", &[x], &[1.0 / e, 1.0, e * e]);
    check("tanh", "f32[3]", &[x], &[(-1f64).tanh(), 0.0, 2f64.tanh()]);
    check(
        "sigmoid",
        "f32[3]",
        &[x],
        &[1.0 / (1.0 + e), 0.5, 1.0 / (1.0 + 1.0 / (e * e))],
    );
    check("relu", "f32[3]", &[x], &[0.0, 0.0, 2.0]);
}

#[test]
fn shapes_broadcast_at_the_last_axis() {
    let x: Input<'_> = ("x", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    check(
        "add",
        "f32[2,3]",
        &[x, ("y", &[3], &[10.0, 20.0, 30.0])],
        &[11.0, 22.0, 33.0, 14.0, 25.0, 36.0],
    );
    check(
        "sub",
        "f32[2,3]",
        &[x, ("y", &[2, 1], &[1.0, 2.0])],
        &[0.0, 1.0, 2.0, 2.0, 3.0, 4.0],
    );
    check(
        "mul",
        "f32[2,3]",
        &[("x", &[], &[2.0]), ("y", x.1, x.2)],
        &[2.0, 4.0, 6.0, 8.0, 10.0, 12.0],
    );
    let outer = [10.0, 20.0, 20.0, 40.0, 30.0, 60.0];
    check(
        "mul",
        "f32[3,2]",
        &[("x", &[3, 1], &[1.0, 2.0, 3.0]), ("y", &[1, 2], &[10.0, 20.0])],
        &outer,
    );
    check("sub", "f32[]", &[("x", &[], &[2.0]), ("y", &[], &[5.0])], &[-3.0]);
}

#[test]
fn products() {
    let x: Input<'_> = ("x", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    check(
        "linear",
        "f32[2,2]",
        &[x, ("w", &[2, 3], &[1.0, 0.0, -1.0, 1.0, 1.0, 1.0])],
        &[-2.0, 6.0, -2.0, 15.0],
    );
    let m: Input<'_> = (
        "m",
        &[2, 3, 2],
        &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 0.0, 0.0, 2.0, 0.0, 0.0],
    );
    check("contract", "f32[2,2]", &[x, m], &[4.0, 5.0, 8.0, 10.0]);
    check("transpose", "f32[3,2]", &[x], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    check("sum", "f32[2,1]", &[x], &[6.0, 15.0]);
}

#[test]
fn norms() {
    // Mean 2 and variance 1; then mean 0 and variance 4.
    let x: Input<'_> = ("x", &[2, 2], &[1.0, 3.0, -2.0, 2.0]);
    let rows = [
        -3.0 / 2.0 + 1.0,
        3.0 / 2.0 + 2.0,
        -6.0 / 7f64.sqrt() + 1.0,
        6.0 / 7f64.sqrt() + 2.0,
    ];
    let (weight, bias): (Input<'_>, Input<'_>) = (("w", &[2], &[3.0, 3.0]), ("b", &[2], &[1.0, 2.0]));
    check("layer_norm {eps=3.0}", "f32[2,2]", &[x, weight, bias], &rows);
    // Weights of each head.
    let weight: Input<'_> = ("w", &[2, 2], &[1.0, 1.0, 2.0, 2.0]);
    let bias: Input<'_> = ("b", &[2, 2], &[0.0, 0.0, 5.0, 5.0]);
    check(
        "layer_norm {eps=0.0}",
        "f32[2,2]",
        &[x, weight, bias],
        &[-1.0, 1.0, 3.0, 7.0],
    );
    let x: Input<'_> = ("x", &[2, 2], &[3.0, -4.0, 0.0, 0.0]);
    check(
        "l2_normalize {eps=1e-12}",
        "f32[2,2]",
        &[x],
        &[0.6, -0.8, 0.0, 0.0],
    );
    check(
        "l2_normalize {eps=10.0}",
        "f32[2,2]",
        &[x],
        &[0.3, -0.4, 0.0, 0.0],
    );
}

#[test]
fn shapes_of_the_step() {
    let text = "func @f(%x: f32[B,T,2], %prev: f32[B,2]) -> (s: %0, next: %1, last: %2, heads: %3) {
        %0, %1 = token_shift %x, %prev : f32[B,T,2], f32[B,2]
        %2 = last %x : f32[B,1,2]
        %3 = reshape %x {shape=[T,B,1,2]} : f32[T,B,1,2]
    }";
    let x: Vec<f64> = (1..=12).map(f64::from).collect();
    let [shifted, next, last, heads] = run(
        text,
        &[
            ("x", &[2, 3, 2], &x),
            ("prev", &[2, 2], &[-1.0, -2.0, -3.0, -4.0]),
        ],
    )
    .try_into()
    .unwrap();
    assert_eq!(
        shifted,
        [-1.0, -2.0, 1.0, 2.0, 3.0, 4.0, -3.0, -4.0, 7.0, 8.0, 9.0, 10.0]
    );
    assert_eq!(next, [5.0, 6.0, 11.0, 12.0]);
    assert_eq!(last, [5.0, 6.0, 11.0, 12.0]);
    assert_eq!(heads, x);
}

#[test]
fn embed_reads_rows_as_they_are_stored() {
    let graph = parse(
        "func @f(%tokens: i32[B,T]) -> (y: %0) {
           %table = param \"table\" : bf16[3,2]
           %0 = embed %table, %tokens : f32[B,T,2]
         }",
    )
    .unwrap();
    let mut bytes = vec![0; 12];
    (0..6).for_each(|i| DType::BF16.write(&mut bytes, i, i as f64));
    let params = HashMap::from([("table".to_string(), (DType::BF16, bytes))]);
    let with = |tokens| Bindings::new(&params).with("tokens", Tensor::tokens([1, 2], tokens));
    let outputs = eval::<f32>(&graph, &with(&[2, 0])).unwrap();
    assert_eq!(outputs[0].1, Tensor::new([1, 2, 2], vec![4.0, 5.0, 0.0, 1.0]));
    let error = eval::<f32>(&graph, &with(&[3, 0])).unwrap_err();
    assert_eq!(error.to_string(), "token 3 is not in a table of 3 rows");
}

const WKV: &str =
    "func @f(%s: f32[B,1,2,2], %r: f32[B,T,1,2], %w: f32[B,T,1,2], %k: f32[B,T,1,2], %v: f32[B,T,1,2],
        %a: f32[B,T,1,2], %b: f32[B,T,1,2]) -> (next: %0, y: %1) {
    %0, %1 = wkv7 %s, %r, %w, %k, %v, %a, %b : f32[B,1,2,2], f32[B,T,1,2]
}";

#[test]
fn wkv7_updates_the_state_and_reads_the_updated_one() {
    let inputs: [Input<'_>; 7] = [
        ("s", &[1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0]),
        ("r", &[1, 2, 1, 2], &[1.0, 0.0, 0.0, 1.0]),
        ("w", &[1, 2, 1, 2], &[0.5, 0.25, 1.0, 1.0]),
        ("k", &[1, 2, 1, 2], &[1.0, 2.0, 0.0, 0.0]),
        ("v", &[1, 2, 1, 2], &[10.0, 20.0, 1.0, 1.0]),
        ("a", &[1, 2, 1, 2], &[1.0, -1.0, 0.0, 0.0]),
        ("b", &[1, 2, 1, 2], &[2.0, 3.0, 1.0, 1.0]),
    ];
    // S a = [-1, -1]; S diag(w) = [[.5, .5], [1.5, 1]]; (S a) bᵀ = [[-2, -3], [-2, -3]]; v kᵀ = [[10, 20], [20, 40]].
    let state = [8.5, 17.5, 19.5, 38.0];
    let outputs = run(WKV, &inputs);
    assert_eq!(outputs[0], state);
    assert_eq!(outputs[1], [8.5, 19.5, 17.5, 38.0]);
}

#[test]
fn shift_mix_interpolates() {
    let text =
        "func @f(%x: f32[1,2,2], %prev: f32[1,2], %m: f32[2], %n: f32[2]) -> (a: %0, b: %1, next: %2) {
        %0, %1, %2 = shift_mix %x, %prev, %m, %n : f32[1,2,2], f32[1,2,2], f32[1,2]
    }";
    let outputs = run(
        text,
        &[
            ("x", &[1, 2, 2], &[1.0, 2.0, 3.0, 4.0]),
            ("prev", &[1, 2], &[5.0, 6.0]),
            ("m", &[2], &[0.0, 1.0]),
            ("n", &[2], &[0.5, 0.25]),
        ],
    );
    assert_eq!(
        outputs,
        [vec![1.0, 6.0, 3.0, 2.0], vec![3.0, 3.0, 2.0, 3.5], vec![3.0, 4.0]]
    );
}

#[test]
fn linear_group_applies_bias_activation_scale_and_residual_in_this_order() {
    let text = "func @f(%x: f32[1,2], %w: f32[1,2], %b: f32[1], %s: f32[1,1], %r: f32[1,1]) -> (a: %0, b: %1, c: %2) {
        %0, %1, %2 = linear_group %x, %w, %b, %s, %r, %x, %w, %x, %w, %b
            {members=[bias+relu2+scale+residual, plain, bias+tanh]} : f32[1,1], f32[1,1], f32[1,1]
    }";
    let outputs = run(
        text,
        &[
            ("x", &[1, 2], &[1.0, 2.0]),
            ("w", &[1, 2], &[3.0, -1.0]),
            ("b", &[1], &[1.0]),
            ("s", &[1, 1], &[10.0]),
            ("r", &[1, 1], &[5.0]),
        ],
    );
    assert_eq!(outputs, [vec![45.0], vec![1.0], vec![2f64.tanh()]]);
}
