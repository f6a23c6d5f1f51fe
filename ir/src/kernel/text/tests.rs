//! Round trips and parse errors.

use super::*;

const SAMPLE: &str = "\
kernel @sample(%x: read bf16[4*T + 8], %y: readwrite f32[64], %n: read i32[T]) grid 2*T - 1 {
  local private @tmp: f32[64]
  local shared @all: i32[128]
  %T1 = tokens
  parallel %t in 0..2*T - 1 {
    %a = address 4*%t - %T1 + 3
    %b = address -%a - 2*%t - 5
    %z = address 0
    %c = const -0.0
    %nan = const 0x7fc00001
    %big = const 1e20
    %inf = const -inf
    %m = const.i32 -2147483648
    %j = const.index -9223372036854775808
    var $sum: f32x8 = splat.8 %c
    %w: i32x4 = copy %c
    serial %i in %z..%a step 4 {
      %v = load.8 %x[4*%i - 1]
      $sum = fma %v, %v, $sum
      prefetch %x[%i + 512]
    }
    %r = reduce.add $sum
    %e = extract $sum, 3
    %lt = lt %r, %e
    %s = select %lt, %r, %e
    thread %k in 0..32 {
      barrier
      %o = shuffle %s, 16
      %h = words.4 %x[8*%k - 3]
      %h1 = words %x[0]
      %p = pack.f16 $sum
      %q = words.2 %x[4]
      %d = mma.bf16 %p, %q, %p
      %pq = join %p, %q
      unrolled %u in 0..2 {
        store @tmp[2*%k + %u], %o
      }
    }
    if %lt {
      %g = load @tmp[3]
    } else {
      if %lt {
        store %y[0], %s
      }
    }
  }
}
";

#[test]
fn round_trip() {
    let kernel: Kernel = SAMPLE.parse().expect("it parses");
    assert_eq!(kernel.to_string(), SAMPLE);
    let two = format!("{SAMPLE}; a comment\n{SAMPLE}");
    let kernels = parse::parse(&two).expect("it parses");
    assert_eq!(
        kernels.iter().map(Kernel::to_string).collect::<Vec<_>>(),
        [SAMPLE, SAMPLE]
    );
}

#[test]
fn names_become_unique_and_stay() {
    let mut kernel: Kernel = SAMPLE.parse().expect("it parses");
    for info in &mut kernel.registers {
        info.name = "x".into();
    }
    kernel.registers[2].name = "9 ü".into();
    kernel.name = "1".into();
    let text = kernel.to_string();
    assert!(text.starts_with("kernel @_1(%x: "), "{text}");
    assert!(text.contains("parallel %x2 in"), "{text}");
    assert!(text.contains("%_9__ = address"), "{text}");
    assert_eq!(text.parse::<Kernel>().expect("it parses").to_string(), text);
}

#[test]
fn errors_have_places() {
    let cases = [
        ("", "1:1: found the end of the text, expected `kernel`"),
        (
            "kernel @k() grid T {\n  %a = sub %b, %c\n}",
            "2:12: found `%b`, expected a register that is assigned above",
        ),
        (
            "kernel @k(%x: reed",
            "1:15: found `reed`, expected `read` or `write` or `readwrite`",
        ),
        (
            "kernel @k() grid 9223372036854775808 {}",
            "1:18: found `9223372036854775808`, expected an integer from -9223372036854775808 to 9223372036854775807",
        ),
        (
            "kernel @k() grid T {\n  %a = tokens %a = tokens }",
            "2:15: found `%a` again, expected a new name",
        ),
        (
            "kernel @k() grid T { $a = tokens }",
            "1:22: found `$a`, expected `var` before the first assignment, and a type only there",
        ),
        (
            "kernel @k() grid T { %a = tokenz }",
            "1:27: found `tokenz`, expected an instruction",
        ),
        (
            "kernel @k() grid T { loop",
            "1:22: found `loop`, expected a statement or `}`",
        ),
        (
            "kernel @k(%é",
            "1:11: found `%`, expected a parameter, as in `%x: read f32[4]`",
        ),
    ];
    for (text, expected) in cases {
        let error = text.parse::<Kernel>().expect_err("it does not parse");
        assert_eq!(error.to_string(), expected, "{text}");
    }
    let deep = format!(
        "kernel @k() grid T {{ %t = tokens %c = eq %t, %t {}",
        "if %c { ".repeat(100_000)
    );
    let error = deep.parse::<Kernel>().expect_err("too deep");
    assert_eq!(error.expected, "at most 64 bodies in each other");
}
