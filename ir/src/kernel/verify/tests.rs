//! Acceptance and refusals.

use super::super::parse::parse;
use super::*;

const SAMPLES: [&str; 7] = [
    include_str!("../../../../tests/filetests/kernel/arithmetic.rkir"),
    include_str!("../../../../tests/filetests/kernel/attention_state.rkir"),
    include_str!("../../../../tests/filetests/kernel/block_sum.rkir"),
    include_str!("../../../../tests/filetests/kernel/embed.rkir"),
    include_str!("../../../../tests/filetests/kernel/matvec.rkir"),
    include_str!("../../../../tests/filetests/kernel/sparse.rkir"),
    include_str!("../../../../tests/filetests/kernel/tail.rkir"),
];

#[test]
fn samples_are_verified_and_round_trip() {
    for text in SAMPLES {
        let kernels = parse(text).unwrap_or_else(|error| panic!("{error} in {text}"));
        let printed: String = kernels.iter().map(Kernel::to_string).collect();
        let plain: String = text
            .lines()
            .filter(|line| !line.starts_with(';'))
            .map(|l| format!("{l}\n"))
            .collect();
        assert_eq!(printed, plain);
        for kernel in kernels {
            verify(kernel).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
