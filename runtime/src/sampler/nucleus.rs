//! Which tokens stay after top-p and top-k, without sorting the vocabulary.

use std::cmp::Ordering;

use super::exponential::{exp, sum_exp};

/// How many tokens are sorted first. Most texts need fewer.
const FIRST_BATCH: usize = 64;

/// The tokens that may be drawn.
#[derive(Clone, Debug)]
pub(super) struct Nucleus {
    /// By rising id, so that the outcome does not depend on how they were found.
    tokens: Vec<u32>,
    /// The same tokens in the order of the search.
    order: Vec<u32>,
}

/// More probable first, then by id: a total order, since scores are numbers.
fn rank(scores: &[f32], a: u32, b: u32) -> Ordering {
    scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b))
}

impl Nucleus {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self {
            tokens: Vec::with_capacity(rows),
            order: Vec::with_capacity(rows),
        }
    }

    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Keeps the tokens that pass `top_p` and then `top_k`. `scores` are logits less their maximum, which is thus 0;
    /// tokens with −∞ are dropped. At least one token stays.
    pub(super) fn choose(&mut self, scores: &[f32], top_p: f32, top_k: usize) {
        if top_p < 1.0 {
            self.keep_top_p(scores, f64::from(top_p));
        } else {
            self.keep_from(scores, f32::MIN);
        }
        if (1..self.tokens.len()).contains(&top_k) {
            self.keep_top_k(scores, top_k);
        }
    }

    fn keep_from(&mut self, scores: &[f32], lowest: f32) {
        self.tokens.clear();
        self.tokens.extend(
            scores
                .iter()
                .enumerate()
                .filter(|(_, score)| **score >= lowest)
                .map(|(token, _)| token as u32),
        );
    }

    fn keep_top_p(&mut self, scores: &[f32], top_p: f64) {
        let sum = sum_exp(scores);
        // All tokens below this score have together less than the part that top-p drops, so they are in it. The margin
        // of 0.01 is far above the rounding of the logarithm.
        let negligible = ((1.0 - top_p) * sum / scores.len() as f64).ln() - 0.01;
        self.keep_from(scores, (negligible as f32).clamp(f32::MIN, 0.0));
        let cutoff = self.cutoff(scores, top_p * sum);
        self.tokens.retain(|&token| scores[token as usize] >= cutoff);
    }

    /// The score at which the running sum of sorted `exp(score)` reaches `mass`. Sorts only as far as needed.
    fn cutoff(&mut self, scores: &[f32], mass: f64) -> f32 {
        let by_rank = |a: &u32, b: &u32| rank(scores, *a, *b);
        self.order.clear();
        self.order.extend_from_slice(&self.tokens);
        let mut rest = &mut self.order[..];
        let mut batch = FIRST_BATCH;
        let mut running = 0.0;
        let mut lowest = 0.0;
        while !rest.is_empty() {
            if batch < rest.len() {
                rest.select_nth_unstable_by(batch, by_rank);
            }
            let (next, after) = rest.split_at_mut(batch.min(rest.len()));
            next.sort_unstable_by(by_rank);
            for &token in &*next {
                lowest = scores[token as usize];
                running += f64::from(exp(lowest));
                if running >= mass {
                    return lowest;
                }
            }
            rest = after;
            batch *= 4;
        }
        lowest
    }

    fn keep_top_k(&mut self, scores: &[f32], top_k: usize) {
        self.order.clear();
        self.order.extend_from_slice(&self.tokens);
        let (_, &mut last, _) = self
            .order
            .select_nth_unstable_by(top_k - 1, |a, b| rank(scores, *a, *b));
        self.tokens
            .retain(|&token| rank(scores, token, last) != Ordering::Greater);
    }
}
