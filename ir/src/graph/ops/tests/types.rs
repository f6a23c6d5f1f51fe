//! Types of ops, and what the reference says of them.

use super::*;

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
