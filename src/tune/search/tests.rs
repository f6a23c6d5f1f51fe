//! The search against a clock of its own.

use rwkvc_backend_api::Tuning;

use super::*;

/// A machine with known costs, and noise.
struct Machine {
    now: f64,
    /// Of a call, relative to the best.
    cost: fn(&Choice, usize) -> f64,
    /// How far a sample may be off, as a part of it.
    noise: f64,
    random: u64,
    samples: usize,
    /// Knobs whose values are the same code.
    dead: &'static [&'static str],
}

impl Machine {
    fn new(cost: fn(&Choice, usize) -> f64, noise: f64) -> Self {
        Machine {
            now: 0.0,
            cost,
            noise,
            random: 1,
            samples: 0,
            dead: &[],
        }
    }

    fn search(&mut self, seconds: u64) -> Outcome {
        let knobs: Vec<Knob> = [Knob::threads(4)].into_iter().chain(Knob::fields()).collect();
        let budget = Duration::from_secs(seconds);
        search(self, start(), &knobs, budget, &mut |_, _| {}).expect("nothing fails")
    }
}

impl Bench for Machine {
    fn elapsed(&self) -> Duration {
        Duration::from_secs_f64(self.now)
    }

    fn differs(&mut self, a: &Choice, b: &Choice, _: usize) -> Result<bool> {
        let differs = |knob: &Knob| knob.get(a) != knob.get(b) && !self.dead.contains(&knob.name());
        Ok(a.threads != b.threads || Knob::fields().any(|knob| differs(&knob)))
    }

    fn sample(&mut self, choice: &Choice, tokens: usize) -> Result<f64> {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let chance = (self.random >> 33) as f64 / (1u64 << 31) as f64;
        let time = 0.01 * (self.cost)(choice, tokens) * (1.0 + self.noise * chance);
        self.now += time;
        self.samples += 1;
        Ok(time)
    }
}

fn start() -> Choice {
    Choice {
        threads: 4,
        tuning: Some(Tuning::of(8, 16)),
    }
}

fn of(choice: &Choice) -> Tuning {
    choice.tuning.expect("schedules")
}

/// Costs that fall towards 8 streams, a prefetch of 2048 bytes, tiles of 4x6 and two threads.
fn valley(choice: &Choice, tokens: usize) -> f64 {
    let t = of(choice);
    let away = |a: f64, b: f64| 1.0 + 0.05 * (a.log2() - b.log2()).abs();
    let threads = away(choice.threads as f64, 2.0);
    match tokens {
        1 => threads * away(t.streams as f64, 8.0) * away((t.prefetch_bytes + 128) as f64, 2176.0),
        128 if t.square.to_string() == "4x6" => 10.0 * threads,
        _ => 11.0 * threads,
    }
}

#[test]
fn the_best_is_found_under_noise() {
    let found = Machine::new(valley, 0.02).search(60);
    let best = of(&found.best);
    assert_eq!(
        (
            found.best.threads,
            best.streams,
            best.prefetch_bytes,
            best.square.to_string()
        ),
        (2, 8, 2048, "4x6".into()),
        "{found:?}"
    );
    // What changes nothing stays.
    let default = of(&start());
    assert_eq!(
        (best.chunk, best.skip_percent),
        (default.chunk, default.skip_percent)
    );
    assert!(found.untried.is_empty(), "{:?}", found.untried);
    let decode = found.changes[0];
    assert_eq!(decode.tokens, 1);
    assert!(decode.after > 1.15 * decode.before, "{decode:?}");
    assert!((decode.before * 0.01 * valley(&start(), 1) - 1.0).abs() < 0.03);
}

#[test]
fn noise_alone_changes_nothing() {
    for seed in 0..20 {
        let mut machine = Machine::new(|_, tokens| tokens as f64, 0.3);
        machine.random = seed << 32;
        let found = machine.search(600);
        assert_eq!(found.best, start(), "{:?}", found.trials);
        assert!(found.changes.is_empty());
    }
}

#[test]
fn the_budget_is_kept_and_what_is_left_is_named() {
    // A call takes so long that few comparisons fit.
    let mut machine = Machine::new(|choice, tokens| 10.0 * valley(choice, tokens), 0.02);
    let found = machine.search(10);
    assert!(found.untried.contains(&"chunk"), "{:?}", found.untried);
    // No comparison is left without an answer, so the last may take longer.
    assert!(machine.now < 20.0, "{} s", machine.now);
    let mut machine = Machine::new(valley, 0.02);
    machine.search(60);
    assert!(machine.now < 66.0, "{} s", machine.now);
}

#[test]
fn the_same_code_is_not_measured() {
    let mut machine = Machine::new(valley, 0.02);
    machine.dead = &["packed_panels", "packed_ahead", "packed_rows"];
    let found = machine.search(60);
    assert!(!found.trials.iter().any(|t| machine.dead.contains(&t.knob)));
    assert!(found.untried.iter().all(|name| !machine.dead.contains(name)));
}

#[test]
fn only_neighbours_of_what_is_good_are_tried() {
    let found = Machine::new(valley, 0.0).search(600);
    let tried = |knob: &str| -> Vec<&str> {
        let trials = found.trials.iter().filter(|t| t.knob == knob);
        trials.map(|t| t.to.as_str()).collect()
    };
    // Up while it helps, and not down after that; once more in the second round.
    assert_eq!(tried("prefetch_bytes"), ["1024", "2048", "1024"]);
    assert_eq!(tried("skip_percent"), ["60", "20", "60", "20"]);
}

#[test]
fn one_side_does_not_gain_what_the_other_loses() {
    // Fewer threads are better for decode, and far worse for prefill.
    let cost = |choice: &Choice, tokens: usize| match tokens {
        1 => 1.0 + 0.05 * choice.threads as f64,
        _ => 40.0 / choice.threads as f64,
    };
    let found = Machine::new(cost, 0.01).search(60);
    assert_eq!(found.best.threads, 4);
}
