//! Files of `filetests/kernel`: they round trip, verify, and every backend leaves the bits of the evaluator.

use std::fmt::Write;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rwkvc::backends;
use rwkvc_backend_api::Target;
use rwkvc_ir::DType;
use rwkvc_ir::kernel::parse::parse;
use rwkvc_ir::kernel::verify::verify;
use rwkvc_ir::kernel::{Access, Kernel};
use rwkvc_tests::header::FileTest;
use rwkvc_tests::interpret::{Call, Evaluator, Machine};
use rwkvc_tests::native::Native;

use super::with_snapshots;

/// Kernels that a CPU cannot run, and why. A backend that accepts one fails the test.
const GPU_ONLY: &[(&str, &str)] = &[
    ("arithmetic", "has `exp2`, for which CPUs have no instruction"),
    (
        "block_sum",
        "has `shuffle`, which needs threads that run together",
    ),
    ("warp_product", "has `mma`, which needs the threads of a warp"),
];

const TOKENS: [i64; 3] = [1, 3, 8];

#[test]
fn kernels() {
    insta::glob!("../../filetests/kernel", "*.rkir", |path| {
        let file = FileTest::read(path);
        let name = file.name.as_str();
        let kernels = parse(&file.body).unwrap_or_else(|e| panic!("{name}: {e} (lines after the header)"));
        let printed: String = kernels.iter().map(Kernel::to_string).collect();
        assert_eq!(printed, file.body, "{name}: text as the printer writes it");

        let mut report = String::new();
        for kernel in kernels {
            let kernel = verify(kernel).unwrap_or_else(|e| panic!("{name}: {e}"));
            let mut natives = vec![];
            for backend in backends::all() {
                for target in targets() {
                    match (
                        Native::compile_for(&target, backend, &[vec![&kernel]]),
                        GPU_ONLY.iter().find(|(n, _)| *n == name),
                    ) {
                        (Ok(mut code), None) => {
                            natives.push((format!("{} for {target}", backend.name()), code.remove(0)));
                        }
                        (Err(_), Some(_)) => {}
                        (Err(e), None) => panic!("{name}, {target}: {e}"),
                        (Ok(_), Some((_, gap))) => panic!("{name} {gap}, but {} accepts it", backend.name()),
                    }
                }
            }
            for tokens in TOKENS {
                run(&kernel, tokens, &natives, &mut report);
            }
        }
        with_snapshots("kernel", || insta::assert_snapshot!("run", report));
    });
}

/// This machine, and what it can run of the machines that have less: they compute some instructions in other ways.
fn targets() -> Vec<Target> {
    let host = Target::host();
    let lesser = [
        "cpu:x86-64-v3",
        "cpu:x86-64-v3+avxvnni",
        "cpu:x86-64-v4",
        "cpu:aarch64",
    ];
    let lesser = lesser.map(|text| Target::parse(text).expect("a target"));
    let runs = |target: &Target| target.arch == host.arch && target.extensions.iter().all(|e| host.has(e));
    let lesser: Vec<Target> = lesser.into_iter().filter(runs).collect();
    [vec![host], lesser].concat()
}

fn run(kernel: &Kernel, tokens: i64, natives: &[(String, Native)], report: &mut String) {
    let call = Call {
        index: 0,
        kernel,
        label: &kernel.name,
        tokens,
    };
    let before = buffers(kernel, tokens);
    let mut expected = before.clone();
    Evaluator
        .launch(&call, &mut expected)
        .unwrap_or_else(|e| panic!("{}: {e}", kernel.name));
    for (backend, native) in natives {
        let mut found = before.clone();
        native
            .launch(&call, &mut found)
            .unwrap_or_else(|e| panic!("{}, {backend}: {e}", kernel.name));
        for ((found, expected), param) in found.iter().zip(&expected).zip(&kernel.params) {
            assert!(
                found == expected,
                "{}, {backend}, {tokens} tokens: `{}` differs",
                kernel.name,
                param.name
            );
        }
    }
    for (buffer, param) in expected.iter().zip(&kernel.params) {
        if param.access != Access::Read {
            // Writing to a string cannot fail.
            _ = writeln!(
                report,
                "T={tokens} {}: {}",
                param.name,
                excerpt(param.dtype, buffer)
            );
        }
    }
}

/// A buffer for each parameter: floats between -2 and 2 with a few zeros, small integers.
fn buffers(kernel: &Kernel, tokens: i64) -> Vec<Vec<u8>> {
    let mut rng = ChaCha8Rng::seed_from_u64(tokens as u64);
    let mut buffer = |dtype: DType, n: usize| {
        let mut bytes = vec![0; n * dtype.size()];
        for i in 0..n {
            let value = match dtype {
                DType::I32 => f64::from(rng.random_range(-10..110)),
                _ if rng.random_range(0..5) == 0 => 0.0,
                _ => f64::from(rng.random_range(-512..512i16)) / 256.0,
            };
            dtype.write(&mut bytes, i, value);
        }
        bytes
    };
    let params = kernel.params.iter();
    params
        .map(|p| buffer(p.dtype, p.len.at(tokens) as usize))
        .collect()
}

/// The first elements, and the sum of all.
fn excerpt(dtype: DType, bytes: &[u8]) -> String {
    let values: Vec<f64> = (0..bytes.len() / dtype.size())
        .map(|i| dtype.read(bytes, i))
        .collect();
    let first: Vec<String> = values.iter().take(8).map(f64::to_string).collect();
    let sum: f64 = values.iter().filter(|v| v.is_finite()).sum();
    format!("{} of {}, sum {sum}", first.join(" "), values.len())
}
