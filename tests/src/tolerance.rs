//! How far two results may be apart.

use std::fmt;
use std::str::FromStr;

/// How far results may be from what is expected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// Equal once rounded to f32; zeros of either sign are equal.
    Exact,
    /// Within this part of the largest expected value, or of 1 if that is larger.
    Close(f64),
}

impl Tolerance {
    /// Compares results element by element.
    ///
    /// # Errors
    /// The worst element: its place, what was found and what was expected.
    pub fn check(self, found: &[f64], expected: &[f64]) -> Result<(), String> {
        if found.len() != expected.len() {
            return Err(format!(
                "there are {} elements, expected {}",
                found.len(),
                expected.len()
            ));
        }
        let scale = expected.iter().fold(1.0, |m: f64, e| m.max(e.abs()));
        let off = |i: usize| match self {
            Tolerance::Exact if found[i] as f32 == expected[i] as f32 => 0.0,
            Tolerance::Exact => f64::INFINITY,
            Tolerance::Close(_) if (found[i] - expected[i]).is_nan() => f64::INFINITY,
            Tolerance::Close(_) => (found[i] - expected[i]).abs() / scale,
        };
        let limit = match self {
            Tolerance::Exact => 0.0,
            Tolerance::Close(limit) => limit,
        };
        let worst = (0..found.len()).max_by(|&a, &b| off(a).total_cmp(&off(b)));
        match worst.filter(|&i| off(i) > limit) {
            None => Ok(()),
            Some(i) => Err(format!(
                "element {i} is {}, expected {}: off by {:.1e} of {scale}, expected {self}",
                found[i],
                expected[i],
                off(i)
            )),
        }
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tolerance::Exact => f.write_str("exact"),
            Tolerance::Close(limit) => write!(f, "close {limit:e}"),
        }
    }
}

impl FromStr for Tolerance {
    type Err = String;

    /// Reads `exact` or `close 1e-6`.
    fn from_str(text: &str) -> Result<Self, String> {
        let limit = text.strip_prefix("close ").and_then(|n| n.parse().ok());
        match (text, limit) {
            ("exact", _) => Ok(Tolerance::Exact),
            (_, Some(limit)) => Ok(Tolerance::Close(limit)),
            _ => Err(format!("tolerance `{text}`, expected `exact` or `close NUMBER`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_means_equal_as_f32() {
        let exact: Tolerance = "exact".parse().expect("it is one");
        assert_eq!(exact.check(&[0.5, -0.0], &[0.5 + 1e-12, 0.0]), Ok(()));
        assert!(exact.check(&[0.5], &[0.5000001]).is_err());
        assert!(exact.check(&[f64::NAN], &[f64::NAN]).is_err());
    }

    #[test]
    fn close_is_relative_to_the_largest() {
        let close: Tolerance = "close 1e-3".parse().expect("it is one");
        assert_eq!(close.check(&[100.0, 0.09], &[100.0, 0.0]), Ok(()));
        assert_eq!(
            close.check(&[0.0, 0.25], &[0.0, 0.0]),
            Err("element 1 is 0.25, expected 0: off by 2.5e-1 of 1, expected close 1e-3".into())
        );
        assert!(close.check(&[f64::NAN], &[0.0]).is_err());
        assert!(close.check(&[1.0], &[1.0, 1.0]).is_err());
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "close", "close x", "exactly"] {
            assert!(text.parse::<Tolerance>().is_err(), "{text}");
        }
    }
}
