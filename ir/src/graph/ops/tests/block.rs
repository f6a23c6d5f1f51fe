//! The fused op of a head beside its equations in plain Rust.

use super::*;

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
