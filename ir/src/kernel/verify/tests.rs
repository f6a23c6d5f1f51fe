//! Acceptance, refusals, and texts with random damage.

use super::super::parse::parse;
use super::*;

mod damage;
mod warps;

const SAMPLES: [&str; 8] = [
    include_str!("../../../../tests/filetests/kernel/arithmetic.rkir"),
    include_str!("../../../../tests/filetests/kernel/attention_state.rkir"),
    include_str!("../../../../tests/filetests/kernel/block_sum.rkir"),
    include_str!("../../../../tests/filetests/kernel/embed.rkir"),
    include_str!("../../../../tests/filetests/kernel/matvec.rkir"),
    include_str!("../../../../tests/filetests/kernel/sparse.rkir"),
    include_str!("../../../../tests/filetests/kernel/tail.rkir"),
    include_str!("../../../../tests/filetests/kernel/warp_product.rkir"),
];

#[test]
fn samples_are_verified_and_round_trip() {
    for text in SAMPLES {
        let kernels = parse(text).unwrap_or_else(|error| panic!("{error} in {text}"));
        let printed: String = kernels.iter().map(Kernel::to_string).collect();
        let lines = text.lines().filter(|line| !line.starts_with(';'));
        let plain: String = lines.map(|line| format!("{line}\n")).collect();
        assert_eq!(printed, plain);
        for kernel in kernels {
            verify(kernel).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

/// What the verifier says of a kernel with these statements in its parallel loop.
fn verdict(body: &str) -> String {
    let text = format!(
        "kernel @k(%x: read f32[8*T], %y: write f32[64], %n: readwrite i32[T]) grid 4*T {{
         local private @l: f32[64] local shared @s: f32[64] parallel %p in 0..4*T {{ {body} }} }}"
    );
    verdict_of(&text)
}

fn verdict_of(text: &str) -> String {
    let kernel: Kernel = text.parse().unwrap_or_else(|error| panic!("{error} in {text}"));
    verify(kernel).map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
}

#[test]
fn faults_of_form() {
    let cases = [
        (
            "%a = load.4 %y[0]",
            "kernel @k: in `%a = load.4 %y[0]`: `%y` may not be loaded from: its access is `write`",
        ),
        (
            "%a = load %x[0] store %x[0], %a",
            "kernel @k: in `store %x[0], %a`: `%x` may not be stored to: its access is `read`",
        ),
        (
            "%a = load %x[0] %b = add %a, %p",
            "kernel @k: in `%b = add %a, %p`: `%p` is index, expected f32",
        ),
        (
            "%a = load.4 %x[0] %b = xor %a, %a",
            "kernel @k: in `%b = xor %a, %a`: `%a` is f32x4, expected i32x4",
        ),
        (
            "%a = load %x[0] %b = and %a, %a",
            "kernel @k: in `%b = and %a, %a`: `%a` is f32, expected i32 or bool",
        ),
        (
            "%a = load %n[0] store %y[0], %a",
            "kernel @k: in `store %y[0], %a`: `%a` is i32, expected f32",
        ),
        (
            "%a = load %n[0] store %y[%a], %a",
            "kernel @k: in `store %y[%a], %a`: `%a` is i32, expected index",
        ),
        (
            "%a: f32x4 = const 1.0",
            "kernel @k: in `%a = const 1.0`: `%a` is f32x4, expected f32",
        ),
        (
            "%a = load.3 %x[0]",
            "kernel @k: the lanes of `%a` is 3, expected a power of two from 1 to 64",
        ),
        (
            "%a = load.128 %x[0]",
            "kernel @k: the lanes of `%a` is 128, expected a power of two from 1 to 64",
        ),
        (
            "%a = load.4 %x[0] %b = extract %a, 4",
            "kernel @k: in `%b = extract %a, 4`: the lane is 4, expected less than the lanes of `%a`, 4",
        ),
        (
            "%a = load.4 %x[0] %b = splat.8 %a",
            "kernel @k: in `%b = splat.8 %a`: `%a` is f32x4, expected f32",
        ),
        (
            "%a = load.4 %x[0] %b = select %p, %a, %a",
            "kernel @k: in `%b = select %p, %a, %a`: `%p` is index, expected boolx4",
        ),
        (
            "%i = splat.4 %p %a = div %i, %i",
            "kernel @k: in `%a = div %i, %i`: `%i` is indexx4, expected index",
        ),
        ("if %p { }", "kernel @k: in `if %p`: `%p` is index, expected bool"),
        (
            "serial %i in 0..4 { %a = load %x[0] } store %y[0], %a",
            "kernel @k: in `store %y[0], %a`: `%a` is read where no assignment precedes it in this body or one around it",
        ),
        (
            "serial %i in 0..4 { } %a = address %i",
            "kernel @k: in `%a = address %i`: `%i` is read where no assignment precedes it in this body or one around it",
        ),
        (
            "serial %i in 0..4 { var $a: index = copy %i } %b = copy $a",
            "kernel @k: in `%b = copy $a`: `$a` is read where no assignment precedes it in this body or one around it",
        ),
        (
            "var $a: index = copy %p thread %t in 0..4 { $a = copy %t }",
            "kernel @k: in `$a = copy %t`: `$a` is assigned inside and outside of a thread loop",
        ),
        (
            "parallel %q in 0..4*T { }",
            "kernel @k: found 2 parallel loops, expected one, outermost",
        ),
        (
            "thread %t in 0..T { }",
            "kernel @k: in `thread %t in 0..T`: the extent of a `thread` loop must be fixed",
        ),
        (
            "unrolled %t in 0..%p { }",
            "kernel @k: in `unrolled %t in 0..%p`: the extent of a `unrolled` loop must be fixed",
        ),
        (
            "thread %t in 0..2048 { }",
            "kernel @k: in `thread %t in 0..2048`: threads: found 2048, expected at most 1024",
        ),
        (
            "serial %t in 0..4 step 0 { }",
            "kernel @k: in `serial %t in 0..4 step 0`: the step is 0, expected a positive one",
        ),
        (
            "thread %t in 0..4 { thread %u in 0..4 { } }",
            "kernel @k: in `thread %u in 0..4`: a thread loop stands inside of another",
        ),
        (
            "thread %t in 0..4 { %z = const.index 2 %c = lt %t, %z if %c { barrier } }",
            "kernel @k: in `barrier`: all threads must get here, and `%c`, which decides it, may differ between them",
        ),
        (
            "thread %t in 0..4 { %v = load %x[0] serial %i in 0..%t { %w = shuffle %v, 1 } }",
            "kernel @k: in `%w = shuffle %v, 1`: all threads must get here, and `%t`, which decides it, may differ between them",
        ),
        // It differs only because an assignment under such a condition follows.
        (
            "thread %t in 0..4 { %z = const.index 2 var $m: index = copy %z serial %i in 0..4 { serial %j in 0..$m { barrier } %c = lt %t, %z if %c { $m = copy %i } } }",
            "kernel @k: in `barrier`: all threads must get here, and `$m`, which decides it, may differ between them",
        ),
        (
            "%v = load %x[0] %w = shuffle %v, 1",
            "kernel @k: in `%w = shuffle %v, 1`: `shuffle` stands outside of a thread loop",
        ),
        (
            "thread %t in 0..4 { %v = load %x[0] %w = shuffle %v, 32 }",
            "kernel @k: in `%w = shuffle %v, 32`: the mask is 32, expected 1 to 31, within a warp of 32 threads",
        ),
        (
            "unrolled %i in 0..1024 { unrolled %j in 0..1024 { barrier } }",
            "kernel @k: statements with unrolled loops written out: found 1049602, expected at most 262144",
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(verdict(body), expected);
    }
}

#[test]
fn faults_of_whole_kernels() {
    let cases = [
        (
            "kernel @k(%x: read f32[T - 2]) grid T { parallel %p in 0..T { } }",
            "kernel @k: the length of `x`: found T - 2, expected one that is never negative",
        ),
        (
            "kernel @k() grid T { local private @l: f32[-1] parallel %p in 0..T { } }",
            "kernel @k: the length of `l`: found -1, expected one that is not negative",
        ),
        (
            "kernel @k() grid T { local private @l: f32[262145] parallel %p in 0..T { } }",
            "kernel @k: bytes of all locals: found 1048580, expected at most 1048576",
        ),
        (
            "kernel @k() grid 4294967296*T { }",
            "kernel @k: the part of the grid that each token adds: found 4294967296, expected at most 2147483648",
        ),
        (
            "kernel @k() grid T { }",
            "kernel @k: found 0 parallel loops, expected one, outermost",
        ),
        (
            "kernel @k() grid T { parallel %p in 0..2*T { } }",
            "kernel @k: in `parallel %p in 0..2*T`: the parallel loop does not run from 0 to the grid, T, in steps of 1",
        ),
        (
            "kernel @k() grid T { barrier parallel %p in 0..T { } }",
            "kernel @k: in `barrier`: only index arithmetic on immutable registers may stand beside the parallel loop",
        ),
        (
            "kernel @k() grid T { %a = const 1.0 parallel %p in 0..T { } }",
            "kernel @k: in `%a = const 1.0`: only index arithmetic on immutable registers may stand beside the parallel loop",
        ),
        (
            "kernel @k() grid T { serial %i in 0..1 { parallel %p in 0..T { } } }",
            "kernel @k: in `serial %i in 0..1`: only index arithmetic on immutable registers may stand beside the parallel loop",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(verdict_of(text), expected);
    }
}

/// Faults that no text can have.
#[test]
fn faults_of_data() {
    let kernel: Kernel = "kernel @k(%x: read f32[T], %y: write f32[T]) grid T { parallel %p in 0..T {
        %a = load %x[%p] store %y[%p], %a } }"
        .parse()
        .expect("it parses");
    let verdict = |change: fn(&mut Kernel)| {
        let mut kernel = kernel.clone();
        change(&mut kernel);
        verify(kernel).expect_err("it is wrong").to_string()
    };
    assert_eq!(
        verdict(|k| k.name = "a b".into()),
        "kernel @a b: the name of the kernel, `a b`, is not a C identifier"
    );
    assert_eq!(
        verdict(|k| k.params[0].name = "1".into()),
        "kernel @k: the name of a parameter, `1`, is not a C identifier"
    );
    assert_eq!(
        verdict(|k| k.params[0].name = "y".into()),
        "kernel @k: two buffers are named `y`"
    );
    let body = |k: &mut Kernel, change: fn(&mut Vec<Stmt>)| match &mut k.body[0] {
        Stmt::For { body, .. } => change(body),
        _ => unreachable!("the parallel loop"),
    };
    assert_eq!(
        {
            let mut k = kernel.clone();
            body(&mut k, |b| b.push(b[0].clone()));
            verify(k).expect_err("twice").to_string()
        },
        "kernel @k: in `%a = load %x[%p]`: `%a` is assigned in a second place"
    );
    assert_eq!(
        {
            let mut k = kernel.clone();
            body(&mut k, |b| b[0] = Stmt::Let(Reg(1), Inst::Copy(Reg(7))));
            verify(k).expect_err("missing").to_string()
        },
        "kernel @k: in `%a = copy %?`: there is no register 7"
    );
    assert_eq!(
        {
            let mut k = kernel.clone();
            body(&mut k, |b| {
                b[0] = Stmt::Prefetch {
                    buf: Buf(7),
                    at: Affine::default(),
                }
            });
            verify(k).expect_err("missing").to_string()
        },
        "kernel @k: in `prefetch %?[0]`: there is no buffer 7"
    );
    assert_eq!(
        {
            let mut k = kernel.clone();
            k.registers[0].mutable = true;
            verify(k).expect_err("mutable").to_string()
        },
        "kernel @k: in `parallel $p in 0..T`: `$p` is mutable, expected an immutable loop variable"
    );
    let mut deep = kernel;
    body(&mut deep, |b| {
        for _ in 0..100 {
            let inner = std::mem::take(b);
            b.push(Stmt::If {
                condition: Reg(0),
                then: inner,
                otherwise: vec![],
            });
        }
    });
    assert_eq!(
        verify(deep).expect_err("deep").to_string(),
        "kernel @k: bodies in each other: found 65, expected at most 64"
    );
}

#[test]
fn accesses_that_leave_their_buffer() {
    let cases = [
        (
            "%a = load.4 %x[2*%p + 1]",
            "it touches elements 1 to 8*T + 2 of `%x`, which has 0 to 8*T - 1",
        ),
        (
            "%a = load %x[%p - 1]",
            "it touches elements -1 to 4*T - 2 of `%x`, which has 0 to 8*T - 1",
        ),
        (
            "%a = load %n[%p]",
            "it touches elements 0 to 4*T - 1 of `%n`, which has 0 to T - 1",
        ),
        (
            "%i = load %n[0] %w = to_index %i %a = load %x[%w]",
            "it touches elements -2147483648 to 2147483647 of `%x`, which has 0 to 8*T - 1",
        ),
        (
            "%m = mul %p, %p %a = load %x[%m]",
            "it touches elements -∞ to ∞ of `%x`, which has 0 to 8*T - 1",
        ),
        (
            "serial %i in 0..65 step 8 { %a = load.8 @l[%i] }",
            "it touches elements 0 to 71 of `@l`, which has 0 to 64 - 1",
        ),
        (
            "%c = const.index 3 %q = div %p, %c %a = load.8 %x[8*%q]",
            "it touches elements 0 to (32*T + 13)/3 of `%x`, which has 0 to 8*T - 1",
        ),
        // What a condition says holds only where it is known to.
        (
            "%z = const.index 60 %c = lt %p, %z if %c { } else { %a = load.4 @l[%p] }",
            "it touches elements 60 to 4*T + 2 of `@l`, which has 0 to 64 - 1",
        ),
        (
            "%z = const.index 60 var $m: index = copy %z serial %i in 0..T { %a = load @l[$m] $m = address $m + 1 }",
            "it touches elements -∞ to ∞ of `@l`, which has 0 to 64 - 1",
        ),
        // A product of unknown size may wrap to anything, also below its own factor.
        (
            "%i = load %n[0] %w = to_index %i %z = const.index 0 %u = max %w, %z %v = mul %u, %u %y1 = mul %v, %v %y2 = min %y1, %z %a = load %x[%y2]",
            "it touches elements -∞ to 0 of `%x`, which has 0 to 8*T - 1",
        ),
    ];
    for (body, expected) in cases {
        let verdict = verdict(body);
        assert!(verdict.ends_with(expected), "{body}: {verdict}");
    }
    let verdict = verdict("%z = const.index 0 %a = div %p, %z");
    assert_eq!(
        verdict,
        "kernel @k: in `%a = div %p, %z`: the divisor `%z` is not a positive constant"
    );
}

#[test]
fn index_faults_other_than_bounds() {
    let cases = [
        (
            "%a = div %p, %p",
            "in `%a = div %p, %p`: the divisor `%p` is not a positive constant",
        ),
        (
            "%z = const.index 7 %m = address %p - 1 %a = rem %m, %z",
            "in `%a = rem %m, %z`: the dividend `%m` may be negative: it is at least -1",
        ),
        (
            "%i = load %n[0] %w = to_index %i %m = mul %w, %w %mm = mul %m, %w serial %i1 in 0..%mm step 2 { }",
            "in `serial %i1 in 0..%mm step 2`: the loop variable may overflow: its end is at most ∞",
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(verdict(body), format!("kernel @k: {expected}"));
    }
}

#[test]
fn accesses_that_stay() {
    let bodies = [
        // The last tile begins earlier.
        "%last = const.index 56 %o = address 16*%p %at = min %o, %last %a = load.8 @l[%at]",
        // A quotient and a remainder.
        "%four = const.index 4 %t = div %p, %four %r = rem %p, %four %a = load.2 %x[8*%t + 2*%r]",
        // Exactly divisible.
        "%two = const.index 2 %e = address 4*%p + 2 %h = div %e, %two %a = load %x[%h - 1]",
        // Steps that do not divide the extent end before it.
        "serial %i in 0..62 step 8 { %a = load.8 @l[%i] } serial %i1 in 3..60 step 19 { %a1 = load.16 @l[%i1 + 7] }",
        // The loop runs only if there are many tokens.
        "serial %i in 8..T { %a = load.8 %n[%i - 8] }",
        "serial %i in 8..T { %a = load.8 %n[T0] }",
        // Conditions on sums of registers, both ways.
        "serial %i in 0..100 { %s = address %i + %p %z = const.index 64 %c = lt %s, %z if %c { %a = load @l[%i + %p] } }",
        "serial %i in 0..100 { %z = const.index 63 %c = lt %z, %i if %c { } else { %a = load @l[%i] } }",
        "serial %i in 0..100 { %z = const.index 63 %c = eq %z, %i if %c { %a = load.64 @l[%i - 63] } }",
        "serial %i in 0..100 { %z = const.index 63 %c = ne %z, %i if %c { } else { %a = load.64 @l[%i - 63] } }",
        "serial %i in -10..100 { %z = const.index 63 %n0 = const.index 0 %c = le %i, %z %d = le %n0, %i %e = and %c, %d if %e { %a = load @l[%i] } }",
        "serial %i in -10..100 { %z = const.index 63 %n0 = const.index 0 %c = lt %z, %i %d = lt %i, %n0 %e = or %c, %d if %e { } else { %a = load @l[%i] } }",
        "serial %i in 0..100 { %z = const.index 63 %c = le %i, %z %s = select %c, %i, %z %a = load @l[%s] }",
        // A truth value of floats beside one of indices.
        "%v = load %x[0] %f = eq %v, %v serial %i in 0..100 { %z = const.index 63 %c = le %i, %z %e = and %f, %c if %e { %a = load @l[%i] } }",
        // Triangles and distances.
        "serial %i in 0..64 { serial %j in %i..64 { %a = load @l[%j - %i] } }",
        "serial %i in 0..64 { %e = address %i + 1 serial %j in 0..%e { %a = load @l[%i - %j] } }",
        "serial %i in 0..T step 6 { %e = address %i + 6 %t = tokens %m = min %e, %t %c = sub %m, %i serial %j in 0..%c { %a = load %n[%i + %j] %b = load @l[%j] } }",
        // I32 with masks and bounds.
        "%i = load %n[0] %m = const.i32 63 %j = and %i, %m %w = to_index %j %a = load @l[%w]",
        "%i = load %n[0] %m = const.i32 63 %z = const.i32 0 %j = max %i, %z %k = min %j, %m %w = to_index %k %a = load @l[%w]",
        "%i = load %n[0] %w = to_index %i %h = const.index 8 %z = const.index 0 %v = max %w, %z %r = rem %v, %h %a = load.8 @l[7*%r]",
        // A mutable register within a body, until a loop changes it.
        "%z = const.index 60 var $m: index = copy %z %a = load @l[$m] $m = address $m + 3 %b = load @l[$m] serial %i in 0..9 { $m = copy %i %c = load @l[$m] }",
        // Products.
        "serial %i in 0..8 { serial %j in 0..8 { %m = mul %i, %j %a = load @l[%m + 14] } }",
        "%q = const.index 4 %t = div %p, %q serial %j in 0..8 { %m = mul %t, %j %a = load %x[%m] }",
        // A position that wraps on its way.
        "%g = const.index 9223372036854775807 %a = load @l[%g - 9223372036854775807]",
        // Nothing is touched.
        "prefetch %x[8*%p + 10000] serial %i in 5..5 { %a = load @l[%i + 60] }",
        // Threads.
        "thread %t in 0..128 step 2 { %h = const.index 2 %q = div %t, %h %v = load %x[0] store @s[%q], %v barrier %w = load @s[63 - %q] }",
    ];
    for body in bodies {
        let body = body.replace("T0", "%i - 8");
        assert_eq!(verdict(&body), "accepted", "{body}");
    }
}
