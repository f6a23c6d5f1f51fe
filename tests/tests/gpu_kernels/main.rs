//! GPU kernels on fibers: the bits of the evaluator, and errors where a GPU would hang.

#![cfg(feature = "llvm")]

use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rwkvc_backend_api::Target;
use rwkvc_ir::DType;
use rwkvc_ir::kernel::Kernel;
use rwkvc_ir::kernel::parse::parse;
use rwkvc_ir::kernel::verify::verify;
use rwkvc_tests::fibers::Fibers;
use rwkvc_tests::header::FileTest;
use rwkvc_tests::interpret::{Call, Evaluator, Machine};
use rwkvc_tests::verified::verified;

use fibers::entry;

mod fibers;

const TOKENS: [i64; 2] = [1, 3];

/// Rows of a matrix times a vector for each token: a warp for each row, whose threads add up by shuffles.
const MATVEC: &str = "\
kernel @matvec(%w: read bf16[1280], %x: read f32[80*T], %y: write f32[16*T]) grid 2*T {
  parallel %block in 0..2*T {
    %n2 = const.index 2
    %token = div %block, %n2
    %part = rem %block, %n2
    thread %t in 0..256 {
      %n32 = const.index 32
      %warp = div %t, %n32
      %lane = rem %t, %n32
      %row = address 8*%part + %warp
      %zero = const 0.0
      var $sum: f32 = copy %zero
      %end = const.index 80
      serial %k in 0..80 step 32 {
        %i = address %k + %lane
        %inside = lt %i, %end
        if %inside {
          %a = load %w[80*%row + %i]
          %b = load %x[80*%token + %i]
          $sum = fma %a, %b, $sum
        }
      }
      %o16 = shuffle $sum, 16
      $sum = add $sum, %o16
      %o8 = shuffle $sum, 8
      $sum = add $sum, %o8
      %o4 = shuffle $sum, 4
      $sum = add $sum, %o4
      %o2 = shuffle $sum, 2
      $sum = add $sum, %o2
      %o1 = shuffle $sum, 1
      $sum = add $sum, %o1
      %one = const.index 1
      %leads = lt %lane, %one
      if %leads {
        store %y[16*%token + %row], $sum
      }
    }
  }
}
";

/// The sum of a row, subtracted from the row: through shared memory, which is used again for the second row.
const BLOCK_SUM: &str = "\
kernel @block_sum(%x: read f32[512*T], %y: write f32[512*T]) grid T {
  local shared @parts: f32[256]
  parallel %block in 0..T {
    thread %t in 0..256 {
      serial %row in 0..2 {
        %v = load %x[512*%block + 256*%row + %t]
        store @parts[%t], %v
        barrier
        %zero = const 0.0
        var $sum: f32 = copy %zero
        serial %i in 0..256 {
          %part = load @parts[%i]
          $sum = add $sum, %part
        }
        barrier
        %rest = sub %v, $sum
        store %y[512*%block + 256*%row + %t], %rest
      }
    }
  }
}
";

/// Powers of two of several numbers in one thread, and integers that threads exchange.
const POWERS: &str = "\
kernel @powers(%x: read f32[128*T], %y: write f32[128*T], %n: write i32[32*T]) grid T {
  local private @mine: f32[4]
  parallel %block in 0..T {
    thread %t in 0..32 {
      %a = load.4 %x[128*%block + 4*%t]
      %b = exp2 %a
      store @mine[0], %b
      %c = load.4 @mine[0]
      store %y[128*%block + 4*%t], %c
      %i = index_to_i32 %t
      %j = shuffle %i, 5
      store %n[32*%block + %t], %j
    }
  }
}
";

fn kernel(text: &str) -> Kernel {
    let mut kernels = parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    verify(kernels.remove(0))
        .unwrap_or_else(|e| panic!("{e}"))
        .into_inner()
}

fn target() -> Target {
    Target::parse("cuda:sm_80").expect("a target")
}

/// A buffer for each parameter: floats between -2 and 2.
fn buffers(kernel: &Kernel, tokens: i64) -> Vec<Vec<u8>> {
    let mut rng = ChaCha8Rng::seed_from_u64(tokens as u64);
    let params = kernel.params.iter();
    params
        .map(|p| {
            let n = p.len.at(tokens) as usize;
            let mut bytes = vec![0; n * p.dtype.size()];
            for i in 0..n {
                p.dtype
                    .write(&mut bytes, i, rng.random_range(-2.0f32..2.0).into());
            }
            bytes
        })
        .collect()
}

/// What the evaluator and the fibers leave.
fn both(kernel: &Kernel, fibers: &Fibers, tokens: i64) -> [Vec<Vec<u8>>; 2] {
    let call = Call {
        index: 0,
        kernel,
        label: &kernel.name,
        tokens,
    };
    let machines: [&dyn Machine; 2] = [&Evaluator, fibers];
    machines.map(|machine| {
        let mut buffers = buffers(kernel, tokens);
        machine
            .launch(&call, &mut buffers)
            .unwrap_or_else(|e| panic!("{}: {e}", kernel.name));
        buffers
    })
}

#[test]
fn the_bits_of_the_evaluator() {
    let kernels = [MATVEC, BLOCK_SUM, POWERS].map(kernel);
    let fibers = Fibers::compile(&verified(&kernels), &target()).unwrap_or_else(|e| panic!("{e}"));
    for kernel in &kernels {
        for tokens in TOKENS {
            let [expected, found] = both(kernel, &fibers, tokens);
            assert!(expected == found, "{}, {tokens} tokens", kernel.name);
        }
    }
}

/// Filetests whose kernels are for blocks of threads.
const FILES: [&str; 2] = ["block_sum", "warp_product"];

#[test]
fn filetests_of_gpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("filetests/kernel");
    for name in FILES {
        let file = FileTest::read(&folder.join(name).with_extension("rkir"));
        let kernel = kernel(&file.body);
        let fibers = Fibers::compile(&verified([&kernel]), &target()).unwrap_or_else(|e| panic!("{e}"));
        for tokens in TOKENS {
            let [expected, found] = both(&kernel, &fibers, tokens);
            assert!(expected == found, "{name}, {tokens} tokens");
        }
    }
}

/// A product of random matrices, given as fragments, by the intrinsic function of a format.
fn product(format: DType, intrinsic: &str, word: &str) {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut matrix = |n: usize| -> Vec<f64> {
        // These have no more bits than either format.
        (0..n)
            .map(|_| f64::from(rng.random_range(-64i8..64)) / 32.0)
            .collect()
    };
    let (a, b, c) = (matrix(16 * 16), matrix(16 * 8), matrix(16 * 8));
    let (a_at, b_at) = (
        |r: usize, c: usize| a[16 * r + c],
        |r: usize, c: usize| b[8 * r + c],
    );
    let pair = |low: f64, high: f64| {
        let mut bytes = [0; 4];
        format.write(&mut bytes, 0, low);
        format.write(&mut bytes, 1, high);
        u32::from_le_bytes(bytes)
    };
    let mut words: Vec<u32> = vec![];
    // Lane by lane, as the table of `Inst::Mma` has it.
    for lane in 0..32 {
        let (g, q) = (lane / 4, lane % 4);
        words.extend([
            pair(a_at(g, 2 * q), a_at(g, 2 * q + 1)),
            pair(a_at(g + 8, 2 * q), a_at(g + 8, 2 * q + 1)),
            pair(a_at(g, 2 * q + 8), a_at(g, 2 * q + 9)),
            pair(a_at(g + 8, 2 * q + 8), a_at(g + 8, 2 * q + 9)),
            pair(b_at(2 * q, g), b_at(2 * q + 1, g)),
            pair(b_at(2 * q + 8, g), b_at(2 * q + 9, g)),
        ]);
        let places = [(g, 2 * q), (g, 2 * q + 1), (g + 8, 2 * q), (g + 8, 2 * q + 1)];
        words.extend(places.map(|(row, column)| (c[8 * row + column] as f32).to_bits()));
    }
    let types = |i: usize| if i < 6 { word } else { "float" };
    let mut body = "  %first = mul i32 %t, 10\n".to_owned();
    for i in 0..10 {
        let ty = types(i);
        body += &format!("  %o{i} = add i32 %first, {i}\n");
        body += &format!("  %p{i} = getelementptr i32, ptr addrspace(1) %x, i32 %o{i}\n");
        body += &format!("  %w{i} = load {ty}, ptr addrspace(1) %p{i}, align 4\n");
    }
    let arguments: Vec<String> = (0..10).map(|i| format!("{} %w{i}", types(i))).collect();
    let result = "{ float, float, float, float }";
    body += &format!(
        "  %d = call {result} @llvm.nvvm.mma.{intrinsic}({})\n",
        arguments.join(", ")
    );
    for i in 0..4 {
        body += &format!("  %d{i} = extractvalue {result} %d, {i}\n");
        body += &format!("  store float %d{i}, ptr addrspace(1) %p{}, align 4\n", 6 + i);
    }
    body += "  ret void";
    let fibers = entry(&body);
    // Both warps compute the same.
    let words = words.repeat(2);
    let mut buffers = [words.iter().flat_map(|w| w.to_le_bytes()).collect()];
    fibers
        .run("k", 1, false, &mut buffers, 1)
        .unwrap_or_else(|e| panic!("{format}: {e}"));
    let found = |thread: usize, i: usize| DType::F32.read(&buffers[0], 10 * thread + 6 + i);
    for thread in 0..64 {
        let (g, q) = (thread % 32 / 4, thread % 4);
        let places = [(g, 2 * q), (g, 2 * q + 1), (g + 8, 2 * q), (g + 8, 2 * q + 1)];
        for (i, (row, column)) in places.into_iter().enumerate() {
            let terms = (0..16).map(|k| a_at(row, k) * b_at(k, column));
            let expected = c[8 * row + column] + terms.sum::<f64>();
            assert_eq!(found(thread, i), expected, "{format}: row {row}, column {column}");
        }
    }
}

#[test]
fn products_of_matrices() {
    product(DType::BF16, "m16n8k16.row.col.bf16", "i32");
    product(DType::F16, "m16n8k16.row.col.f32.f32", "<2 x half>");
}
