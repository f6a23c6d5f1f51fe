//! Damaged texts: whatever still verifies runs to its end.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::super::super::eval::{Machine, Program};
use super::super::super::parse::parse;
use super::*;

/// Pieces of text that damage puts in.
const PIECES: [&str; 16] = [
    "%",
    "$sum",
    "{",
    "}",
    "T",
    "4*%t",
    "-1",
    "9223372036854775807",
    "load.8 ",
    "..",
    "step 7",
    "if ",
    "barrier ",
    "thread",
    "rem",
    "é",
];

fn damage(text: &str, rng: &mut SmallRng) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..rng.random_range(1..3) {
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..5) {
            0 => bytes[at] = rng.random(),
            1 => _ = bytes.drain(at..(at + rng.random_range(1..20)).min(bytes.len())),
            2 => {
                let piece = PIECES[rng.random_range(0..PIECES.len())].bytes();
                bytes.splice(at..at, piece);
            }
            3 => bytes[at] = b'0' + rng.random_range(0..10),
            _ => {
                // A copy of another part of the text.
                let from = rng.random_range(0..bytes.len());
                let part = bytes[from..(from + 30).min(bytes.len())].to_vec();
                bytes.splice(at..at, part);
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Damaged texts are errors or other kernels; kernels that are verified stay in their buffers.
#[test]
fn damage_is_survived() {
    let mut rng = SmallRng::seed_from_u64(7);
    let (mut parsed, mut verified) = (0, 0);
    for round in 0..20_000 {
        let text = damage(SAMPLES[round % SAMPLES.len()], &mut rng);
        let Ok(kernels) = parse(&text) else { continue };
        for kernel in kernels {
            parsed += 1;
            let printed = kernel.to_string();
            assert_eq!(
                printed
                    .parse::<Kernel>()
                    .expect("printed text parses")
                    .to_string(),
                printed
            );
            let Ok(kernel) = verify(kernel) else { continue };
            verified += 1;
            run_to_the_end(&kernel, rng.random_range(1..4), &text);
        }
    }
    assert!(
        parsed > 500 && verified > 200,
        "{parsed} parsed, {verified} verified"
    );
}

/// Runs a verified kernel; whatever may go wrong, it is not an access.
fn run_to_the_end(kernel: &Kernel, tokens: i64, text: &str) {
    use super::super::eval::EvalError;
    let bytes = |p: &Param| p.len.at(tokens).saturating_mul(p.dtype.size() as i64);
    if kernel.params.iter().any(|p| bytes(p) > 1 << 20) {
        return;
    }
    let mut buffers: Vec<Vec<u8>> = kernel
        .params
        .iter()
        .map(|p| vec![0x3c; bytes(p) as usize])
        .collect();
    let Ok(program) = Program::new(kernel, Machine::of(kernel)) else {
        return;
    };
    let iterations = 0..kernel.grid.at(tokens).max(0);
    let result = program.run(&mut buffers, iterations, tokens, Some(20_000));
    if let Err(
        error @ (EvalError::OutOfBounds { .. } | EvalError::Division { .. } | EvalError::Divergence { .. }),
    ) = result
    {
        panic!("{error} in verified kernel\n{text}");
    }
}
