//! What compiled code calls in place of the instructions that only GPUs have.
//!
//! Each gets the number of its call first. All but those that only look something up make the fiber wait: the request goes to
//! whoever resumed it.

use std::cell::Cell;
use std::ptr;

use corosensei::Yielder;
use rwkvc_ir::DType;

/// What a fiber gets when it is resumed: the words that it asked for, if any.
pub(super) type Answer = [u32; 4];

/// What a fiber waits for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Request {
    /// All threads of the block.
    Barrier { site: u32 },
    /// The value of another thread of the warp.
    Shuffle { site: u32, mask: u32, value: u32 },
    /// Its part of a product of the warp.
    Product {
        site: u32,
        format: DType,
        /// The fragments of A (4 words), B (2) and C (4).
        words: [u32; 10],
    },
    /// Whatever others do.
    Others,
    /// Nothing: the call makes no sense.
    Fault(String),
}

/// Which thread a fiber is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) thread: u32,
    pub(super) threads: u32,
    pub(super) block: u32,
    pub(super) blocks: u32,
}

struct Running<'y> {
    yielder: &'y Yielder<Answer, Request>,
    place: Place,
}

thread_local! {
    /// The fiber that runs: null outside of any, else on its stack.
    static RUNNING: Cell<*const Running<'static>> = const { Cell::new(ptr::null()) };
}

/// Runs the code of a thread, which may call what is here, in a fiber.
pub(super) fn as_thread(yielder: &Yielder<Answer, Request>, place: Place, code: impl FnOnce()) {
    let running = Running { yielder, place };
    RUNNING.set(ptr::from_ref(&running).cast());
    code();
    RUNNING.set(ptr::null());
}

fn running<T>(f: impl FnOnce(&Running<'_>) -> T) -> T {
    let running = RUNNING.get();
    assert!(
        !running.is_null(),
        "code of a GPU runs as the code of a thread only"
    );
    // SAFETY: `as_thread` has set it to a value that lives while the code of the thread runs, and so this call of it.
    // Other fibers that run while this one waits set it back for this one: see `wait`.
    f(unsafe { &*running })
}

fn wait(request: Request) -> Answer {
    let this = RUNNING.get();
    let answer = running(|r| r.yielder.suspend(request));
    RUNNING.set(this);
    answer
}

/// What to call in place of an intrinsic function.
pub(super) enum StandIn {
    /// The function at this address.
    Function(usize),
    /// A function in LLVM IR that calls [`product()`].
    Product(DType),
}

/// Formats of products, and LLVM's type of a word of their fragments.
pub(super) const PRODUCTS: [(DType, &str); 2] = [(DType::BF16, "i32"), (DType::F16, "<2 x half>")];

/// The stand-in for an intrinsic function, whose name is given without `llvm.nvvm.`.
pub(super) fn find(name: &str) -> Option<StandIn> {
    let address = match name {
        "read.ptx.sreg.tid.x" => thread as *const (),
        "read.ptx.sreg.ntid.x" => threads as *const (),
        "read.ptx.sreg.ctaid.x" => block as *const (),
        "read.ptx.sreg.nctaid.x" => blocks as *const (),
        "barrier.cta.sync.aligned.all" => barrier as *const (),
        "shfl.sync.bfly.f32" => shuffle_float as *const (),
        "shfl.sync.bfly.i32" => shuffle_int as *const (),
        "ex2.approx.f32" | "ex2.approx.ftz.f32" => exp2 as *const (),
        "mma.m16n8k16.row.col.bf16" => return Some(StandIn::Product(DType::BF16)),
        "mma.m16n8k16.row.col.f32.f32" => return Some(StandIn::Product(DType::F16)),
        _ => return None,
    };
    Some(StandIn::Function(address.expose_provenance()))
}

/// The address of the function that lets other fibers run.
pub(super) fn let_others_run() -> usize {
    (others as *const ()).expose_provenance()
}

/// The address of the function that takes the words of the fragments, and writes the product over those of C.
pub(super) fn product(format: DType) -> usize {
    let function = if format == DType::BF16 {
        product_bf16 as *const ()
    } else {
        product_f16 as *const ()
    };
    function.expose_provenance()
}

extern "C" fn thread(_site: u32) -> u32 {
    running(|r| r.place.thread)
}

extern "C" fn threads(_site: u32) -> u32 {
    running(|r| r.place.threads)
}

extern "C" fn block(_site: u32) -> u32 {
    running(|r| r.place.block)
}

extern "C" fn blocks(_site: u32) -> u32 {
    running(|r| r.place.blocks)
}

extern "C" fn barrier(site: u32, number: u32) {
    wait(match number {
        0 => Request::Barrier { site },
        _ => Request::Fault(format!("a barrier has number {number}, expected 0")),
    });
}

extern "C" fn others(_site: u32) {
    wait(Request::Others);
}

extern "C" fn exp2(_site: u32, x: f32) -> f32 {
    x.exp2()
}

extern "C" fn shuffle_float(site: u32, members: u32, value: f32, mask: u32, clamp: u32) -> f32 {
    f32::from_bits(shuffle_int(site, members, value.to_bits(), mask, clamp))
}

extern "C" fn shuffle_int(site: u32, members: u32, value: u32, mask: u32, clamp: u32) -> u32 {
    let whole_warp = (members, clamp) == (u32::MAX, 31) && mask < 32;
    let request = match whole_warp {
        true => Request::Shuffle { site, mask, value },
        false => Request::Fault(format!(
            "a shuffle by {mask} is for threads {members:#x} up to {clamp}, expected the whole warp"
        )),
    };
    wait(request)[0]
}

unsafe extern "C" fn product_bf16(site: u32, words: *mut [u32; 10]) {
    // SAFETY: the caller promises the same.
    unsafe { product_of(DType::BF16, site, words) }
}

unsafe extern "C" fn product_f16(site: u32, words: *mut [u32; 10]) {
    // SAFETY: the caller promises the same.
    unsafe { product_of(DType::F16, site, words) }
}

/// # Safety
/// The words can be read and written.
unsafe fn product_of(format: DType, site: u32, words: *mut [u32; 10]) {
    // SAFETY: the caller says so. They are on the stack of this fiber, which nobody else uses.
    let words = unsafe { &mut *words };
    let answer = wait(Request::Product {
        site,
        format,
        words: *words,
    });
    words[6..].copy_from_slice(&answer);
}
