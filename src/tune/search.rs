//! The search: one knob after the other, each by its neighbouring values, in pairs against what is best so far.

use std::time::Duration;

use anyhow::Result;

use super::pairs::{Pairs, Verdict};
use super::{Choice, Knob};

/// What can measure choices.
pub trait Bench {
    /// The time since some moment.
    fn elapsed(&self) -> Duration;

    /// Whether calls of so many tokens differ at all between two choices.
    ///
    /// # Errors
    /// If one of them cannot be compiled.
    fn differs(&mut self, a: &Choice, b: &Choice, tokens: usize) -> Result<bool>;

    /// The seconds that a call of so many tokens takes.
    ///
    /// # Errors
    /// If the choice cannot be compiled or run.
    fn sample(&mut self, choice: &Choice, tokens: usize) -> Result<f64>;

    /// These choices are compared from here on: what belongs to others may be forgotten.
    fn keep(&mut self, _: &[Choice]) {}
}

/// The most pairs of one comparison.
const MOST_PAIRS: usize = 15;

/// Comparisons of one knob that time is set aside for.
const OF_A_SCALE: u32 = 2;

/// The part of the time that is kept for comparing the end with the start.
const AT_THE_END: u32 = 6;

/// Tokens of the calls by which the end is compared with the start.
const SHOWN: [usize; 3] = [1, 16, 128];

/// One comparison.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The knob.
    pub knob: &'static str,
    /// What it was.
    pub from: String,
    /// What was tried.
    pub to: String,
    /// What came of it.
    pub verdict: Verdict,
    /// Whether it was taken.
    pub is_taken: bool,
}

/// The speed of a call before and after.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Tokens of the call.
    pub tokens: usize,
    /// Tokens a second at the start, the median.
    pub before: f64,
    /// Tokens a second of what was found, the median.
    pub after: f64,
    /// Of the times in pairs.
    pub verdict: Verdict,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Where the search began.
    pub start: Choice,
    /// What is best.
    pub best: Choice,
    /// Every comparison, in order.
    pub trials: Vec<Trial>,
    /// Knobs that there was no time for.
    pub untried: Vec<&'static str>,
    /// How much was gained; nothing if the start is best.
    pub changes: Vec<Change>,
}

/// Looks for the best choice for as long as `budget`, and says of each knob that it comes to: its name and what part of the
/// budget is used.
///
/// # Errors
/// If a choice cannot be compiled or run.
pub fn search(
    bench: &mut dyn Bench,
    start: Choice,
    knobs: &[Knob],
    budget: Duration,
    progress: &mut dyn FnMut(&str, f64),
) -> Result<Outcome> {
    let mut search = Search {
        began: bench.elapsed(),
        bench,
        best: start,
        trials: vec![],
        unanswered: vec![],
        end: budget - budget / AT_THE_END,
    };
    // Another round may find more, since what is best of one knob depends on the others.
    loop {
        let before = search.best;
        for (i, knob) in knobs.iter().enumerate() {
            let used = search.used();
            if used >= search.end {
                if search.matters(knob)? {
                    search.unanswered.push(knob.name());
                }
                continue;
            }
            progress(knob.name(), used.as_secs_f64() / budget.as_secs_f64());
            let weights: u32 = knobs[i..].iter().map(weight).sum();
            let share = (search.end - used) * weight(knob) / weights.max(1);
            search.turn(knob, share)?;
        }
        if search.best == before || search.used() >= search.end {
            break;
        }
    }
    // What a second round did not come to was tried in the first.
    let mut untried = search.unanswered.clone();
    untried.retain(|name| !search.trials.iter().any(|t| t.knob == *name));
    untried.dedup();
    progress("the gain", search.used().as_secs_f64() / budget.as_secs_f64());
    let changes = search.changes(start, budget)?;
    let best = if is_gain(&changes) { search.best } else { start };
    Ok(Outcome {
        start,
        best,
        trials: search.trials,
        untried,
        changes: if best == start { vec![] } else { changes },
    })
}

/// Whether some calls became faster, and not at the cost of the others.
fn is_gain(changes: &[Change]) -> bool {
    let all: f64 = changes.iter().map(|c| c.verdict.ratio).product();
    changes.iter().any(|c| c.verdict.is_faster()) && all < 1.0
}

/// Comparisons of a knob that time is set aside for.
fn comparisons(knob: &Knob) -> u32 {
    match knob.is_scale() {
        true => OF_A_SCALE,
        false => knob.values().len().saturating_sub(1) as u32,
    }
}

/// How much of the time a knob gets.
fn weight(knob: &Knob) -> u32 {
    comparisons(knob) * knob.tokens().len() as u32
}

struct Search<'b> {
    bench: &'b mut dyn Bench,
    began: Duration,
    best: Choice,
    trials: Vec<Trial>,
    /// Knobs of which a comparison did not come to its end.
    unanswered: Vec<&'static str>,
    /// How much time there is before the end is compared with the start.
    end: Duration,
}

impl Search<'_> {
    fn used(&self) -> Duration {
        self.bench.elapsed().saturating_sub(self.began)
    }

    /// Whether some value of a knob is other code than what is best.
    fn matters(&mut self, knob: &Knob) -> Result<bool> {
        let best = self.best;
        for index in 0..knob.values().len() {
            let Some(other) = knob.with(&best, index) else {
                return Ok(false);
            };
            for tokens in knob.tokens() {
                if other != best && self.bench.differs(&best, &other, tokens)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Tries the values of a knob, in about so much time.
    fn turn(&mut self, knob: &Knob, share: Duration) -> Result<()> {
        let values = knob.values();
        let here = knob.get(&self.best);
        let Some(here) = values.iter().position(|v| Some(v) == here.as_ref()) else {
            return Ok(());
        };
        let each = share / comparisons(knob).max(1);
        let up: Vec<usize> = (here + 1..values.len()).collect();
        let down: Vec<usize> = (0..here).rev().collect();
        for way in [up, down] {
            for index in way {
                let Some(is_taken) = self.compare(knob, index, &values, each)? else {
                    continue;
                };
                // Beyond a value that is no better come others that are worse.
                if knob.is_scale() && !is_taken {
                    break;
                }
            }
            // Having come this far up, there is nothing to be found on the other side of where it began.
            if knob.is_scale() && knob.get(&self.best).as_ref() != values.get(here) {
                break;
            }
        }
        Ok(())
    }

    /// Compares a value of a knob with what is best, which it becomes if it is faster. `None` if they are the same code, or there
    /// is no time to tell.
    fn compare(
        &mut self,
        knob: &Knob,
        index: usize,
        values: &[String],
        share: Duration,
    ) -> Result<Option<bool>> {
        let (best, tokens) = (self.best, knob.tokens());
        let Some(candidate) = knob.with(&best, index) else {
            return Ok(None);
        };
        let mut differs = false;
        for &tokens in &tokens {
            differs |= self.bench.differs(&best, &candidate, tokens)?;
        }
        if !differs {
            return Ok(None);
        }
        if self.used() >= self.end {
            self.unanswered.push(knob.name());
            return Ok(None);
        }
        self.bench.keep(&[best, candidate]);
        let time = Time {
            enough: (self.used() + share).min(self.end),
            most: self.end,
        };
        let Some(mut verdict) = self.pairs(&best, &candidate, &tokens, time, true)?.verdict else {
            self.unanswered.push(knob.name());
            return Ok(None);
        };
        if verdict.is_faster() {
            // Of many comparisons some come out well by chance, but hardly twice.
            let time = Time {
                enough: (self.used() + share).min(self.end),
                most: self.end,
            };
            if let Some(again) = self.pairs(&best, &candidate, &tokens, time, true)?.verdict {
                verdict = again;
            }
        }
        let is_taken = verdict.is_faster();
        self.trials.push(Trial {
            knob: knob.name(),
            from: knob.get(&best).unwrap_or_default(),
            to: values[index].clone(),
            verdict,
            is_taken,
        });
        if is_taken {
            self.best = candidate;
        }
        Ok(Some(is_taken))
    }

    /// Takes pairs of samples. Which of both comes first changes from pair to pair.
    fn pairs(
        &mut self,
        a: &Choice,
        b: &Choice,
        tokens: &[usize],
        time: Time,
        may_give_up: bool,
    ) -> Result<Taken> {
        let mut taken = Taken::default();
        let mut pairs = Pairs::default();
        while pairs.len() < MOST_PAIRS && !(may_give_up && pairs.are_hopeless()) {
            let start = self.used();
            if pairs.verdict().is_some_and(|v| !v.is_early()) && start >= time.enough {
                break;
            }
            // Of several calls the mean of the ratios, in the sense of ratios.
            let mut ratio = 1.0;
            for &tokens in tokens {
                let in_order = pairs.len().is_multiple_of(2);
                let (first, second) = if in_order { (a, b) } else { (b, a) };
                let first = self.bench.sample(first, tokens)?;
                let second = self.bench.sample(second, tokens)?;
                let (of_a, of_b) = if in_order {
                    (first, second)
                } else {
                    (second, first)
                };
                taken.before.push(of_a);
                taken.after.push(of_b);
                // A clock that does not move tells nothing.
                ratio *= if of_a > 0.0 { of_b / of_a } else { 1.0 };
            }
            pairs.add(ratio.powf(1.0 / tokens.len() as f64));
            // What would take far longer than there is time for is left unanswered.
            let more = pairs.missing() as u32 * (self.used() - start);
            if more > Duration::ZERO && self.used() + more > time.most {
                return Ok(taken);
            }
        }
        taken.verdict = pairs.verdict();
        Ok(taken)
    }

    /// How much faster the best is than the start.
    fn changes(&mut self, start: Choice, budget: Duration) -> Result<Vec<Change>> {
        let best = self.best;
        self.bench.keep(&[start, best]);
        let mut changed = vec![];
        for tokens in SHOWN {
            if best != start && self.bench.differs(&start, &best, tokens)? {
                changed.push(tokens);
            }
        }
        let mut changes = vec![];
        for (i, &tokens) in changed.iter().enumerate() {
            let left = budget.saturating_sub(self.used());
            let time = Time {
                enough: self.used() + left / (changed.len() - i) as u32,
                most: budget + budget / AT_THE_END,
            };
            let taken = self.pairs(&start, &best, &[tokens], time, false)?;
            let Some(verdict) = taken.verdict else { continue };
            let speed = |mut times: Vec<f64>| {
                times.sort_by(f64::total_cmp);
                tokens as f64 / times[times.len() / 2]
            };
            changes.push(Change {
                tokens,
                before: speed(taken.before),
                after: speed(taken.after),
                verdict,
            });
        }
        Ok(changes)
    }
}

/// How long pairs are taken.
#[derive(Clone, Copy)]
struct Time {
    /// When those that there are are enough, if they say anything.
    enough: Duration,
    /// When there must be an answer.
    most: Duration,
}

/// Pairs that were taken: the seconds of each sample, and what they say if there was time enough.
#[derive(Default)]
struct Taken {
    before: Vec<f64>,
    after: Vec<f64>,
    verdict: Option<Verdict>,
}

#[cfg(test)]
mod tests;
