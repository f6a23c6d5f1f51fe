//! What the threads of a block do together.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

#[test]
fn block_sum_by_shuffles_and_shared_memory() {
    let kernel: Kernel = include_str!("../../../../../tests/filetests/kernel/block_sum.rkir")
        .parse()
        .expect("it parses");
    assert_eq!(Machine::of(&kernel), Machine::Gpu);
    let x: Vec<f32> = (0..512).map(|i| (i % 7) as f32).collect();
    let mut buffers = [floats(&x), vec![0; 8]];
    run(&kernel, &mut buffers, 2).expect("it runs");
    assert_eq!(
        to_floats(&buffers[1]),
        [x[..256].iter().sum::<f32>(), x[256..].iter().sum()]
    );
    let without_barrier: Kernel = kernel
        .to_string()
        .replace("      barrier\n", "")
        .parse()
        .expect("it parses");
    let error = run(&without_barrier, &mut buffers, 2).expect_err("threads race");
    assert_eq!(
        error.to_string(),
        "kernel @block_sum: threads race for element 1 of `partial`: no barrier between its uses"
    );
    let error = Program::new(&kernel, Machine::Cpu).expect_err("it shuffles");
    assert_eq!(
        error.to_string(),
        "kernel @block_sum: `shuffle`, `mma`, or a barrier inside a thread loop needs the threads of a block"
    );
}

#[test]
fn threads_leave_loops_at_their_own_end() {
    let text = "kernel @k(%n: readwrite i32[8]) grid 1 {
        parallel %p in 0..1 { thread %t in 0..8 {
            %count = load %n[%t] %end = to_index %count %one = const.i32 1 %zero = const.i32 0
            var $sum: i32 = copy %zero
            serial %i in 0..%end { $sum = add $sum, %one }
            %i3 = const.i32 3 %big = lt %i3, %count
            if %big { $sum = mul $sum, $sum } else { $sum = sub %zero, $sum }
            store %n[%t], $sum } } }";
    let kernel: Kernel = text.parse().expect("it parses");
    for machine in [Machine::Cpu, Machine::Gpu] {
        let mut buffers = [ints(&[0, 5, 1, 7, 2, 0, 3, 4])];
        Program::new(&kernel, machine)
            .and_then(|p| p.run_all(&mut buffers, 1))
            .expect("it runs");
        assert_eq!(
            to_ints(&buffers[0]),
            [0, 25, -1, 49, -2, 0, -3, 16],
            "{machine:?}"
        );
    }
}

#[test]
fn races_for_parameters() {
    let run_threads = |body: &str| {
        let text = format!(
            "kernel @k(%x: readwrite f32[8], %y: write f32[4*T]) grid T {{
             parallel %p in 0..T {{ %v = const 1.0 thread %t in 0..4 {{ barrier {body} }} }} }}"
        );
        let kernel: Kernel = text.parse().unwrap_or_else(|error| panic!("{error}"));
        let mut buffers = [vec![0; 32], vec![0; 32]];
        run(&kernel, &mut buffers, 2).map_or_else(|error| error.to_string(), |()| "ran".to_owned())
    };
    let of = |users: &str, element: u32, buffer: &str, rest: &str| {
        format!("kernel @k: {users} race for element {element} of `{buffer}`: {rest}")
    };
    let threads = |element, buffer| of("threads", element, buffer, "no barrier between its uses");
    let blocks = |element, buffer| of("blocks", element, buffer, "nothing orders their uses");
    let cases = [
        // Each thread and block has its own, or all only load.
        ("store %y[4*%p + %t], %v %a = load %x[0]", "ran".to_owned()),
        (
            "store %x[4*%p + %t], %v %a = load %x[4*%p + %t]",
            "ran".to_owned(),
        ),
        // A barrier is between.
        (
            "store %x[4*%p + %t], %v barrier %a = load %x[4*%p + 3 - %t]",
            "ran".to_owned(),
        ),
        (
            "store %x[4*%p + %t], %v %a = load %x[4*%p + 3 - %t]",
            threads(3, "x"),
        ),
        (
            "%a = load %x[4*%p + 3 - %t] store %x[4*%p + %t], %v",
            threads(0, "x"),
        ),
        ("store %y[4*%p], %v", threads(0, "y")),
        ("store %y[%t], %v", blocks(0, "y")),
        ("%a = load %x[%t] barrier store %x[%t], %v", blocks(0, "x")),
        ("store %x[4*%p + %t], %v barrier %a = load %x[3]", blocks(3, "x")),
        // Elements that both blocks load, and the second one stores to.
        ("%a = load %x[%t] barrier store %x[%t + 4*%p], %v", blocks(0, "x")),
    ];
    for (body, expected) in cases {
        assert_eq!(run_threads(body), expected, "{body}");
    }
}

/// Against the product of matrices, written down as such.
#[test]
fn products_of_warps() {
    let text = include_str!("../../../../../tests/filetests/kernel/warp_product.rkir");
    let mut rng = SmallRng::seed_from_u64(5);
    let mut random = |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random_range(-2.0..2.0)).collect() };
    for format in [DType::F16, DType::BF16] {
        let kernel: Kernel = text.replace("bf16", format.name()).parse().expect("it parses");
        assert_eq!(Machine::of(&kernel), Machine::Gpu);
        let round = |x: f32| match format {
            DType::F16 => half::f16::from_f32(x).to_f32(),
            _ => half::bf16::from_f32(x).to_f32(),
        };
        let (x, w) = (random(2 * 512), random(512));
        let mut stored = vec![0; 1024];
        for (i, &value) in w.iter().enumerate() {
            format.write(&mut stored, i, f64::from(value));
        }
        let mut buffers = [floats(&x), stored, vec![0; 2 * 4 * 256]];
        run(&kernel, &mut buffers, 2).expect("it runs");
        for (at, found) in to_floats(&buffers[2]).into_iter().enumerate() {
            let (row, column) = (at / 16, at % 16);
            let term = |k: usize| f64::from(round(x[32 * row + k])) * f64::from(round(w[32 * column + k]));
            let expected: f64 = (0..32).map(term).sum();
            let error = (f64::from(found) - expected).abs();
            assert!(
                error < 1e-5,
                "{format}, row {row}, column {column}: {found}, expected {expected}"
            );
        }
    }
}
