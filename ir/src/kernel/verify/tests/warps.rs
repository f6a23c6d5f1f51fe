//! Pairs of 16-bit elements and products of warps.

use super::verdict_of;

/// Two buffers of 16-bit elements, and fragments of the right types in the threads.
fn warp_verdict(threads: u32, body: &str) -> String {
    verdict_of(&format!(
        "kernel @k(%h: read bf16[64*T], %u: write f16[64], %x: read f32[64], %y: write f32[64]) grid T {{
         parallel %p in 0..T {{ thread %t in 0..{threads} {{
         %a = words.4 %h[32*%p] %b = words.2 %h[64*%p] %c = load.4 %x[0] {body} }} }} }}"
    ))
}

#[test]
fn faults_of_warps() {
    let cases = [
        (
            32,
            "%d = mma.bf16 %a, %b, %c store %y[0], %d %e = mma.f16 %a, %b, %d",
            "",
        ),
        (
            64,
            "%e = words.32 %h[64*%p] %f = load.64 %x[0] %g = pack.f16 %f",
            "",
        ),
        (32, "%e = words.8 %h[64*%p + 48]", ""),
        (
            32,
            "%e = words.8 %h[64*%p + 49]",
            "in `%e = words.8 %h[64*%p + 49]`: it touches elements 49 to 64*T of `%h`, which has 0 to 64*T - 1",
        ),
        (
            32,
            "%e = words %x[0]",
            "in `%e = words %x[0]`: `%x` is f32, expected f16, bf16 or i8",
        ),
        (
            32,
            "%e = words %u[0]",
            "in `%e = words %u[0]`: `%u` may not be loaded from: its access is `write`",
        ),
        (
            32,
            "%e = words %h[0] store %u[0], %e",
            "in `store %u[0], %e`: `%e` is i32, expected f32",
        ),
        (
            32,
            "%l = extract %c, 0 %m = extract %c, 1 %e = join %l, %m store %y[0], %e",
            "",
        ),
        (
            32,
            "%l = extract %c, 0 %m = extract %a, 0 %e = join %l, %m",
            "in `%e = join %l, %m`: `%m` is i32, expected f32",
        ),
        (
            32,
            "%l = extract %c, 0 %e = join %l, %c",
            "in `%e = join %l, %c`: `%c` is f32x4, expected f32",
        ),
        (
            32,
            "%l = extract %c, 0 %e = join %l, %l, %l",
            "the lanes of `%e` is 3, expected a power of two from 1 to 64",
        ),
        (
            32,
            "%e = pack.f32 %c",
            "in `%e = pack.f32 %c`: the format is f32, expected f16 or bf16",
        ),
        (
            32,
            "%e = pack.f16 %a",
            "in `%e = pack.f16 %a`: `%a` is i32x4, expected f32x4",
        ),
        (
            32,
            "%e = const 1.0 %f = pack.f16 %e",
            "in `%f = pack.f16 %e`: `%e` is f32, expected two lanes or more",
        ),
        (
            32,
            "%e = mma.i32 %a, %b, %c",
            "in `%e = mma.i32 %a, %b, %c`: the format is i32, expected f16 or bf16",
        ),
        (
            32,
            "%e = mma.f16 %b, %a, %c",
            "in `%e = mma.f16 %b, %a, %c`: `%b` is i32x2, expected i32x4",
        ),
        (
            32,
            "%e = mma.f16 %a, %b, %a",
            "in `%e = mma.f16 %a, %b, %a`: `%a` is i32x4, expected f32x4",
        ),
        (
            48,
            "%e = mma.f16 %a, %b, %c",
            "in `%e = mma.f16 %a, %b, %c`: `mma` stands in a loop of 48 threads, expected whole warps of 32",
        ),
        (
            32,
            "%f = lt %t, %p if %f { %e = mma.f16 %a, %b, %c }",
            "in `%e = mma.f16 %a, %b, %c`: all threads must get here, and `%f`, which decides it, may differ between them",
        ),
        // What is read is the same for all threads that read it at one place.
        (32, "%e = words %h[0] %f = eq %e, %e if %f { barrier }", ""),
        (
            32,
            "%e = words %h[%t] %f = eq %e, %e if %f { barrier }",
            "in `barrier`: all threads must get here, and `%f`, which decides it, may differ between them",
        ),
    ];
    for (threads, body, expected) in cases {
        let expected = match expected {
            "" => "accepted".to_owned(),
            fault => format!("kernel @k: {fault}"),
        };
        assert_eq!(warp_verdict(threads, body), expected, "{body}");
    }
    let verdict = verdict_of(
        "kernel @k(%h: read f16[64], %x: read f32[4]) grid T { parallel %p in 0..T {
         %a = words.4 %h[0] %b = words.2 %h[0] %c = load.4 %x[0] %d = mma.f16 %a, %b, %c } }",
    );
    assert_eq!(
        verdict,
        "kernel @k: in `%d = mma.f16 %a, %b, %c`: `mma` stands outside of a thread loop"
    );
}
