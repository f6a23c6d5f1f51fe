//! What each op computes, by hand.

use std::collections::HashMap;

use super::*;
use crate::DType;
use crate::graph::eval::{Bindings, Tensor, eval};
use crate::graph::{parse, verify};

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

/// Numbers that look random.
fn numbers(n: usize, seed: usize) -> Vec<f64> {
    (0..n)
        .map(|i| ((i * 7919 + seed * 104_729) as f64 * 0.618_033_988_7).fract() - 0.4)
        .collect()
}

#[test]
fn wkv7_block_is_the_equations() {
    let (tokens, heads, size) = (2, 2, 3);
    let width = heads * size;
    for value_residual in [false, true] {
        let activation = format!("f32[1,T,{width}]");
        let mut types = vec![format!("f32[1,{heads},{size},{size}]")];
        types.extend(vec![activation.clone(); 6]);
        types.extend(vec![format!("f32[{width}]"); 2]);
        types.push(format!("f32[{heads},{size}]"));
        types.extend(vec![format!("f32[{width}]"); 2]);
        types.extend(vec![activation.clone(); if value_residual { 2 } else { 0 }]);
        let inputs: Vec<String> = types
            .iter()
            .enumerate()
            .map(|(i, ty)| format!("%x{i}: {ty}"))
            .collect();
        let operands: Vec<String> = (0..types.len()).map(|i| format!("%x{i}")).collect();
        let text = format!(
            "func @f({}) -> (next: %0, y: %1) {{ %0, %1 = wkv7_block {}
             {{eps=0.00064, norm_eps=1e-12, decay_scale=-0.6065, value_residual={value_residual}}} : {}, {activation} }}",
            inputs.join(", "),
            operands.join(", "),
            types[0]
        );
        let shape = |ty: &str| -> Vec<usize> {
            let dims = ty.trim_start_matches("f32[").trim_end_matches(']').split(',');
            dims.map(|d| if d == "T" { tokens } else { d.parse().unwrap() })
                .collect()
        };
        let shapes: Vec<Vec<usize>> = types.iter().map(|ty| shape(ty)).collect();
        let x: Vec<Vec<f64>> = shapes
            .iter()
            .enumerate()
            .map(|(i, s)| numbers(s.iter().product(), i + 1))
            .collect();
        let bound: Vec<Input<'_>> = (0..x.len())
            .map(|i| {
                (
                    operands[i].trim_start_matches('%'),
                    shapes[i].as_slice(),
                    x[i].as_slice(),
                )
            })
            .collect();
        let outputs = run(&text, &bound);
        let (next, y) = plain_block(&x, tokens, heads, size);
        assert_close(&outputs[0], &next);
        assert_close(&outputs[1], &y);
    }
}

/// The equations of one block as scalar loops, for one sequence.
fn plain_block(x: &[Vec<f64>], tokens: usize, heads: usize, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut state = x[0].clone();
    let mut y = vec![0.0; tokens * heads * n];
    for t in 0..tokens {
        for h in 0..heads {
            let at = |operand: usize, j: usize| x[operand][(t * heads + h) * n + j];
            let weight = |operand: usize, j: usize| x[operand][h * n + j];
            let (r, a) = (|j| at(1, j), |j| at(5, j));
            let decay = |j| (-0.6065 / (1.0 + f64::exp(-at(2, j)))).exp();
            let norm = (0..n)
                .map(|j| (at(3, j) * weight(7, j)).powi(2))
                .sum::<f64>()
                .sqrt();
            let kk = |j| at(3, j) * weight(7, j) / norm;
            let k = |j| at(3, j) * (1.0 + (a(j) - 1.0) * weight(8, j));
            let v = |j| match x.get(12) {
                Some(_) => at(4, j) + (at(12, j) - at(4, j)) * at(13, j),
                None => at(4, j),
            };
            let s = &mut state[h * n * n..][..n * n];
            let mut out = vec![0.0; n];
            for i in 0..n {
                let removed: f64 = (0..n).map(|j| s[i * n + j] * -kk(j)).sum();
                for j in 0..n {
                    s[i * n + j] = s[i * n + j] * decay(j) + removed * kk(j) * a(j) + v(i) * k(j);
                    out[i] += s[i * n + j] * r(j);
                }
            }
            let mean = out.iter().sum::<f64>() / n as f64;
            let variance = out.iter().map(|o| (o - mean).powi(2)).sum::<f64>() / n as f64;
            let bonus: f64 = (0..n).map(|j| r(j) * k(j) * weight(9, j)).sum();
            for i in 0..n {
                let normed = (out[i] - mean) / (variance + 0.00064).sqrt() * weight(10, i) + weight(11, i);
                y[(t * heads + h) * n + i] = (normed + bonus * v(i)) * at(6, i);
            }
        }
    }
    (state, y)
}

#[test]
fn fused_ops_have_the_types_of_their_decomposition() {
    let ty = |shape: &[Dim]| TensorType::new(DType::F32, shape.iter().copied());
    let (b, t, c) = (Dim::Batch, Dim::Time, Dim::Fixed);
    let (x, vector) = (ty(&[b, t, c(6)]), ty(&[c(6)]));
    let mut block = vec![ty(&[b, c(2), c(3), c(3)])];
    block.extend(vec![x.clone(); 6]);
    block.extend([
        vector.clone(),
        vector.clone(),
        ty(&[c(2), c(3)]),
        vector.clone(),
        vector.clone(),
    ]);
    let parameters = Wkv7Block {
        eps: 1e-3,
        norm_eps: 1e-12,
        decay_scale: -0.6,
        value_residual: false,
    };
    let mut gated = block.clone();
    gated.extend([x.clone(), x.clone()]);
    let everything = Member {
        skip_zeros: false,
        bias: true,
        activation: Activation::Sigmoid,
        scale: true,
        residual: true,
    };
    let (w, y, bias) = (ty(&[c(4), c(6)]), ty(&[b, t, c(4)]), ty(&[c(4)]));
    let cases: Vec<(Op, Vec<TensorType>)> = vec![
        (
            ShiftMix {}.into(),
            vec![x.clone(), ty(&[b, c(6)]), vector.clone(), vector.clone()],
        ),
        (ShiftMix {}.into(), vec![x.clone(), ty(&[b, c(6)])]),
        (
            NormShiftMix { eps: 1e-5 }.into(),
            vec![
                x.clone(),
                vector.clone(),
                vector.clone(),
                ty(&[b, c(6)]),
                vector.clone(),
            ],
        ),
        (
            LinearGroup {
                members: vec![Member::PLAIN, everything],
            }
            .into(),
            vec![x.clone(), w.clone(), x.clone(), w, bias, y.clone(), y],
        ),
        (parameters.clone().into(), block),
        (
            Wkv7Block {
                value_residual: true,
                ..parameters
            }
            .into(),
            gated,
        ),
    ];
    for row in OPS.iter().filter(|row| row.kind == Kind::Fused) {
        assert!(
            cases.iter().any(|(op, _)| op.mnemonic() == row.mnemonic),
            "`{}` has no case",
            row.mnemonic
        );
    }
    for (op, types) in cases {
        let mut graph = Graph::new("decomposition");
        let operands: Vec<Value> = types
            .iter()
            .enumerate()
            .map(|(i, ty)| graph.add_input(i.to_string(), ty.clone()).unwrap())
            .collect();
        let results = op.decompose(&mut graph, &operands).expect("a fused op").unwrap();
        let found: Vec<TensorType> = results.iter().map(|&v| graph.ty(v).clone()).collect();
        assert_eq!(found, op.infer(&types).unwrap(), "{op:?}");
        assert!(
            graph
                .topological()
                .iter()
                .all(|&node| graph.op(node).kind() != Kind::Fused)
        );
    }
}

#[test]
fn the_reference_has_every_op() {
    let reference = crate::graph::reference();
    for op in OPS {
        assert!(reference.contains(&format!("### `{}`", op.mnemonic)));
        assert!(!op.doc.trim().is_empty() && op.attributes.iter().all(|(_, doc)| !doc.trim().is_empty()));
    }
}

#[test]
fn type_errors_name_the_operand() {
    let message = |op: &str| {
        let text = format!(
            "func @f(%x: f32[B,T,4], %p: f32[B,3], %w: f32[8,3], %i: i32[B,T]) -> () {{ %0 = {op} : f32[] }}"
        );
        parse(&text).unwrap_err().problem.to_string()
    };
    assert_eq!(
        message("linear %x, %w"),
        "`linear` operand `w` is f32[8,3], expected rows of 4, as `x` has"
    );
    assert_eq!(message("linear %x"), "`linear` has 1 operands, expected 2");
    assert_eq!(
        message("add %x, %p"),
        "`add` operand `y` is f32[B,3], expected to broadcast with f32[B,T,4]"
    );
    assert_eq!(
        message("neg %i"),
        "`neg` operand `x` is i32[B,T], expected a float format"
    );
    assert_eq!(
        message("embed %w, %x"),
        "`embed` operand `tokens` is f32[B,T,4], expected i32"
    );
    assert_eq!(
        message("token_shift %x, %p"),
        "`token_shift` operand `prev` is f32[B,3], expected shape [B,4]"
    );
    assert_eq!(
        message("reshape %x {shape=[B,2,2]}"),
        "`reshape` operand `x` is f32[B,T,4], expected as many elements as [B,2,2]"
    );
    assert_eq!(
        message("const inf"),
        "`const` attribute `value` is inf, expected a finite number"
    );
    assert_eq!(
        message("linear_group {members=[]}"),
        "`linear_group` attribute `members` is empty, expected at least one member"
    );
    assert_eq!(message("sum %w, %w"), "`sum` has 2 operands, expected 1");
}
