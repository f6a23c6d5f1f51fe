//! The kernel that chooses tokens on a GPU: greedy choices are exact, draws stay in the nucleus and have its shares.

use rwkvc_abi::SampleOptions;
use rwkvc_backend_api::{GpuFeatures, Target};
use rwkvc_passes::schedule::{Sampler, SamplerBuffer, sampler};
use rwkvc_tests::cases::fibers;
use rwkvc_tests::interpret::{Call, Evaluator, Machine};
use rwkvc_tests::verified::verified;

/// One row of the sampler: temperature, top-p, seed and count.
type Options = (f32, f32, i32, i32);

/// Chooses a token for each row of logits; the tokens, and the counts afterwards.
fn choose(sampler: &Sampler, machine: &dyn Machine, rows: &[(Vec<f32>, Options)]) -> Vec<(i32, i32)> {
    let logits = rows.iter().flat_map(|(x, _)| x).flat_map(|x| x.to_le_bytes());
    let options: Vec<i32> = rows
        .iter()
        .flat_map(|(_, (temperature, top_p, seed, _))| {
            [temperature.to_bits() as i32, top_p.to_bits() as i32, *seed]
        })
        .collect();
    assert_eq!(options.len(), rows.len() * SampleOptions::WORDS);
    let counts = rows.iter().map(|(_, (.., count))| *count);
    let buffers: [Vec<u8>; 4] = [
        logits.collect(),
        options.into_iter().flat_map(i32::to_le_bytes).collect(),
        counts.flat_map(i32::to_le_bytes).collect(),
        vec![0xff; 4 * rows.len()],
    ];
    let scratch: Vec<Vec<u8>> = sampler
        .scratch
        .iter()
        .map(|&words| vec![0xff; 4 * words as usize * rows.len()])
        .collect();
    let mut all = buffers.to_vec();
    all.extend(scratch);
    for (index, (kernel, passed)) in sampler.steps.iter().enumerate() {
        let place = |buffer: &SamplerBuffer| match *buffer {
            SamplerBuffer::Logits => 0,
            SamplerBuffer::Options => 1,
            SamplerBuffer::Counts => 2,
            SamplerBuffer::Tokens => 3,
            SamplerBuffer::Scratch(part) => 4 + part,
        };
        let places: Vec<usize> = passed.iter().map(place).collect();
        let mut own: Vec<Vec<u8>> = places.iter().map(|&place| all[place].clone()).collect();
        let call = Call {
            index,
            kernel,
            label: "sample",
            tokens: rows.len() as i64,
        };
        machine.launch(&call, &mut own).unwrap_or_else(|e| panic!("{e}"));
        for (place, buffer) in places.into_iter().zip(own) {
            all[place] = buffer;
        }
    }
    let words = |bytes: &[u8]| -> Vec<i32> {
        bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| i32::from_le_bytes(*b))
            .collect()
    };
    let (counts, tokens) = (words(&all[2]), words(&all[3]));
    tokens.into_iter().zip(counts).collect()
}

/// The evaluator, and fibers where LLVM is built in.
fn machines(sampler: &Sampler) -> Vec<Box<dyn Machine>> {
    let target = Target::parse("cuda").expect("a target");
    let mut machines: Vec<Box<dyn Machine>> = vec![Box::new(Evaluator)];
    let kernels = verified(sampler.steps.iter().map(|(kernel, _)| kernel));
    machines.extend(fibers(&kernels, &target));
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
    for vocab in [1, 5, 256, 300, 2048, 6100] {
        let sampler = sampler(vocab as i64, &GpuFeatures::PORTABLE);
        let mut rows: Vec<(Vec<f32>, Options)> = (0..4)
            .map(|i| (logits(vocab, i), (0.0, 1.0, 3, i as i32)))
            .collect();
        // A tie, between different threads and warps.
        let last = &mut rows[3].0;
        let most = 1.0 + last.iter().copied().fold(f32::MIN, f32::max);
        (last[vocab / 2], last[vocab - 1]) = (most, most);
        for machine in machines(&sampler) {
            let found = choose(&sampler, &*machine, &rows);
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
    let sampler = sampler(vocab as i64, &GpuFeatures::PORTABLE);
    let draws = 200;
    let rows: Vec<_> = (0..draws).map(|i| (row.clone(), (1.0, 0.8, 42, i))).collect();
    let machines = machines(&sampler);
    let found = choose(&sampler, &**machines.last().expect("one at least"), &rows);
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
        let again = choose(&sampler, &**machine, &rows[..3]);
        assert_eq!(again, found[..3]);
    }
}

#[test]
fn a_small_nucleus_is_the_likeliest_token() {
    let vocab = 320;
    let sampler = sampler(vocab as i64, &GpuFeatures::PORTABLE);
    let rows: Vec<_> = (0..3)
        .map(|i| (logits(vocab, i), (1.0, 1e-6, i as i32, 0)))
        .collect();
    for machine in machines(&sampler) {
        for ((logits, _), (token, _)) in rows.iter().zip(choose(&sampler, &*machine, &rows)) {
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
    let sampler = sampler(vocab as i64, &GpuFeatures::PORTABLE);
    let machines = machines(&sampler);
    let machine = machines.last().expect("one at least");
    let draws = 200;
    let share = |temperature: f32| {
        let rows: Vec<_> = (0..draws)
            .map(|i| (row.clone(), (temperature, 0.7, 9, i)))
            .collect();
        let found = choose(&sampler, &**machine, &rows);
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
        let sampler = sampler(vocab as i64, &GpuFeatures::PORTABLE);
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
        for machine in machines(&sampler) {
            let found = choose(&sampler, &*machine, &rows);
            assert!(found[..6].iter().all(|(token, _)| *token == -1), "{found:?}");
            assert!(
                found[6..].iter().all(|(token, _)| *token == vocab as i32 - 2),
                "{found:?}"
            );
        }
    }
}

/// A nucleus of many tokens in several slices: none of it is left out, nothing else is in it, and shares are even.
#[test]
fn a_nucleus_may_lie_in_several_slices() {
    let vocab = 6000;
    // 40 tokens of 2 % each, 39 of which make a nucleus of 0.78 that has to have all 40, since they are equally likely; the rest
    // is below.
    let mut row = vec![(0.2_f32 / 5960.0).ln(); vocab];
    let likely: Vec<usize> = (0..40).map(|i| 17 + i * 149).collect();
    for &token in &likely {
        row[token] = 0.02_f32.ln();
    }
    let sampler = sampler(vocab as i64, &GpuFeatures::PORTABLE);
    let machines = machines(&sampler);
    let draws = 400;
    let rows: Vec<_> = (0..draws).map(|i| (row.clone(), (1.0, 0.779, 7, i))).collect();
    let found = choose(&sampler, &**machines.last().expect("one at least"), &rows);
    let mut times = vec![0; vocab];
    for (token, _) in &found {
        times[*token as usize] += 1;
    }
    assert_eq!(likely.iter().map(|&token| times[token]).sum::<i32>(), draws);
    // Ten times each on average: six standard deviations, and hardly ever none.
    assert!(likely.iter().all(|&token| times[token] <= 29), "{times:?}");
    assert!(likely.iter().filter(|&&token| times[token] == 0).count() <= 1);
    let again = choose(&sampler, &*machines[0], &rows[..2]);
    assert_eq!(again, found[..2], "equal seeds draw equal tokens on any machine");

    // Of a text that is as likely as can be, the nucleus of everything has every token.
    let even: Vec<_> = (0..draws).map(|i| (vec![1.0; vocab], (1.0, 1.0, 3, i))).collect();
    let found = choose(&sampler, &**machines.last().expect("one at least"), &even);
    let mean = found.iter().map(|(token, _)| f64::from(*token)).sum::<f64>() / f64::from(draws);
    // Four standard deviations of a mean of even draws.
    let bound = 4.0 * vocab as f64 / 12f64.sqrt() / f64::from(draws).sqrt();
    assert!((mean - vocab as f64 / 2.0).abs() < bound, "{mean}");
}
