//! Whether one of two is faster: by pairs of samples taken right after each other, since all speeds drift together.

/// A gain below this is none: it would not be found again.
const LEAST_GAIN: f64 = 0.01;

/// Standard errors that count as noise.
const ERRORS: f64 = 3.0;

/// Pairs below which nothing is known.
const LEAST_PAIRS: usize = 3;

/// How much slower both of the first pairs must be to end the comparison.
const HOPELESS: f64 = 1.03;

/// Times of a candidate relative to those of what was best so far, one for each pair.
#[derive(Clone, Debug, Default)]
pub struct Pairs(Vec<f64>);

/// What pairs say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// The median of the times relative to what was best.
    pub ratio: f64,
    /// What the ratio may be off by: some standard errors of the median.
    pub noise: f64,
    /// Pairs.
    pub pairs: usize,
}

impl Pairs {
    /// Adds a pair.
    pub fn add(&mut self, ratio: f64) {
        self.0.push(ratio);
    }

    /// How many there are.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a comparison begins with none and is asked how far it is"
    )]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How many more are needed to say anything.
    pub fn missing(&self) -> usize {
        LEAST_PAIRS.saturating_sub(self.0.len())
    }

    /// Whether more pairs would not change that the candidate is slower.
    pub fn are_hopeless(&self) -> bool {
        self.0.len() >= 2 && self.0.iter().all(|&ratio| ratio > HOPELESS)
    }

    /// What the pairs say; nothing of none.
    pub fn verdict(&self) -> Option<Verdict> {
        let ratio = median(self.0.clone())?;
        let distances = self.0.iter().map(|r| (r - ratio).abs()).collect();
        let pairs = self.0.len();
        // The deviation of a normal distribution by its median distance, and the error of a median of so many.
        let deviation = 1.4826 * median(distances)?;
        let noise = ERRORS * 1.2533 * deviation / (pairs as f64).sqrt();
        Some(Verdict { ratio, noise, pairs })
    }
}

impl Verdict {
    /// Whether the candidate is faster by more than the noise.
    pub fn is_faster(&self) -> bool {
        self.pairs >= LEAST_PAIRS && 1.0 - self.ratio > self.noise.max(LEAST_GAIN)
    }

    /// Whether more pairs are needed to say anything.
    pub fn is_early(&self) -> bool {
        self.pairs < LEAST_PAIRS
    }
}

/// The middle one; of two in the middle, what lies between.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    Some(match values.len() % 2 {
        0 => (values[values.len() / 2 - 1] + upper) / 2.0,
        _ => upper,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(ratios: &[f64]) -> Verdict {
        Pairs(ratios.to_vec()).verdict().expect("some pairs")
    }

    #[test]
    fn a_gain_must_exceed_the_noise() {
        assert!(verdict(&[0.9, 0.91, 0.89, 0.9]).is_faster());
        assert!(!verdict(&[1.1, 1.12, 1.09]).is_faster());
        // One disturbed sample changes nothing.
        assert!(verdict(&[0.9, 0.91, 3.0, 0.9, 0.89]).is_faster());
        // As large a gain within as large a spread.
        let spread = verdict(&[0.8, 1.1, 0.95, 1.2, 0.7]);
        assert!(!spread.is_faster(), "{spread:?}");
        // Certain, and too small.
        assert!(!verdict(&[0.995; 10]).is_faster());
        // Large, and not certain yet.
        assert!(!verdict(&[0.5, 0.5]).is_faster());
        assert!(verdict(&[0.5, 0.5]).is_early());
    }

    #[test]
    fn what_is_slow_from_the_start_is_given_up() {
        assert!(!Pairs(vec![1.5]).are_hopeless());
        assert!(Pairs(vec![1.5, 1.04]).are_hopeless());
        assert!(!Pairs(vec![1.5, 1.0]).are_hopeless());
        assert_eq!(Pairs::default().verdict(), None);
    }
}
