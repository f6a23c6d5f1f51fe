//! Comparing results.

/// The largest absolute difference. A NaN is as far away as anything can be.
///
/// # Panics
/// If there are not as many of one as of the other.
pub fn difference<X: Copy + Into<f64>, Y: Copy + Into<f64>>(found: &[X], expected: &[Y]) -> f64 {
    assert_eq!(found.len(), expected.len(), "as many values");
    let pairs = found.iter().zip(expected);
    let distances = pairs.map(|(&x, &y)| (x.into() - y.into()).abs());
    distances.fold(
        0.0,
        |most, d| if d.is_nan() { f64::INFINITY } else { most.max(d) },
    )
}

/// The largest absolute value.
pub fn largest<X: Copy + Into<f64>>(values: &[X]) -> f64 {
    values.iter().fold(0.0, |most, &x| most.max(x.into().abs()))
}

/// The token of the highest logit, the first of several.
///
/// # Panics
/// Without logits.
pub fn most_likely(logits: &[f32]) -> u32 {
    let best = (0..logits.len())
        .rev()
        .max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    best.expect("there are logits") as u32
}

/// The negative natural logarithm of the probability that logits give to a token.
pub fn surprise(logits: &[f32], token: u32) -> f64 {
    let most = f64::from(logits[most_likely(logits) as usize]);
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - most).exp()).sum();
    sum.ln() + most - f64::from(logits[token as usize])
}
