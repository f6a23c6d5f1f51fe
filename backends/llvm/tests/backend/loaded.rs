//! Kernels compiled for this machine, ready to be called.

use rwkvc_backend_api::{Backend, Target};
use rwkvc_backend_llvm::LlvmBackend;
use rwkvc_ir::Verified;
use rwkvc_ir::kernel::verify::verify;
use rwkvc_ir::kernel::{Access, Kernel};
use rwkvc_runtime::object::Code;

/// This machine; `None` where the tests cannot run code.
pub(crate) fn host() -> Option<Target> {
    let target = Target::host();
    LlvmBackend.supports(&target).is_ok().then_some(target)
}

/// Kernels as a backend takes them.
pub(crate) fn verified(kernels: &[Kernel]) -> Vec<Verified<Kernel>> {
    let verify = |kernel: &Kernel| verify(kernel.clone()).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
    kernels.iter().map(verify).collect()
}

/// The same kernels compiled for a target and for the levels below it.
pub(crate) struct Loaded(Vec<Code>);

impl Loaded {
    /// Compiles and loads kernels.
    pub(crate) fn new(kernels: &[Kernel], target: &Target) -> Self {
        let runs_here = |t: &Target| t.arch == target.arch && t.extensions.iter().all(|e| target.has(e));
        let levels = Target::levels()
            .into_iter()
            .map(|(_, level)| level)
            .filter(runs_here);
        let load = |target: Target| {
            let module = LlvmBackend
                .lower(&verified(kernels), &target)
                .expect("kernels compile");
            Code::load(module.bytes()).expect("the object loads")
        };
        Loaded([target.clone()].into_iter().chain(levels).map(load).collect())
    }

    /// Runs iterations `range` of a kernel. The buffers must have the lengths that the kernel declares.
    pub(crate) fn call(&self, kernel: &Kernel, buffers: &mut [Vec<u8>], range: (i64, i64), tokens: i64) {
        assert_eq!(buffers.len(), kernel.params.len());
        for (buffer, param) in buffers.iter().zip(&kernel.params) {
            let bytes = param.len.at(tokens) * param.dtype.size() as i64;
            assert_eq!(buffer.len() as i64, bytes, "%{}", param.name);
        }
        let before = buffers.to_vec();
        for (code, i) in self.0.iter().zip(0..) {
            let mut own = before.clone();
            let function = code.kernel(&kernel.name).expect("the kernel's symbol");
            let pointers: Vec<*mut u8> = own.iter_mut().map(|b| b.as_mut_ptr()).collect();
            // SAFETY: the kernel compiled to this function stays within its buffers, which have the declared lengths.
            unsafe { function(pointers.as_ptr(), range.0, range.1, tokens) };
            for ((own, before), param) in own.iter().zip(&before).zip(&kernel.params) {
                assert!(
                    param.access != Access::Read || own == before,
                    "{}: %{} was written",
                    kernel.name,
                    param.name
                );
            }
            if i == 0 {
                buffers.clone_from_slice(&own);
            }
            assert_same(kernel, buffers, &own);
        }
    }
}

/// Compares what the code for two targets computes, but for the payloads of NaNs.
fn assert_same(kernel: &Kernel, found: &[Vec<u8>], expected: &[Vec<u8>]) {
    for ((found, expected), param) in found.iter().zip(expected).zip(&kernel.params) {
        for i in 0..found.len() / param.dtype.size() {
            let (found, expected) = (param.dtype.read(found, i), param.dtype.read(expected, i));
            let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(
                same,
                "{}: %{}[{i}] is {found:e} and {expected:e}",
                kernel.name, param.name
            );
        }
    }
}
