//! Kernels compiled for this machine, ready to be called.

use rwkvc_backend_api::{Arch, Backend, Target};
use rwkvc_backend_cranelift::CraneliftBackend;
use rwkvc_ir::Verified;
use rwkvc_ir::kernel::Kernel;
use rwkvc_ir::kernel::verify::verify;
use rwkvc_runtime::object::Code;

/// This machine, as far as Cranelift cares; `None` where the tests cannot run code.
pub(crate) fn host() -> Option<Target> {
    #[cfg(target_arch = "x86_64")]
    {
        let mut extensions: Vec<String> = ["avx", "fma"].map(String::from).into();
        if is_x86_feature_detected!("avx2") {
            extensions.push("avx2".into());
        }
        let usable = is_x86_feature_detected!("avx") && is_x86_feature_detected!("fma");
        usable.then(|| Target {
            arch: Arch::X86_64,
            extensions,
            cpu: "generic".into(),
        })
    }
    #[cfg(target_arch = "aarch64")]
    {
        Some(Target {
            arch: Arch::Aarch64,
            extensions: vec![],
            cpu: "generic".into(),
        })
    }
}

/// Kernels as a backend takes them.
pub(crate) fn verified(kernels: &[Kernel]) -> Vec<Verified<Kernel>> {
    let verify = |kernel: &Kernel| verify(kernel.clone()).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
    kernels.iter().map(verify).collect()
}

/// The code of one object.
pub(crate) struct Loaded(Code);

impl Loaded {
    /// Compiles and loads kernels.
    pub(crate) fn new(kernels: &[Kernel], target: &Target) -> Self {
        let module = CraneliftBackend
            .lower(&verified(kernels), target)
            .expect("kernels compile");
        Loaded(Code::load(module.bytes()).expect("the object loads"))
    }

    /// Runs iterations `range` of a kernel. The buffers must have the lengths that the kernel declares.
    pub(crate) fn call(&self, kernel: &Kernel, buffers: &mut [Vec<u8>], range: (i64, i64), tokens: i64) {
        assert_eq!(buffers.len(), kernel.params.len());
        for (buffer, param) in buffers.iter().zip(&kernel.params) {
            assert_eq!(
                buffer.len() as i64,
                param.len.at(tokens) * param.dtype.size() as i64,
                "%{}",
                param.name
            );
        }
        let function = self.0.kernel(&kernel.name).expect("the kernel's symbol");
        let pointers: Vec<*mut u8> = buffers.iter_mut().map(|b| b.as_mut_ptr()).collect();
        // SAFETY: the kernel compiled to this function stays within its buffers, which have the declared lengths.
        unsafe { function(pointers.as_ptr(), range.0, range.1, tokens) };
    }
}
