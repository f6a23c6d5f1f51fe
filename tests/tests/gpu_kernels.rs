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

/// An entry on blocks of 64 threads, from the instructions of its body. `%t` is the thread, `%b` the block, and `%x` the
/// only buffer.
fn entry(body: &str) -> Fibers {
    Fibers::of_listing(&listing(body)).unwrap_or_else(|e| panic!("{e}"))
}

fn listing(body: &str) -> String {
    format!(
        "@shared = internal addrspace(3) global [64 x i32] undef, align 16
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.nctaid.x()
declare i32 @llvm.nvvm.shfl.sync.bfly.i32(i32, i32, i32, i32)
declare void @llvm.nvvm.barrier.cta.sync.aligned.all(i32)
define ptx_kernel void @k(ptr addrspace(1) %x, i64 %tokens) #0 {{
entry:
  %t = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %b = call i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
  %blocks = call i32 @llvm.nvvm.read.ptx.sreg.nctaid.x()
{body}
}}
attributes #0 = {{ \"nvvm.reqntid\"=\"64,1,1\" }}
"
    )
}

fn ints(buffer: &[u8]) -> Vec<i32> {
    buffer
        .as_chunks()
        .0
        .iter()
        .map(|b| i32::from_le_bytes(*b))
        .collect()
}

/// One launch on 64 zeros.
fn run(fibers: &Fibers, blocks: u32, all_at_once: bool) -> Result<Vec<i32>, String> {
    let mut buffers = [vec![0; 4 * 64]];
    fibers.run("k", blocks, all_at_once, &mut buffers, 1)?;
    Ok(ints(&buffers[0]))
}

#[test]
fn threads_that_do_not_come_are_found() {
    let some = |part: &str, limit: u32| {
        let body = format!(
            "  %some = icmp ult i32 %t, {limit}
  br i1 %some, label %then, label %join
then:
{part}
  br label %join
join:
  ret void"
        );
        run(&entry(&body), 1, false)
    };
    let shuffle = "  %s = call i32 @llvm.nvvm.shfl.sync.bfly.i32(i32 -1, i32 %t, i32 1, i32 31)";
    let barrier = "  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)";
    let error = |text: &str| Err(format!("kernel `k`: {text}"));
    assert_eq!(
        some(shuffle, 16),
        error("16 of 32 threads of a warp reach a shuffle")
    );
    assert_eq!(
        some(shuffle, 33),
        error("1 of 32 threads of a warp reach a shuffle")
    );
    assert_eq!(some(shuffle, 32), Ok(vec![0; 64]), "a whole warp");
    assert_eq!(
        some(barrier, 63),
        error("63 of 64 threads of a block reach a barrier")
    );
    assert_eq!(some(barrier, 64), Ok(vec![0; 64]), "a whole block");
}

#[test]
fn threads_that_come_to_different_places_are_found() {
    let halves = |call: &str| {
        let body = format!(
            "  %odd = trunc i32 %t to i1
  br i1 %odd, label %then, label %else
then:
  {call}
  br label %join
else:
  {call}
  br label %join
join:
  ret void"
        );
        run(&entry(&body), 1, false)
    };
    let found = halves("call i32 @llvm.nvvm.shfl.sync.bfly.i32(i32 -1, i32 %t, i32 1, i32 31)");
    assert_eq!(
        found,
        Err("kernel `k`: 16 of 32 threads of a warp reach a shuffle".into())
    );
    let found = halves("call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)");
    assert_eq!(
        found,
        Err("kernel `k`: 32 of 64 threads of a block reach a barrier".into())
    );
    // Neither can go on: the one half waits for the block, the other for the warp.
    let body = "  %odd = trunc i32 %t to i1
  br i1 %odd, label %then, label %else
then:
  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)
  br label %else
else:
  %s = call i32 @llvm.nvvm.shfl.sync.bfly.i32(i32 -1, i32 %t, i32 1, i32 31)
  ret void";
    let found = run(&entry(body), 1, false);
    assert_eq!(
        found,
        Err("kernel `k`: 16 of 32 threads of a warp reach a shuffle".into())
    );
}

#[test]
fn shuffles_of_a_part_of_a_warp_are_refused() {
    let body = "  %s = call i32 @llvm.nvvm.shfl.sync.bfly.i32(i32 65535, i32 %t, i32 1, i32 31)\n  ret void";
    let found = run(&entry(body), 1, false).expect_err("half a warp");
    assert!(found.contains("expected the whole warp"), "{found}");
}

/// All blocks wait until all have counted. Each keeps a number in shared memory meanwhile.
const GRID_BARRIER: &str = "  %mine = getelementptr i32, ptr addrspace(3) @shared, i32 %t
  %number = mul i32 %b, 100
  store i32 %number, ptr addrspace(3) %mine, align 4
  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)
  %first = icmp eq i32 %t, 0
  br i1 %first, label %count, label %go
count:
  %counter = getelementptr i32, ptr addrspace(1) %x, i32 63
  fence syncscope(\"device\") release
  %before = atomicrmw add ptr addrspace(1) %counter, i32 1 syncscope(\"device\") monotonic, align 4
  br label %look
look:
  %now = load atomic i32, ptr addrspace(1) %counter syncscope(\"device\") acquire, align 4
  %enough = icmp eq i32 %now, %blocks
  br i1 %enough, label %go, label %look
go:
  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)
  %again = load i32, ptr addrspace(3) %mine, align 4
  %place = getelementptr i32, ptr addrspace(1) %x, i32 %b
  store i32 %again, ptr addrspace(1) %place, align 4
  ret void";

#[test]
fn blocks_wait_for_each_other() {
    let fibers = entry(GRID_BARRIER);
    let mut expected = vec![0; 64];
    expected[..5].copy_from_slice(&[0, 100, 200, 300, 400]);
    expected[63] = 5;
    assert_eq!(run(&fibers, 5, true), Ok(expected));
    let error = Err("kernel `k`: threads wait for ever".to_owned());
    assert_eq!(run(&fibers, 5, false), error, "one block after the other");
    // What was left behind is gone.
    assert!(run(&fibers, 1, false).is_ok());
}

#[test]
fn stores_around_buffers_are_found() {
    let store = |space: u32, base: &str, at: i32| {
        let body = format!(
            "  %place = getelementptr i32, ptr addrspace({space}) {base}, i32 {at}
  store i32 7, ptr addrspace({space}) %place, align 4
  ret void"
        );
        run(&entry(&body), 2, false)
    };
    let mut expected = vec![0; 64];
    expected[63] = 7;
    assert_eq!(store(1, "%x", 63), Ok(expected));
    assert_eq!(store(3, "@shared", 63), Ok(vec![0; 64]));
    for at in [-1, 64] {
        let error = "kernel `k`: bytes around buffer 0 have changed".to_owned();
        assert_eq!(store(1, "%x", at), Err(error));
        let error = "kernel `k`: bytes around `shared` have changed".to_owned();
        assert_eq!(store(3, "@shared", at), Err(error));
    }
}

#[test]
fn what_cannot_run_is_refused() {
    let refused = |text: &str| Fibers::of_listing(text).err().expect("it is refused");
    assert!(refused("what").contains("expected"));
    let unknown = listing("  call void @llvm.nvvm.cluster.wait()\n  ret void");
    assert_eq!(
        refused(&unknown),
        "there is no stand-in for `llvm.nvvm.cluster.wait`"
    );
    let dynamic = "@s = external addrspace(3) global [0 x i32]";
    assert_eq!(refused(dynamic), "`s` has no size");
    let fibers = entry("  ret void");
    assert_eq!(
        fibers.run("other", 1, false, &mut [], 1),
        Err("there is no kernel `other`".into())
    );
    assert_eq!(
        fibers.run("k", 1, false, &mut [], 1),
        Err("kernel `k`: 1 arguments, expected 2".into())
    );
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
