//! What the evaluator computes and what it refuses.

use super::*;

mod blocks;

const HEAD: &str = "kernel @k(%x: readwrite f32[8*T], %n: readwrite i32[8*T]) grid T";

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn ints(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn to_floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

fn to_ints(bytes: &[u8]) -> Vec<i32> {
    bytes
        .chunks_exact(4)
        .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

/// Runs a body for one token on `x` and `n`, each padded to 8 elements.
fn run_body(body: &str, x: &[f32], n: &[i32]) -> Result<(Vec<f32>, Vec<i32>), EvalError> {
    let kernel: Kernel = format!("{HEAD} {{ {body} }}")
        .parse()
        .unwrap_or_else(|error| panic!("{error}"));
    let mut buffers = [floats(x), ints(n)];
    buffers.iter_mut().for_each(|bytes| bytes.resize(32, 0));
    run(&kernel, &mut buffers, 1)?;
    Ok((to_floats(&buffers[0]), to_ints(&buffers[1])))
}

/// Stores what an instruction makes of `%a` and `%b`, 4 lanes each.
fn on_floats(inst: &str, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
    let body =
        format!("parallel %p in 0..T {{ %a = load.4 %x[0] %b = load.4 %x[4] %c = {inst} store %x[0], %c }}");
    let (x, _) = run_body(&body, &[a, b].concat(), &[]).expect("it runs");
    [x[0], x[1], x[2], x[3]]
}

fn on_ints(inst: &str, a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
    let body =
        format!("parallel %p in 0..T {{ %a = load.4 %n[0] %b = load.4 %n[4] %c = {inst} store %n[0], %c }}");
    let (_, n) = run_body(&body, &[], &[a, b].concat()).expect("it runs");
    [n[0], n[1], n[2], n[3]]
}

fn bits(x: [f32; 4]) -> [u32; 4] {
    x.map(f32::to_bits)
}

#[test]
fn float_arithmetic() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let a = [1.0, -2.5, 3.5, -0.0];
    let b = [4.0, 0.5, -1.0, 0.0];
    assert_eq!(on_floats("add %a, %b", a, b), [5.0, -2.0, 2.5, 0.0]);
    assert_eq!(on_floats("sub %a, %b", a, b), [-3.0, -3.0, 4.5, -0.0]);
    assert_eq!(on_floats("mul %a, %b", a, b), [4.0, -1.25, -3.5, -0.0]);
    assert_eq!(
        on_floats("div %a, %b", [1.0, 1.0, -1.0, 2.0], [3.0, 0.0, 0.0, 4.0]),
        [1.0 / 3.0, inf, -inf, 0.5]
    );
    assert_eq!(bits(on_floats("neg %a", a, b)), bits([-1.0, 2.5, -3.5, 0.0]));
    assert_eq!(bits(on_floats("abs %a", a, b)), bits([1.0, 2.5, 3.5, 0.0]));
    assert_eq!(
        bits(on_floats("round %a", [0.5, -2.5, 3.5, -0.2], b)),
        bits([0.0, -2.0, 4.0, -0.0])
    );
    assert_eq!(
        on_floats("sqrt %a", [4.0, 2.0, 0.25, 0.0], b),
        [2.0, 2_f32.sqrt(), 0.5, 0.0]
    );
    // A NaN gives the second operand; equal operands as well.
    let result = on_floats("min %a, %b", [nan, 1.0, -0.0, 2.0], [1.0, nan, 0.0, 1.0]);
    assert_eq!(
        bits([result[0], result[2], result[3], 0.0]),
        bits([1.0, 0.0, 1.0, 0.0])
    );
    assert!(result[1].is_nan());
    let result = on_floats("max %a, %b", [nan, 1.0, 0.0, 2.0], [1.0, nan, -0.0, 1.0]);
    assert_eq!(
        bits([result[0], result[2], result[3], 0.0]),
        bits([1.0, -0.0, 2.0, 0.0])
    );
    assert!(result[1].is_nan());
}

#[test]
fn fma_rounds_once() {
    let x = 1.0 + 3.0 * f32::EPSILON;
    let result = on_floats("fma %a, %a, %b", [x; 4], [-1.0; 4]);
    assert_eq!(result, [x.mul_add(x, -1.0); 4]);
    assert_ne!(result[0], x * x - 1.0);
}

#[test]
fn reductions_are_trees() {
    // The upper half is added to the lower: (1e8 + 1) + (-1e8 + 1), each rounded.
    let a = [1e8, -1e8, 1.0, 1.0];
    let body = "parallel %p in 0..T { %a = load.4 %x[0] %s = reduce.add %a %m = reduce.max %a
        store %x[0], %s store %x[1], %m %i = load.4 %n[0] %t = reduce.add %i %u = reduce.max %i
        store %n[0], %t store %n[1], %u }";
    let (x, n) = run_body(body, &a, &[1, i32::MAX, -3, 7]).expect("it runs");
    assert_eq!(x[..2], [(1e8_f32 + 1.0) + (-1e8_f32 + 1.0), 1e8]);
    assert_eq!(n[..2], [i32::MIN + 4, i32::MAX]);
    let eight = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    let body = "parallel %p in 0..T { %a = load.8 %x[0] %s = reduce.add %a store %x[0], %s }";
    assert_eq!(run_body(body, &eight, &[]).expect("it runs").0[0], 36.0);
}

#[test]
fn integers_wrap_and_convert() {
    let a = [i32::MAX, -7, 5, 1 << 30];
    let b = [1, 3, -2, 4];
    assert_eq!(on_ints("add %a, %b", a, b), [i32::MIN, -4, 3, (1 << 30) + 4]);
    assert_eq!(on_ints("sub %b, %a", a, b), [1 - i32::MAX, 10, -7, 4 - (1 << 30)]);
    assert_eq!(on_ints("mul %a, %b", a, b), [i32::MAX, -21, -10, 0]);
    assert_eq!(on_ints("min %a, %b", a, b), [1, -7, -2, 4]);
    assert_eq!(on_ints("max %a, %b", a, b), [i32::MAX, 3, 5, 1 << 30]);
    assert_eq!(on_ints("and %a, %b", a, b), [1, 1, 4, 0]);
    assert_eq!(on_ints("or %a, %b", a, b), [i32::MAX, -5, -1, (1 << 30) + 4]);
    assert_eq!(on_ints("xor %a, %b", a, b), [i32::MAX - 1, -6, -5, (1 << 30) + 4]);
    assert_eq!(
        on_ints("shl %a, %b", [1, -1, 3, 1], [31, 4, 1, 0]),
        [i32::MIN, -16, 6, 1]
    );
    assert_eq!(
        on_ints("shr %a, %b", [i32::MIN, -1, 3, 64], [31, 4, 1, 3]),
        [-1, -1, 1, 8]
    );
    let body = "parallel %p in 0..T { %a = load.4 %x[0] %i = to_i32 %a store %n[0], %i %b = load.4 %n[4]
        %f = to_f32 %b store %x[0], %f %w = to_index %b %ww = mul %w, %w %t = index_to_i32 %ww store %n[4], %t }";
    let (x, n) = run_body(
        body,
        &[1.0, -3.0, 2147483520.0, -0.0],
        &[0, 0, 0, 0, 16777217, -5, 3, 1 << 16],
    )
    .expect("it runs");
    assert_eq!(n, [1, -3, 2147483520, 0, 33554433, 25, 9, 0]);
    assert_eq!(x[..4], [16777216.0, -5.0, 3.0, 65536.0]);
}

#[test]
fn comparisons_and_selections() {
    let nan = f32::NAN;
    for (op, expected) in [
        ("eq", [0, 1, 0, 0]),
        ("ne", [1, 0, 1, 1]),
        ("lt", [1, 0, 0, 0]),
        ("le", [1, 1, 0, 0]),
    ] {
        let body = format!(
            "parallel %p in 0..T {{ %a = load.4 %x[0] %b = load.4 %x[4] %c = {op} %a, %b %one = const.i32 1
             %o = splat.4 %one %zero = const.i32 0 %z = splat.4 %zero %s = select %c, %o, %z store %n[0], %s }}"
        );
        let (_, n) = run_body(&body, &[1.0, 2.0, 3.0, nan, 2.0, 2.0, 1.0, nan], &[]).expect("it runs");
        assert_eq!(n[..4], expected, "{op}");
    }
}

#[test]
fn halves_round_to_nearest_even() {
    for (name, expected) in [
        // 2048 is the first integer whose successor is no f16; 65520 is the first that becomes infinite.
        (
            "f16",
            [
                2048.0,
                2052.0,
                f32::INFINITY,
                65504.0,
                1.0039063,
                5.9604645e-8,
                0.0,
            ],
        ),
        (
            "bf16",
            [2048.0, 2048.0, 65536.0, 65536.0, 1.0, 5.9604645e-8, 2.9802322e-8],
        ),
    ] {
        let text = format!(
            "kernel @k(%x: readwrite f32[8], %h: readwrite {name}[8]) grid 1 {{ parallel %p in 0..1 {{
             %a = load.8 %x[0] store %h[0], %a %b = load.8 %h[0] store %x[0], %b }} }}"
        );
        let kernel: Kernel = text.parse().expect("it parses");
        let mut buffers = [
            floats(&[
                2049.0,
                2051.0,
                65520.0,
                65519.0,
                1.0039063,
                5.9604645e-8,
                2.9802322e-8,
                1.0,
            ]),
            vec![0; 16],
        ];
        run(&kernel, &mut buffers, 1).expect("it runs");
        assert_eq!(to_floats(&buffers[0])[..7], expected, "{name}");
    }
}

#[test]
fn iterations_are_those_asked_for() {
    let text = "kernel @k(%y: write f32[4*T]) grid 2*T {
        parallel %p in 0..2*T { %o = const 1.0 %v = splat.2 %o store %y[2*%p], %v } }";
    let kernel: Kernel = text.parse().expect("it parses");
    let program = Program::new(&kernel, Machine::Cpu).expect("it is well formed");
    let mut buffers = [vec![0; 32]];
    program.run(&mut buffers, 1..3, 2, None).expect("it runs");
    assert_eq!(to_floats(&buffers[0]), [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
    let error = program
        .run(&mut buffers, 1..5, 2, None)
        .expect_err("the grid is 4");
    assert_eq!(
        error.to_string(),
        "kernel @k: iterations 1..5, expected some of 0..4"
    );
    let error = program
        .run(&mut buffers, 0..4, 2, Some(10))
        .expect_err("it needs more");
    assert_eq!(error.to_string(), "kernel @k: not finished after 10 steps");
    let error = program
        .run(&mut [vec![0; 31]], 0..4, 2, None)
        .expect_err("too short");
    assert_eq!(
        error.to_string(),
        "kernel @k: buffer `y` has 31 bytes, expected 32"
    );
    let error = run::<Vec<u8>>(&kernel, &mut [], 2).expect_err("none");
    assert_eq!(error.to_string(), "kernel @k: found 0 buffers, expected 1");
    let error = run(&kernel, &mut buffers, 0).expect_err("no tokens");
    assert_eq!(error.to_string(), "kernel @k: 0 tokens, expected 1 to 2147483647");
}

#[test]
fn refusals() {
    let cases = [
        (
            "%a = load.4 %x[5]",
            "kernel @k: 4 elements from 5 of `x`, which has 8",
        ),
        (
            "%a = load %x[%p - 1]",
            "kernel @k: 1 elements from -1 of `x`, which has 8",
        ),
        (
            "%a = load %x[0] store @l[4], %a",
            "kernel @k: 1 elements from 4 of `l`, which has 4",
        ),
        (
            "%a = load %x[0] store @l[1], %a %b = load.2 @l[1]",
            "kernel @k: element 2 of `l` is read before it is written",
        ),
        (
            "%z = const.index 0 %a = div %p, %z",
            "kernel @k: 0 divided by 0, expected a positive divisor and, for `rem`, no negative dividend",
        ),
        (
            "%z = const.index -3 %y = const.index 2 %a = rem %z, %y",
            "kernel @k: -3 divided by 2, expected a positive divisor and, for `rem`, no negative dividend",
        ),
        (
            "thread %t in 0..3 { %a = load %x[%t] %b = shuffle %a, 1 }",
            "kernel @k: thread 2 shuffles with thread 3 of 3",
        ),
        (
            "thread %t in 0..2 { barrier %a = load %x[%t] store @l[0], %a } %b = load @l[0]",
            "kernel @k: element 0 of `l`, read outside of a thread loop, differs between threads",
        ),
        (
            "thread %t in 0..2 { barrier %a = load %x[%t] store @s[0], %a }",
            "kernel @k: threads race for element 0 of `s`: no barrier between its uses",
        ),
        (
            "thread %t in 0..2 { barrier %a = load %x[%t] store @s[%t], %a } %b = load @s[0]",
            "kernel @k: threads race for element 0 of `s`: no barrier between its uses",
        ),
    ];
    for (body, expected) in cases {
        let body =
            format!("local private @l: f32[4] local shared @s: f32[4] parallel %p in 0..T {{ {body} }}");
        let error = run_body(&body, &[1.0, 2.0], &[]).expect_err(&body);
        assert_eq!(error.to_string(), expected);
    }
    // A barrier after the writes makes it right.
    let body =
        "local shared @s: f32[4] parallel %p in 0..T { thread %t in 0..4 { %a = load %x[%t] store @s[%t], %a
        barrier %b = load @s[3 - %t] store %x[%t], %b } barrier %c = load.4 @s[0] store %x[4], %c }";
    let (x, _) = run_body(body, &[1.0, 2.0, 3.0, 4.0], &[]).expect("it runs");
    assert_eq!(x, [4.0, 3.0, 2.0, 1.0, 1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn pairs_of_halves() {
    let kernel: Kernel = "kernel @k(%h: read bf16[4], %x: read f32[4], %n: write i32[8]) grid 1 {
        local private @l: f16[4]
        parallel %p in 0..1 {
          %a = words %h[1] store %n[0], %a
          %v = load.4 %x[0] %b = pack.bf16 %v store %n[1], %b
          %c = pack.f16 %v store %n[3], %c
          store @l[0], %v %d = words.2 @l[0] store %n[5], %d } }"
        .parse()
        .expect("it parses");
    assert_eq!(Machine::of(&kernel), Machine::Cpu);
    let halves = [0x1111_u16, 0x2222, 0x3333, 0x4444]
        .map(u16::to_le_bytes)
        .concat();
    // Twice halfway between two bf16, too large for f16, halfway between two f16.
    let x = floats(&[1.0 + 1.0 / 256.0, -1.0 - 3.0 / 256.0, 1e6, 1.0 + 1.0 / 2048.0]);
    for machine in [Machine::Cpu, Machine::Gpu] {
        let mut buffers = [halves.clone(), x.clone(), vec![0; 32]];
        Program::new(&kernel, machine)
            .and_then(|p| p.run_all(&mut buffers, 1))
            .expect("it runs");
        let found: Vec<String> = to_ints(&buffers[2]).iter().map(|n| format!("{n:08x}")).collect();
        let f16 = ["bc0c3c04", "3c007c00"];
        assert_eq!(
            found,
            [
                "33332222", "bf823f80", "3f804974", f16[0], f16[1], f16[0], f16[1], "00000000"
            ],
            "{machine:?}"
        );
    }
    let long: Kernel = kernel
        .to_string()
        .replace("words %h[1]", "words %h[3]")
        .parse()
        .expect("it parses");
    let error = run(&long, &mut [halves, x, vec![0; 32]], 1).expect_err("one element is missing");
    assert_eq!(
        error.to_string(),
        "kernel @k: 2 elements from 3 of `h`, which has 4"
    );
}

#[test]
fn samples_compute_what_they_say() {
    let kernel: Kernel = include_str!("../../../../tests/filetests/kernel/tail.rkir")
        .parse()
        .expect("it parses");
    for tokens in [1, 3, 4, 13] {
        let x: Vec<f32> = (0..tokens).map(|i| i as f32).collect();
        let mut buffers = [floats(&x), vec![0; 4 * tokens]];
        run(&kernel, &mut buffers, tokens as i64).expect("it runs");
        assert_eq!(to_floats(&buffers[1]), x);
    }
    let kernel: Kernel = include_str!("../../../../tests/filetests/kernel/sparse.rkir")
        .parse()
        .expect("it parses");
    let x: Vec<f32> = (0..64).map(|i| if i % 5 == 2 { i as f32 } else { 0.0 }).collect();
    let rows: Vec<f32> = (0..1024).map(|i| (i % 11) as f32).collect();
    let mut buffers = [floats(&x), floats(&rows), vec![0; 64]];
    run(&kernel, &mut buffers, 1).expect("it runs");
    let expected: Vec<f32> = (0..16)
        .map(|j| (0..64).map(|i| x[i] * rows[16 * i + j]).sum())
        .collect();
    assert_eq!(to_floats(&buffers[2]), expected);
}

#[test]
fn a_square_of_registers_is_transposed() {
    for n in [2, 4, 8, 16] {
        let mut b = builder::Builder::new("transpose");
        let x = b.param("x", DType::F32, Extent::fixed(n * n), Access::Read);
        let y = b.param("y", DType::F32, Extent::fixed(n * n), Access::Write);
        b.parallel("once", Extent::fixed(1), |b, _| {
            let rows = (0..n)
                .map(|i| b.load("row", x, Affine::from(i * n), n as u32))
                .collect();
            for (i, column) in (0..).zip(b.transposed(rows)) {
                b.store(y, Affine::from(i * n), column);
            }
        });
        let values: Vec<f32> = (0..n * n).map(|i| i as f32).collect();
        let mut buffers = [floats(&values), floats(&vec![0.0; values.len()])];
        run(&b.finish(), &mut buffers, 1).expect("it runs");
        let expected = (0..n).flat_map(|i| (0..n).map(move |j| (j * n + i) as f32));
        let expected: Vec<f32> = expected.collect();
        assert_eq!(to_floats(&buffers[1]), expected, "{n} registers");
    }
}
