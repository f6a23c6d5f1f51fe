//! Code of a backend as a machine, without the runtime's model around it.

use std::collections::HashMap;
use std::rc::Rc;

use crate::verified::verified;
use rwkvc_abi::KernelFn;
use rwkvc_backend_api::{Backend, LowerError, Target};
use rwkvc_ir::kernel::Kernel;
use rwkvc_runtime::object::Code;

use crate::interpret::{Call, Machine};

/// Bytes before and after each buffer that must stay as they are.
const GUARD: usize = 64;
const GUARD_BYTE: u8 = 0xa5;

/// The kernels of one plan as code.
pub struct Native {
    functions: Vec<KernelFn>,
    /// Keeps the functions in memory.
    _code: Rc<Code>,
}

impl Native {
    /// Compiles the kernels of several plans for this machine, as one object in which equal kernels are one function.
    ///
    /// # Errors
    /// If the backend refuses a kernel.
    ///
    /// # Panics
    /// If the object cannot be loaded, or lacks a kernel.
    pub fn compile(backend: &dyn Backend, plans: &[Vec<&Kernel>]) -> Result<Vec<Native>, LowerError> {
        Self::compile_for(&Target::host(), backend, plans)
    }

    /// The same with code for a target that this machine can run.
    ///
    /// # Errors
    /// If the backend refuses a kernel.
    ///
    /// # Panics
    /// If the object cannot be loaded, or lacks a kernel.
    pub fn compile_for(
        target: &Target,
        backend: &dyn Backend,
        plans: &[Vec<&Kernel>],
    ) -> Result<Vec<Native>, LowerError> {
        let mut kernels: Vec<Kernel> = vec![];
        let mut known: HashMap<String, usize> = HashMap::new();
        let mut indices = vec![];
        for plan in plans {
            let number = |kernel: &&Kernel| {
                let mut kernel = (*kernel).clone();
                kernel.name = "k".into();
                *known.entry(kernel.to_string()).or_insert_with(|| {
                    kernel.name = format!("k{}", kernels.len());
                    kernels.push(kernel);
                    kernels.len() - 1
                })
            };
            indices.push(plan.iter().map(number).collect::<Vec<usize>>());
        }
        let module = backend.lower(&verified(&kernels), target)?;
        let code = Rc::new(Code::load(module.bytes()).expect("the object loads"));
        let function = |i: usize| code.kernel(&format!("k{i}")).expect("every kernel is a function");
        Ok(indices
            .into_iter()
            .map(|plan| Native {
                functions: plan.into_iter().map(function).collect(),
                _code: code.clone(),
            })
            .collect())
    }
}

impl Machine for Native {
    /// The second half of the iterations runs before the first: they are independent.
    fn launch(&self, call: &Call<'_>, buffers: &mut [Vec<u8>]) -> Result<(), String> {
        let guard = [GUARD_BYTE; GUARD];
        let mut guarded: Vec<Vec<u8>> = buffers
            .iter()
            .map(|b| [&guard, &b[..], &guard].concat())
            .collect();
        let pointers: Vec<*mut u8> = guarded.iter_mut().map(|b| b[GUARD..].as_mut_ptr()).collect();
        let grid = call.kernel.grid.at(call.tokens).max(0);
        for range in [grid / 2..grid, 0..grid / 2] {
            // SAFETY: a verified kernel touches only its parameters, which are as long as the kernel says.
            unsafe { self.functions[call.index](pointers.as_ptr(), range.start, range.end, call.tokens) };
        }
        for ((buffer, guarded), param) in buffers.iter_mut().zip(guarded).zip(&call.kernel.params) {
            let (before, rest) = guarded.split_at(GUARD);
            let (inside, after) = rest.split_at(buffer.len());
            if before != guard || after != guard {
                return Err(format!("bytes around `{}` have changed", param.name));
            }
            buffer.copy_from_slice(inside);
        }
        Ok(())
    }
}
