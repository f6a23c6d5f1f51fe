//! The exponential of numbers up to 0, with the same bits on every machine and fit for SIMD.

/// Below this the result is taken for 0: it would be 1.6e-38, near the smallest normal number.
const SMALLEST: f32 = -87.0;

/// Adding this to a small number rounds it to an integer, which is then in the low bits.
const ROUND: f32 = 12_582_912.0;

/// ln 2 in two parts; the first has few bits, so that its product with an integer is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// `e^x` for `x` ≤ 0, −∞ included, to 2 units in the last place.
///
/// `e^x = 2^n e^r` with `|r| ≤ ln(2) / 2`, and `e^r` by its Taylor series.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let inside = if x > SMALLEST { x } else { SMALLEST };
    let shifted = inside * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (inside - n * LN2_HIGH) - n * LN2_LOW;
    let series = 1.0 / 5040.0;
    let series = series * r + 1.0 / 720.0;
    let series = series * r + 1.0 / 120.0;
    let series = series * r + 1.0 / 24.0;
    let series = series * r + 1.0 / 6.0;
    let series = series * r + 0.5;
    let series = series * (r * r) + r + 1.0;
    // n + 127 as an exponent: n ≥ −126 keeps it above 0.
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    let result = series * f32::from_bits(exponent);
    if x > SMALLEST { result } else { 0.0 }
}

/// The sum of all `exp(x)`, in an order that does not depend on the machine.
pub(super) fn sum_exp(values: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 8];
    let (chunks, rest) = values.as_chunks::<8>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(exp(x));
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(exp(x))).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_exact_to_two_units() {
        let mut worst = 0.0f64;
        for step in 0..200_000u32 {
            let x = -87.0 * (step as f32 / 200_000.0);
            let exact = f64::from(x).exp();
            let unit = f64::from(f32::EPSILON) * exact;
            worst = worst.max((f64::from(exp(x)) - exact).abs() / unit);
        }
        assert!(worst < 2.0, "{worst}");
    }

    #[test]
    fn ends_are_exact() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(-87.5), 0.0);
        assert_eq!(exp(f32::MIN), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(-86.99) > f32::MIN_POSITIVE);
    }

    #[test]
    fn sums_all() {
        let values: Vec<f32> = (0..101).map(|n| -0.1 * n as f32).collect();
        let exact: f64 = values.iter().map(|&x| f64::from(x).exp()).sum();
        assert!((sum_exp(&values) / exact - 1.0).abs() < 1e-6);
    }
}
