//! Results against the Kernel evaluator, bit by bit.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rwkvc_ir::DType;
use rwkvc_ir::kernel::Kernel;

use crate::generated::straight_line;
use crate::kernels::{arithmetic, control};
use crate::loaded::{Loaded, host};

/// Floats that rounding, comparison and conversion treat in special ways.
const EDGES: [f32; 16] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -2.5,
    3.5,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    f32::MAX,
    f32::MIN_POSITIVE,
    1e-40,
    -6e-8,
    65520.0,
    8388609.0,
];

fn random_float(rng: &mut SmallRng) -> f32 {
    match rng.random_range(0..8) {
        0 | 1 => EDGES[rng.random_range(0..EDGES.len())],
        2 => f32::from_bits(rng.random()),
        _ => rng.random_range(-4.0..4.0),
    }
}

fn random_int(rng: &mut SmallRng) -> i32 {
    match rng.random_range(0..4) {
        0 => [0, 1, -1, i32::MAX, i32::MIN][rng.random_range(0..5)],
        1 => rng.random(),
        _ => rng.random_range(-100..100),
    }
}

/// Buffers for a kernel, filled with `int` and with random floats.
fn buffers(kernel: &Kernel, tokens: i64, rng: &mut SmallRng, int: fn(&mut SmallRng) -> i32) -> Vec<Vec<u8>> {
    let buffer = |param: &rwkvc_ir::kernel::Param| {
        let len = usize::try_from(param.len.at(tokens)).expect("a length");
        let mut bytes = vec![0; len * param.dtype.size()];
        for i in 0..len {
            let value = match param.dtype {
                DType::I32 => f64::from(int(rng)),
                DType::I8 => f64::from(int(rng) as i8),
                DType::F32 | DType::F16 | DType::BF16 => f64::from(random_float(rng)),
            };
            param.dtype.write(&mut bytes, i, value);
        }
        bytes
    };
    kernel.params.iter().map(buffer).collect()
}

/// Compares two buffers; NaNs of f32 are equal to each other, since their payloads are unspecified.
fn assert_same(kernel: &Kernel, found: &[Vec<u8>], expected: &[Vec<u8>]) {
    for ((found, expected), param) in found.iter().zip(expected).zip(&kernel.params) {
        for i in 0..found.len() / param.dtype.size() {
            let (found, expected) = (param.dtype.read(found, i), param.dtype.read(expected, i));
            let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(
                same,
                "{}: %{}[{i}] is {found:e}, expected {expected:e}",
                kernel.name, param.name
            );
        }
    }
}

fn check(kernel: &Kernel, int: fn(&mut SmallRng) -> i32) {
    let Some(target) = host() else { return };
    let code = Loaded::new(std::slice::from_ref(kernel), &target);
    for (seed, tokens) in [1, 2, 7, 40].into_iter().enumerate() {
        let mut rng = SmallRng::seed_from_u64(seed as u64);
        let mut found = buffers(kernel, tokens, &mut rng, int);
        let mut expected = found.clone();
        rwkvc_ir::kernel::eval::run(kernel, &mut expected, tokens).expect("the evaluator runs it");
        let grid = kernel.grid.at(tokens);
        for range in [(0, grid / 3), (grid / 3, grid / 3), (grid / 3, grid)] {
            code.call(kernel, &mut found, range, tokens);
        }
        assert_same(kernel, &found, &expected);
    }
}

#[test]
fn arithmetic_agrees() {
    for lanes in [1, 2, 4, 8, 16, 64] {
        check(&arithmetic(lanes), random_int);
    }
}

#[test]
fn control_agrees() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        check(&control(dtype), |rng| rng.random_range(0..4));
    }
}

#[test]
fn generated_kernels_agree() {
    for seed in 0..60 {
        for lanes in [1, 2, 4, 8] {
            check(&straight_line(seed, lanes), random_int);
        }
    }
}
