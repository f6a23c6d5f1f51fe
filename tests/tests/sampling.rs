//! The kernel that chooses tokens on a GPU: greedy choices are exact, draws stay in the nucleus and have its shares.

use rwkvc_backend_api::{GPU, Target};
use rwkvc_ir::kernel::Kernel;
use rwkvc_passes::schedule::{SAMPLER_WORDS, sample_kernel};
use rwkvc_tests::cases::fibers;
use rwkvc_tests::interpret::{Call, Evaluator, Machine};

/// One row of the sampler: temperature, top-p, seed and count.
type Options = (f32, f32, i32, i32);

/// Chooses a token for each row of logits; the tokens, and the counts afterwards.
fn choose(kernel: &Kernel, machine: &dyn Machine, rows: &[(Vec<f32>, Options)]) -> Vec<(i32, i32)> {
    let logits = rows.iter().flat_map(|(x, _)| x).flat_map(|x| x.to_le_bytes());
    let sampler: Vec<i32> = rows
        .iter()
        .flat_map(|(_, (temperature, top_p, seed, _))| {
            [temperature.to_bits() as i32, top_p.to_bits() as i32, *seed]
        })
        .collect();
    assert_eq!(sampler.len(), rows.len() * SAMPLER_WORDS as usize);
    let counts = rows.iter().map(|(_, (.., count))| *count);
    let mut buffers: [Vec<u8>; 4] = [
        logits.collect(),
        sampler.into_iter().flat_map(i32::to_le_bytes).collect(),
        counts.flat_map(i32::to_le_bytes).collect(),
        vec![0xff; 4 * rows.len()],
    ];
    let call = Call {
        index: 0,
        kernel,
        label: "sample",
        tokens: rows.len() as i64,
    };
    machine.launch(&call, &mut buffers).expect("it runs");
    let words = |bytes: &[u8]| -> Vec<i32> {
        bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| i32::from_le_bytes(*b))
            .collect()
    };
    let (counts, tokens) = (words(&buffers[2]), words(&buffers[3]));
    tokens.into_iter().zip(counts).collect()
}

/// The evaluator, and fibers where LLVM is built in.
fn machines(kernel: &Kernel) -> Vec<Box<dyn Machine>> {
    let target = Target::parse("cuda").expect("a target");
    let mut machines: Vec<Box<dyn Machine>> = vec![Box::new(Evaluator)];
    machines.extend(fibers(std::slice::from_ref(kernel), &target));
    machines
}

/// Logits without a pattern.
fn logits(vocab: usize, row: usize) -> Vec<f32> {
    let mut x = row as u32 * 7919 + 1;
    let mut next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from((x >> 16) as u16) / 8192.0 - 4.0
    };
    (0..vocab).map(|_| next()).collect()
}

#[test]
fn greedy_takes_the_first_of_the_most_likely() {
    for vocab in [1, 5, 256, 300, 1000] {
        let kernel = sample_kernel(vocab as i64, &GPU);
        let mut rows: Vec<(Vec<f32>, Options)> = (0..4)
            .map(|i| (logits(vocab, i), (0.0, 1.0, 3, i as i32)))
            .collect();
        // A tie, between different threads and warps.
        let last = &mut rows[3].0;
        let most = 1.0 + last.iter().copied().fold(f32::MIN, f32::max);
        (last[vocab / 2], last[vocab - 1]) = (most, most);
        for machine in machines(&kernel) {
            let found = choose(&kernel, &*machine, &rows);
            for ((logits, options), (token, count)) in rows.iter().zip(found) {
                let most = logits.iter().copied().fold(f32::MIN, f32::max);
                let first = logits.iter().position(|&x| x == most).expect("one of them");
                assert_eq!((token as usize, count), (first, options.3 + 1), "{vocab} tokens");
            }
        }
    }
}

#[test]
fn draws_have_the_shares_of_the_nucleus() {
    // Probabilities 0.4, 0.3, 0.2, 0.1 at temperature 1: the nucleus of 0.8 is the first three.
    let vocab = 300;
    let mut row = vec![-200.0; vocab];
    for (place, p) in [(7, 0.4_f32), (290, 0.3), (31, 0.2), (263, 0.1)] {
        row[place] = p.ln();
    }
    let kernel = sample_kernel(vocab as i64, &GPU);
    let draws = 200;
    let rows: Vec<_> = (0..draws).map(|i| (row.clone(), (1.0, 0.8, 42, i))).collect();
    let machines = machines(&kernel);
    let found = choose(&kernel, &**machines.last().expect("one at least"), &rows);
    let share = |token| found.iter().filter(|(t, _)| *t == token).count() as f64 / f64::from(draws);
    for (token, expected) in [(7, 4.0 / 9.0), (290, 3.0 / 9.0), (31, 2.0 / 9.0), (263, 0.0)] {
        // Four standard deviations of a share of 200 draws.
        let bound = 4.0 * (expected * (1.0 - expected) / f64::from(draws)).sqrt();
        assert!(
            (share(token) - expected).abs() <= bound,
            "{token}: {} of {expected}",
            share(token)
        );
    }
    assert!(found.iter().all(|(t, _)| [7, 290, 31].contains(t)));
    // The same seed and count draw the same token, on any machine.
    for machine in &machines {
        let again = choose(&kernel, &**machine, &rows[..3]);
        assert_eq!(again, found[..3]);
    }
}

#[test]
fn a_small_nucleus_is_the_likeliest_token() {
    let vocab = 320;
    let kernel = sample_kernel(vocab as i64, &GPU);
    let rows: Vec<_> = (0..3)
        .map(|i| (logits(vocab, i), (1.0, 1e-6, i as i32, 0)))
        .collect();
    for machine in machines(&kernel) {
        for ((logits, _), (token, _)) in rows.iter().zip(choose(&kernel, &*machine, &rows)) {
            let most = logits.iter().copied().fold(f32::MIN, f32::max);
            assert_eq!(logits[token as usize], most);
        }
    }
}

#[test]
fn the_temperature_changes_shares_but_not_the_nucleus() {
    // 0.5, 0.3 and 0.2: a nucleus of 0.7 is the first two at any temperature; at one of 0.5 they have 25 to 9 shares.
    let vocab = 40;
    let mut row = vec![-100.0; vocab];
    for (place, p) in [(3, 0.5_f32), (30, 0.3), (17, 0.2)] {
        row[place] = p.ln();
    }
    let kernel = sample_kernel(vocab as i64, &GPU);
    let machines = machines(&kernel);
    let machine = machines.last().expect("one at least");
    let draws = 200;
    let share = |temperature: f32| {
        let rows: Vec<_> = (0..draws)
            .map(|i| (row.clone(), (temperature, 0.7, 9, i)))
            .collect();
        let found = choose(&kernel, &**machine, &rows);
        assert!(found.iter().all(|(t, _)| [3, 30].contains(t)), "{temperature}");
        found.iter().filter(|(t, _)| *t == 3).count() as f64 / f64::from(draws)
    };
    for (temperature, expected) in [(0.5, 25.0 / 34.0), (1.0, 5.0 / 8.0), (1e30, 0.5)] {
        let bound = 4.0 * (expected * (1.0 - expected) / f64::from(draws)).sqrt();
        assert!((share(temperature) - expected).abs() <= bound, "{temperature}");
    }
    for temperature in [1e-30, f32::from_bits(1)] {
        assert_eq!(share(temperature), 1.0);
    }
}

#[test]
fn logits_that_are_no_numbers_choose_nothing() {
    for vocab in [7, 2500] {
        let kernel = sample_kernel(vocab as i64, &GPU);
        let mut rows = vec![];
        for (i, wrong) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38]
            .into_iter()
            .enumerate()
        {
            for temperature in [0.0, 1.0] {
                let mut row = logits(vocab, i);
                row[vocab - 2] = wrong;
                rows.push((row, (temperature, 0.5, 1, 0)));
            }
        }
        for machine in machines(&kernel) {
            let found = choose(&kernel, &*machine, &rows);
            assert!(found[..6].iter().all(|(token, _)| *token == -1), "{found:?}");
            assert!(
                found[6..].iter().all(|(token, _)| *token == vocab as i32 - 2),
                "{found:?}"
            );
        }
    }
}
