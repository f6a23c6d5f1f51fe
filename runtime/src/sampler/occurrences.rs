//! How often each token was drawn, with older times counting less.

/// Decayed counts; only tokens that occurred cost time.
#[derive(Clone, Debug)]
pub(super) struct Occurrences {
    /// By token.
    counts: Vec<f64>,
    /// By token: whether it is in `tokens`. A count alone would not tell, as it may decay to 0.
    occurred: Vec<bool>,
    /// The tokens that occurred, in the order of their first time.
    tokens: Vec<u32>,
}

impl Occurrences {
    pub(super) fn new(rows: usize) -> Self {
        Self {
            counts: vec![0.0; rows],
            occurred: vec![false; rows],
            tokens: Vec::with_capacity(rows),
        }
    }

    /// Decays all counts and adds one of `token`, which must be in the vocabulary.
    pub(super) fn count(&mut self, token: u32, decay: f64) {
        for &earlier in &self.tokens {
            self.counts[earlier as usize] *= decay;
        }
        let index = token as usize;
        if !self.occurred[index] {
            self.occurred[index] = true;
            self.tokens.push(token);
        }
        self.counts[index] += 1.0;
    }

    pub(super) fn clear(&mut self) {
        for token in self.tokens.drain(..) {
            self.counts[token as usize] = 0.0;
            self.occurred[token as usize] = false;
        }
    }

    /// The tokens that occurred, with their counts.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, f64)> {
        self.tokens
            .iter()
            .map(|&token| (token, self.counts[token as usize]))
    }
}
