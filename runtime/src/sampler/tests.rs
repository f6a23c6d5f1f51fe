use proptest::prelude::*;

use super::*;

fn sampler(options: SamplerOptions, rows: usize) -> Sampler {
    Sampler::new(options, rows).unwrap()
}

fn plain() -> SamplerOptions {
    SamplerOptions {
        top_p: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        ..SamplerOptions::default()
    }
}

/// The probabilities of `sample_logits`, by the letter and in f64.
fn reference(logits: &[f32], options: &SamplerOptions) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut p: Vec<f64> = logits.iter().map(|&x| f64::from(x - max).exp()).collect();
    let sum: f64 = p.iter().sum();
    p.iter_mut().for_each(|p| *p /= sum);
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
    if options.top_p < 1.0 {
        let mut running = 0.0;
        let reached = |&&token: &&usize| {
            running += p[token];
            running >= f64::from(options.top_p)
        };
        let cutoff = p[*order.iter().find(reached).unwrap()];
        p.iter_mut().for_each(|p| *p = if *p < cutoff { 0.0 } else { *p });
    }
    if options.top_k > 0 {
        order.iter().skip(options.top_k).for_each(|&token| p[token] = 0.0);
    }
    p.iter_mut()
        .for_each(|p| *p = p.powf(1.0 / f64::from(options.temperature)));
    let sum: f64 = p.iter().sum();
    p.iter().map(|p| p / sum).collect()
}

/// The probabilities that the sampler draws with.
fn probabilities(sampler: &mut Sampler, logits: &[f32]) -> Vec<f64> {
    sampler.score(logits).unwrap();
    sampler.weigh();
    let total: f64 = sampler.weights.iter().map(|&weight| f64::from(weight)).sum();
    let mut p = vec![0.0; logits.len()];
    for (&token, &weight) in sampler.nucleus.tokens().iter().zip(&sampler.weights) {
        p[token as usize] = f64::from(weight) / total;
    }
    p
}

#[test]
fn temperature_0_takes_the_first_of_the_best() {
    let mut sampler = sampler(SamplerOptions::greedy(), 4);
    assert_eq!(sampler.sample(&[1.0, 3.0, 3.0, f32::NEG_INFINITY]), Ok(1));
    assert_eq!(sampler.sample(&[-0.0, 0.0, 0.0, 0.0]), Ok(0));
}

#[test]
fn bad_logits_are_named() {
    let mut sampler = sampler(plain(), 2);
    let message = |result: Result<u32, SampleError>| result.unwrap_err().to_string();
    assert_eq!(
        message(sampler.sample(&[0.0, f32::NAN])),
        "the logit of token 1 is NaN"
    );
    assert_eq!(
        message(sampler.sample(&[f32::INFINITY, 0.0])),
        "the logit of token 0 is inf"
    );
    assert_eq!(
        message(sampler.sample(&[f32::NEG_INFINITY; 2])),
        "every token is excluded: all logits are -inf"
    );
    assert_eq!(
        message(sampler.sample(&[0.0])),
        "the sampler takes 2 logits, one per vocabulary row, not 1"
    );
    assert_eq!(
        sampler.observe(2),
        Err(SampleError::UnknownToken { token: 2, rows: 2 })
    );
    assert_eq!(
        self::sampler(plain(), 0).sample(&[]),
        Err(SampleError::NothingLeft)
    );
}

#[test]
fn bad_options_are_named() {
    let ok = SamplerOptions::default();
    let cases = [
        (
            SamplerOptions {
                temperature: -1.0,
                ..ok
            },
            "temperature is -1, expected a finite number of at least 0",
        ),
        (
            SamplerOptions {
                temperature: f32::NAN,
                ..ok
            },
            "temperature is NaN, expected a finite number of at least 0",
        ),
        (
            SamplerOptions {
                temperature: f32::INFINITY,
                ..ok
            },
            "temperature is inf, expected a finite number of at least 0",
        ),
        (
            SamplerOptions { top_p: 1.5, ..ok },
            "top_p is 1.5, expected a number from 0 to 1",
        ),
        (
            SamplerOptions {
                presence_penalty: -0.1,
                ..ok
            },
            "presence_penalty is -0.1, expected a finite number of at least 0",
        ),
        (
            SamplerOptions {
                frequency_penalty: f32::NAN,
                ..ok
            },
            "frequency_penalty is NaN, expected a finite number of at least 0",
        ),
        (
            SamplerOptions {
                penalty_decay: 2.0,
                ..ok
            },
            "penalty_decay is 2, expected a number from 0 to 1",
        ),
    ];
    for (options, expected) in cases {
        assert_eq!(
            Sampler::new(options, 1).unwrap_err().to_string(),
            format!("sampler option {expected}")
        );
    }
    for options in [ok, SamplerOptions::chat(), SamplerOptions::greedy()] {
        assert_eq!(options.validate(), Ok(()));
    }
}

#[test]
fn penalties_decay() {
    let options = SamplerOptions {
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        penalty_decay: 0.5,
        ..plain()
    };
    let mut sampler = sampler(options, 4);
    for token in [1, 2, 1] {
        sampler.observe(token).unwrap();
    }
    sampler.score(&[0.0; 4]).unwrap();
    // Counts: token 1 has 1 · 0.5 · 0.5 + 1, token 2 has 1 · 0.5.
    assert_eq!(
        sampler.scores,
        [0.0, -(0.5 + 1.25 * 0.25), -(0.5 + 0.5 * 0.25), 0.0]
    );
    sampler.forget();
    sampler.score(&[0.0; 4]).unwrap();
    assert_eq!(sampler.scores, [0.0; 4]);
}

#[test]
fn presence_outlives_the_count() {
    let options = SamplerOptions {
        presence_penalty: 1.0,
        frequency_penalty: 1.0,
        penalty_decay: 0.0,
        ..plain()
    };
    let mut sampler = sampler(options, 3);
    sampler.observe(0).unwrap();
    sampler.observe(1).unwrap();
    sampler.score(&[0.0; 3]).unwrap();
    assert_eq!(sampler.scores, [-1.0, -2.0, 0.0]);
}

#[test]
fn draws_follow_the_distribution() {
    let logits: Vec<f32> = (0..20).map(|n| (n as f32 * 1.7).sin() * 2.0).collect();
    let options = SamplerOptions {
        temperature: 0.8,
        top_p: 0.9,
        top_k: 8,
        ..plain()
    };
    let expected = reference(&logits, &options);
    let mut sampler = sampler(options, logits.len());
    let n_draws = 20_000;
    let mut counts = [0u32; 20];
    for _ in 0..n_draws {
        counts[sampler.sample(&logits).unwrap() as usize] += 1;
    }
    for (&count, p) in counts.iter().zip(expected) {
        let mean = f64::from(n_draws) * p;
        // Five standard deviations; a token without probability never comes.
        assert!(
            (f64::from(count) - mean).abs() <= 5.0 * (mean * (1.0 - p)).sqrt(),
            "{count} {mean}"
        );
    }
}

#[test]
fn the_seed_decides() {
    let logits: Vec<f32> = (0..100).map(|n| (n * 37 % 101) as f32 / 25.0).collect();
    let run = |seed| {
        let mut sampler = sampler(
            SamplerOptions {
                seed,
                ..SamplerOptions::default()
            },
            logits.len(),
        );
        (0..12)
            .map(|_| sampler.sample(&logits).unwrap())
            .collect::<Vec<u32>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    // Fixed for all machines and versions.
    assert_eq!(run(42), [68, 95, 43, 60, 30, 16, 30, 81, 79, 24, 49, 90]);
}

#[test]
fn extreme_temperatures_are_fine() {
    let logits = [0.0, 5.0, f32::NEG_INFINITY, -3e38];
    for temperature in [f32::from_bits(1), 1e-30, 1e-3, 1e3, f32::MAX] {
        let p = probabilities(
            &mut sampler(
                SamplerOptions {
                    temperature,
                    ..plain()
                },
                4,
            ),
            &logits,
        );
        assert_eq!(p[2], 0.0);
        assert!(
            p.iter().all(|p| p.is_finite()) && p[1] >= p[0],
            "{temperature}: {p:?}"
        );
    }
}

proptest! {
    #[test]
    fn equals_the_package(
        logits in prop::collection::vec((-120i32..120).prop_map(|n| n as f32 / 10.0), 1..400),
        top_p in prop_oneof![Just(0.0f32), Just(1.0), 0.01f32..0.999],
        top_k in prop_oneof![Just(0usize), 1..500usize],
        temperature in 0.2f32..3.0,
    ) {
        // The package leaves equals at the top-k border to its sort: make the logits distinct there.
        let logits: Vec<f32> = if top_k == 0 {
            logits
        } else {
            logits.iter().enumerate().map(|(n, x)| x + n as f32 * 1e-4).collect()
        };
        let options = SamplerOptions { temperature, top_k, top_p, ..plain() };
        let expected = reference(&logits, &options);
        let found = probabilities(&mut sampler(options, logits.len()), &logits);
        for (found, expected) in found.iter().zip(expected) {
            prop_assert!((found - expected).abs() <= 1e-5 * expected.max(1e-3), "{found} {expected}");
        }
    }
}
