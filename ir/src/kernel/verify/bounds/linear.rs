//! Linear forms with rational coefficients over unknowns.

use std::fmt::{self, Display, Formatter};

/// An unknown integer. [`TOKENS`] is the number of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Unknown(pub(super) u32);

/// `T`.
pub(super) const TOKENS: Unknown = Unknown(0);

/// `(Σ factor * unknown + constant) / divisor`, exactly. Operations give nothing if numbers leave 128 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Linear {
    /// By unknown, ascending; no factor is 0.
    terms: Vec<(Unknown, i128)>,
    constant: i128,
    /// Positive, without a common factor with all the others.
    divisor: i128,
}

fn gcd(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    // Only `2^127` does not fit, and dividing by less is as right.
    i128::try_from(a).unwrap_or(1)
}

impl Linear {
    pub(super) fn constant(n: i128) -> Self {
        Linear {
            terms: vec![],
            constant: n,
            divisor: 1,
        }
    }

    pub(super) fn unknown(unknown: Unknown) -> Self {
        Linear {
            terms: vec![(unknown, 1)],
            constant: 0,
            divisor: 1,
        }
    }

    /// `fixed + per_token * T`
    pub(super) fn of_tokens(fixed: i128, per_token: i128) -> Self {
        let terms = if per_token == 0 {
            vec![]
        } else {
            vec![(TOKENS, per_token)]
        };
        Linear {
            terms,
            constant: fixed,
            divisor: 1,
        }
    }

    /// The value, if it does not depend on unknowns and is an integer.
    pub(super) fn as_constant(&self) -> Option<i128> {
        (self.terms.is_empty() && self.divisor == 1).then_some(self.constant)
    }

    pub(super) fn terms(&self) -> &[(Unknown, i128)] {
        &self.terms
    }

    /// Constant, factor of `T` and divisor, if there is no other unknown.
    pub(super) fn as_tokens(&self) -> Option<(i128, i128, i128)> {
        match self.terms[..] {
            [] => Some((self.constant, 0, self.divisor)),
            [(TOKENS, factor)] => Some((self.constant, factor, self.divisor)),
            _ => None,
        }
    }

    /// The unknown that was made last, with its factor; the divisor does not count.
    pub(super) fn last(&self) -> Option<(Unknown, i128)> {
        self.terms.last().copied()
    }

    fn reduced(mut self) -> Self {
        let mut common = gcd(self.divisor, self.constant);
        for (_, factor) in &self.terms {
            if common == 1 {
                return self;
            }
            common = gcd(common, *factor);
        }
        if common > 1 {
            self.terms.iter_mut().for_each(|(_, factor)| *factor /= common);
            self.constant /= common;
            self.divisor /= common;
        }
        self
    }

    /// `self * a + other * b`
    pub(super) fn combine(&self, a: i128, other: &Linear, b: i128) -> Option<Linear> {
        // Over the product of both divisors, unless they are equal.
        let (left, right, divisor) = if self.divisor == other.divisor {
            (a, b, self.divisor)
        } else {
            let divisor = self.divisor.checked_mul(other.divisor)?;
            (
                a.checked_mul(other.divisor)?,
                b.checked_mul(self.divisor)?,
                divisor,
            )
        };
        let sum = |x: i128, y: i128| left.checked_mul(x)?.checked_add(right.checked_mul(y)?);
        let mut terms = Vec::with_capacity(self.terms.len() + other.terms.len());
        let (mut i, mut j) = (0, 0);
        loop {
            let (unknown, x, y) = match (self.terms.get(i), other.terms.get(j)) {
                (None, None) => break,
                (Some(&(u, x)), Some(&(v, y))) if u == v => (u, x, y),
                (Some(&(u, x)), next) if next.is_none_or(|&(v, _)| u < v) => (u, x, 0),
                (_, Some(&(v, y))) => (v, 0, y),
                (Some(&(u, x)), None) => (u, x, 0),
            };
            i += usize::from(x != 0);
            j += usize::from(y != 0);
            let factor = sum(x, y)?;
            if factor != 0 {
                terms.push((unknown, factor));
            }
        }
        Some(
            Linear {
                terms,
                constant: sum(self.constant, other.constant)?,
                divisor,
            }
            .reduced(),
        )
    }

    pub(super) fn plus(&self, other: &Linear) -> Option<Linear> {
        self.combine(1, other, 1)
    }

    pub(super) fn minus(&self, other: &Linear) -> Option<Linear> {
        self.combine(1, other, -1)
    }

    pub(super) fn offset(&self, n: i128) -> Option<Linear> {
        self.plus(&Linear::constant(n))
    }

    pub(super) fn times(&self, n: i128) -> Option<Linear> {
        self.combine(n, &Linear::constant(0), 0)
    }

    pub(super) fn over(&self, n: i128) -> Option<Linear> {
        let divisor = self.divisor.checked_mul(n)?;
        Some(
            Linear {
                divisor,
                ..self.clone()
            }
            .reduced(),
        )
    }

    /// The form with `value` in place of its last unknown.
    pub(super) fn replace_last(&self, value: &Linear) -> Option<Linear> {
        let (_, factor) = self.last()?;
        let mut rest = self.clone();
        rest.terms.pop();
        // `rest` is over the divisor of `self` and so must the factor be.
        let part = value.times(factor)?.over(self.divisor)?;
        rest.plus(&part)
    }

    /// What `unknown` is at least (if its factor is positive) or at most, where the form is not negative.
    pub(super) fn solve(&self, unknown: Unknown) -> Option<(Linear, i128)> {
        let (_, factor) = *self.terms.iter().find(|(u, _)| *u == unknown)?;
        let mut rest = self.clone();
        rest.terms.retain(|(u, _)| *u != unknown);
        rest.divisor = 1;
        let bound = if factor > 0 {
            rest.times(-1)?.over(factor)?
        } else {
            rest.over(factor.checked_neg()?)?
        };
        Some((bound, factor))
    }

    /// The greatest integral value, or the least, that a form of `T` only bounds: `divisor * x ≤ a + b T` needs
    /// `x ≤ (⌊a / g⌋ + (b / g) T) / (divisor / g)` with `g` the common factor of `b` and the divisor.
    pub(super) fn tightened(&self, is_upper: bool) -> Linear {
        let Some((constant, factor, divisor)) = self.as_tokens() else {
            return self.clone();
        };
        let common = gcd(factor, divisor).max(1);
        let constant = if is_upper {
            constant.div_euclid(common)
        } else {
            constant.div_euclid(common) + i128::from(constant.rem_euclid(common) != 0)
        };
        Linear {
            divisor: divisor / common,
            ..Linear::of_tokens(constant, factor / common)
        }
        .reduced()
    }

    /// Whether every factor is a multiple of `n`, the constant aside, over no divisor.
    pub(super) fn moves_by(&self, n: i128) -> bool {
        self.divisor == 1 && self.terms.iter().all(|(_, factor)| factor % n == 0)
    }

    /// The constant of a form without divisor.
    pub(super) fn constant_part(&self) -> i128 {
        self.constant
    }
}

/// A form of `T`, as people write it.
impl Display for Linear {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        /// Bounds beyond this are those of the number format.
        const LARGE: i128 = 1 << 60;
        let Some((constant, factor, divisor)) = self.as_tokens() else {
            return f.write_str("?");
        };
        if factor == 0 && constant.saturating_abs() >= LARGE {
            return f.write_str(if constant < 0 { "-∞" } else { "∞" });
        }
        let sum = match (factor, constant) {
            (0, c) => c.to_string(),
            (1, 0) => "T".to_owned(),
            (b, 0) => format!("{b}*T"),
            (1, c) => format!("T {} {}", if c < 0 { '-' } else { '+' }, c.unsigned_abs()),
            (b, c) => format!("{b}*T {} {}", if c < 0 { '-' } else { '+' }, c.unsigned_abs()),
        };
        if divisor == 1 {
            f.write_str(&sum)
        } else {
            write!(f, "({sum})/{divisor}")
        }
    }
}
