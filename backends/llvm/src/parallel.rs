//! One LLVM for each core.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rwkvc_backend_api::{LowerError, Unsupported};
use rwkvc_ir::Verified;
use rwkvc_ir::kernel::Kernel;

use crate::module_error;

/// LLVM recurses deeply in large kernels.
const STACK_BYTES: usize = 32 << 20;

/// What `compile` makes of each kernel, in order. `worker` is made once for each thread.
///
/// # Errors
/// The error of the first kernel that has one, whatever the number of threads.
pub(crate) fn map<W, R: Send>(
    kernels: &[Verified<Kernel>],
    worker: impl Fn() -> Result<W, Unsupported> + Sync,
    compile: impl Fn(&W, &Verified<Kernel>) -> Result<R, LowerError> + Sync,
) -> Result<Vec<R>, LowerError> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<_, LowerError> {
        let worker = worker()?;
        let mut results = vec![];
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(kernel) = kernels.get(i) else {
                return Ok(results);
            };
            results.push((i, compile(&worker, kernel)));
        }
    };
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(kernels.len());
    let mut results = Vec::with_capacity(kernels.len());
    thread::scope(|scope| -> Result<(), LowerError> {
        let spawn = |_| {
            thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, work)
        };
        let threads: Result<Vec<_>, _> = (0..threads).map(spawn).collect();
        for thread in
            threads.map_err(|e| module_error(format!("a thread for LLVM cannot be started: {e}")))?
        {
            results.extend(thread.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        Ok(())
    })?;
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}
