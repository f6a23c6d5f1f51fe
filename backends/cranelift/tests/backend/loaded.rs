//! Kernels compiled for this machine, ready to be called.

use object::{Object, ObjectSection, ObjectSymbol};
use rwkvc_backend_api::{Arch, Backend, Target};
use rwkvc_backend_cranelift::CraneliftBackend;
use rwkvc_ir::kernel::Kernel;

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

type Function = unsafe extern "C" fn(*const *mut u8, i64, i64, i64);

/// Executable memory with the code of one object.
pub(crate) struct Loaded {
    memory: *mut libc::c_void,
    len: usize,
    entries: Vec<(String, usize)>,
}

impl Loaded {
    /// Compiles kernels and maps their code, which needs no relocation.
    pub(crate) fn new(kernels: &[Kernel], target: &Target) -> Self {
        let bytes = CraneliftBackend.lower(kernels, target).expect("kernels compile");
        let file = object::File::parse(&*bytes).expect("an object");
        let text = file.section_by_name(".text").expect("code");
        let code = text.data().expect("code");
        let entries = file
            .symbols()
            .filter(|s| s.is_global())
            .map(|s| (s.name().expect("a name").to_owned(), s.address() as usize))
            .collect();
        let len = code.len().max(1);
        // SAFETY: an anonymous mapping of `len` bytes, filled before it becomes executable.
        let memory = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let memory = libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            );
            assert_ne!(memory, libc::MAP_FAILED, "memory for code");
            std::ptr::copy_nonoverlapping(code.as_ptr(), memory.cast(), code.len());
            assert_eq!(
                libc::mprotect(memory, len, libc::PROT_READ | libc::PROT_EXEC),
                0,
                "executable memory"
            );
            memory
        };
        Loaded { memory, len, entries }
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
        let (_, offset) = self
            .entries
            .iter()
            .find(|(name, _)| *name == kernel.name)
            .expect("the kernel's symbol");
        let pointers: Vec<*mut u8> = buffers.iter_mut().map(|b| b.as_mut_ptr()).collect();
        // SAFETY: the code at the symbol is the compiled kernel, which has this signature and stays within its buffers.
        unsafe {
            let function: Function = std::mem::transmute(self.memory.cast::<u8>().add(*offset));
            function(pointers.as_ptr(), range.0, range.1, tokens);
        }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, of the same length; nothing runs in it any more.
        unsafe { libc::munmap(self.memory, self.len) };
    }
}
