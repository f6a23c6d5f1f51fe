//! Kernels that tests write themselves, as backends take them.

use rwkvc_ir::Verified;
use rwkvc_ir::kernel::Kernel;
use rwkvc_ir::kernel::verify::verify;

/// The kernels, verified.
///
/// # Panics
/// If the verifier refuses one.
pub fn verified<'k>(kernels: impl IntoIterator<Item = &'k Kernel>) -> Vec<Verified<Kernel>> {
    let verify = |kernel: &Kernel| {
        verify(kernel.clone()).unwrap_or_else(|error| panic!("`{}`: {error}\n{kernel}", kernel.name))
    };
    kernels.into_iter().map(verify).collect()
}
