//! The kernels of a plan: each once, verified, under a unique name.

use std::collections::HashMap;

use rwkvc_abi::{self as abi, KernelInfo, ParamInfo, Size};
use rwkvc_ir::Verified;
use rwkvc_ir::graph::ops::Op;
use rwkvc_ir::kernel::verify::verify;
use rwkvc_ir::kernel::{Access, Extent, Kernel};

use super::PlanError;

/// Kernels in the order of their first use.
#[derive(Debug, Default)]
pub(super) struct Kernels {
    all: Vec<Verified<Kernel>>,
    /// The number of each, by what it is without its name.
    numbers: HashMap<Kernel, usize>,
}

impl Kernels {
    /// The number of a kernel that a schedule made for `op`. One that does the same as another is that one.
    pub(super) fn add(&mut self, mut kernel: Kernel, op: &Op) -> Result<usize, PlanError> {
        let name = std::mem::take(&mut kernel.name);
        if let Some(&number) = self.numbers.get(&kernel) {
            return Ok(number);
        }
        let nameless = kernel.clone();
        kernel.name = self.unique(name);
        let kernel = verify(kernel).map_err(|source| PlanError::Kernel {
            op: format!("{op:?}"),
            source,
            text: nameless.to_string(),
        })?;
        let number = self.all.len();
        self.all.push(kernel);
        self.numbers.insert(nameless, number);
        Ok(number)
    }

    /// The name, with a number behind it if another kernel has it.
    fn unique(&self, name: String) -> String {
        let is_taken = |name: &str| self.all.iter().any(|k| k.name == name);
        if !is_taken(&name) {
            return name;
        }
        let mut numbered = (2..).map(|n| format!("{name}_{n}"));
        numbered.find(|name| !is_taken(name)).unwrap_or(name)
    }

    pub(super) fn into_all(self) -> Vec<Verified<Kernel>> {
        self.all
    }
}

/// What the runtime is told of a kernel; `threads` of a block on a GPU, 0 on a CPU.
pub fn kernel_info(kernel: &Kernel, threads: u32) -> KernelInfo {
    let params = kernel.params.iter().map(|param| ParamInfo {
        bytes: size(param.len, param.dtype.size() as u64),
        access: match param.access {
            Access::Read => abi::Access::Read,
            Access::Write => abi::Access::Write,
            Access::ReadWrite => abi::Access::ReadWrite,
        },
    });
    KernelInfo {
        symbol: kernel.name.clone(),
        grid: size(kernel.grid, 1),
        threads,
        params: params.collect(),
    }
}

/// An extent of elements of `bytes` bytes. Extents of a verified kernel are not negative.
pub(super) fn size(extent: Extent, bytes: u64) -> Size {
    Size {
        fixed: extent.fixed.unsigned_abs() * bytes,
        per_token: extent.per_token.unsigned_abs() * bytes,
    }
}
