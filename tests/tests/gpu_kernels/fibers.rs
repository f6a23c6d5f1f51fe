//! What the interpreter of GPU code finds: threads that do not meet, and stores outside of buffers.

use super::*;

/// An entry on blocks of 64 threads, from the instructions of its body. `%t` is the thread, `%b` the block, and `%x` the
/// only buffer.
pub(super) fn entry(body: &str) -> Fibers {
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
