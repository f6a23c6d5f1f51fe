//! Tuning: which schedules and how many threads are fastest for a model on this machine.
//!
//! ```text
//! search ── asks for pairs of samples ──> Bench (lab: the real model; in tests, a fake clock)
//!    └────> Choice ── record ──> MODEL.tuning.json, which later runs read if it fits
//! ```

pub mod lab;
pub mod machine;
pub mod pairs;
pub mod record;
pub mod search;

use rwkvc_backend_api::Tuning;
use rwkvc_backend_api::tuning::{FIELDS, Field};

/// What is chosen for a model on a machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Threads of a step.
    pub threads: usize,
    /// What schedules choose; nothing for a model that is compiled already.
    pub tuning: Option<Tuning>,
}

/// One thing that can be chosen.
#[derive(Clone)]
pub enum Knob {
    /// The number of threads, of these.
    Threads(Vec<usize>),
    /// A field of the schedules.
    Field(&'static Field),
}

impl Knob {
    /// Every field, in the order in which they are tried.
    pub fn fields() -> impl Iterator<Item = Knob> {
        FIELDS.iter().map(Knob::Field)
    }

    /// Numbers of threads for a machine with so many cores: all up to four, then steps that grow with them.
    pub fn threads(cores: usize) -> Knob {
        let steps = [1, 2, 3, 4, cores / 4, cores / 2, cores * 3 / 4, cores];
        let mut numbers: Vec<usize> = steps.into_iter().filter(|n| (1..=cores).contains(n)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        Knob::Threads(numbers)
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Knob::Threads(_) => "threads",
            Knob::Field(field) => field.name,
        }
    }

    /// Tokens of the calls that show what it does: 1 is decode, more are prefill.
    pub fn tokens(&self) -> Vec<usize> {
        match self {
            Knob::Threads(_) => vec![1, 128],
            Knob::Field(field) => vec![field.tokens],
        }
    }

    /// Whether speed rises with its values up to some of them and falls from there on.
    pub fn is_scale(&self) -> bool {
        match self {
            Knob::Threads(_) => true,
            Knob::Field(field) => field.is_scale,
        }
    }

    /// All that it may be, as text.
    pub fn values(&self) -> Vec<String> {
        match self {
            Knob::Threads(numbers) => numbers.iter().map(usize::to_string).collect(),
            Knob::Field(field) => field.values(),
        }
    }

    /// What it is in a choice, as text; nothing if the choice does not have it.
    pub fn get(&self, choice: &Choice) -> Option<String> {
        match self {
            Knob::Threads(_) => Some(choice.threads.to_string()),
            Knob::Field(field) => choice.tuning.as_ref().map(|tuning| field.get(tuning)),
        }
    }

    /// A choice with this one of [`Self::values`]; nothing if it does not have the knob.
    pub fn with(&self, choice: &Choice, index: usize) -> Option<Choice> {
        let mut choice = *choice;
        match self {
            Knob::Threads(numbers) => choice.threads = *numbers.get(index)?,
            Knob::Field(field) => {
                let tuning = choice.tuning.as_mut()?;
                field.set(tuning, field.values().get(index)?).ok()?;
            }
        }
        Some(choice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_go_up_to_the_cores() {
        for (cores, expected) in [
            (1, "1"),
            (2, "1 2"),
            (4, "1 2 3 4"),
            (6, "1 2 3 4 6"),
            (64, "1 2 3 4 16 32 48 64"),
        ] {
            assert_eq!(Knob::threads(cores).values().join(" "), expected);
        }
    }

    #[test]
    fn knobs_turn_one_thing() {
        let default = Tuning::of(8, 16);
        let choice = Choice {
            threads: 2,
            tuning: Some(default),
        };
        for knob in Knob::fields().chain([Knob::threads(8)]) {
            for (i, value) in knob.values().into_iter().enumerate() {
                let turned = knob.with(&choice, i).expect("a value of the knob");
                assert_eq!(knob.get(&turned), Some(value));
                let others = Knob::fields().filter(|other| other.name() != knob.name());
                for other in others {
                    assert_eq!(other.get(&turned), other.get(&choice));
                }
            }
            assert_eq!(knob.with(&choice, 100), None);
        }
        let compiled = Choice {
            threads: 2,
            tuning: None,
        };
        let streams = Knob::fields().next().expect("a field");
        assert_eq!((streams.get(&compiled), streams.with(&compiled, 0)), (None, None));
    }
}
