//! The threads of a step.
//!
//! All threads walk the same list of launches. Thread `i` of `n` runs iterations `grid·i/n .. grid·(i+1)/n` of each, so
//! every weight is read by the same thread each time; a barrier separates launches. Nothing is scheduled, queued or
//! allocated while a step runs.
//!
//! **Invariant:** one thread means no other thread, no barrier and no atomic operation.
//! **Invariant:** kernels are C functions; a panic cannot unwind out of one, so no thread leaves a walk early.

mod gate;

#[cfg(feature = "threads")]
use crate::platform::affinity;
use gate::{Barrier, Gate, Patience};
use rwkvc_abi::KernelFn;
use rwkvc_abi::Size;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

/// The most threads of a pool.
pub(crate) const MAX_THREADS: usize = 1024;

/// Kernels keep private buffers on the stack: as much of it as a main thread has.
#[cfg(feature = "threads")]
const STACK: usize = 8 << 20;

/// One launch, ready to run.
#[derive(Clone, Copy)]
pub(crate) struct Task {
    pub(crate) kernel: KernelFn,
    /// Its first pointer in [`Job::pointers`].
    pub(crate) first: usize,
    pub(crate) grid: Size,
}

/// What all threads walk through.
pub(crate) struct Job<'a> {
    pub(crate) tasks: &'a [Task],
    /// The buffers of all tasks.
    pub(crate) pointers: &'a [*mut u8],
    pub(crate) tokens: usize,
}

/// Threads that wait for jobs.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    threads: usize,
    /// Opened once for each job, and to stop.
    start: Gate,
    barrier: Barrier,
    /// The job of the latest opening of `start`.
    job: AtomicPtr<Job<'static>>,
    stop: AtomicBool,
    patience: Patience,
}

impl Pool {
    /// Starts `threads - 1` threads; the caller of [`Pool::run`] is the first.
    ///
    /// With `pin`, each of them stays on a core of its own, other than the first one this process may use.
    pub(crate) fn new(threads: usize, pin: bool) -> io::Result<Self> {
        if !(1..=MAX_THREADS).contains(&threads) {
            let reason = format!("{threads} threads were asked for, expected 1 to {MAX_THREADS}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared {
            threads,
            start: Gate::new(),
            barrier: Barrier::new(threads),
            job: AtomicPtr::new(std::ptr::null_mut()),
            stop: AtomicBool::new(false),
            patience: if threads <= available {
                Patience::SPIN
            } else {
                Patience::YIELD
            },
        });
        // Dropping the pool on an early return stops the threads started so far.
        let mut pool = Pool {
            shared,
            workers: Vec::with_capacity(threads - 1),
        };
        pool.start(threads, pin)?;
        Ok(pool)
    }

    /// Starts the threads but the first.
    #[cfg(feature = "threads")]
    fn start(&mut self, threads: usize, pin: bool) -> io::Result<()> {
        let cores = match pin {
            true => affinity::cores(threads)?.into_iter().map(Some).collect(),
            false => vec![None; threads],
        };
        for (thread, core) in cores.into_iter().enumerate().skip(1) {
            let shared = Arc::clone(&self.shared);
            let name = format!("rwkvc-{thread}");
            let worker = std::thread::Builder::new()
                .name(name)
                .stack_size(STACK)
                .spawn(move || shared.work(thread))?;
            let pinned = core.map_or(Ok(()), |core| affinity::pin(&worker, core));
            self.workers.push(worker);
            pinned?;
        }
        Ok(())
    }

    /// Refuses more than one thread: the feature `threads` is off.
    #[cfg(not(feature = "threads"))]
    fn start(&mut self, threads: usize, _pin: bool) -> io::Result<()> {
        match threads {
            1 => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "{threads} threads were asked for, but this runtime was built without the feature `threads`"
                ),
            )),
        }
    }

    /// How many threads run a job.
    pub(crate) fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Runs all tasks of a job, in order; with `times`, adds the nanoseconds that each took.
    ///
    /// # Safety
    /// Each task's kernel must be callable with the pointers from its first one on, for the job's tokens and any
    /// iterations of its grid, and iterations of one launch may run at the same time. Nothing else may use the memory
    /// behind the pointers meanwhile.
    pub(crate) unsafe fn run(&mut self, job: &Job<'_>, times: Option<&mut [u64]>) {
        let shared = &*self.shared;
        if shared.threads > 1 {
            shared
                .job
                .store(std::ptr::from_ref(job).cast_mut().cast(), Ordering::Release);
            shared.start.open();
        }
        match times {
            // SAFETY: the caller's promise; the other threads walk the same job.
            None => unsafe { shared.walk(job, 0, |_| {}) },
            Some(times) => {
                let mut last = Instant::now();
                let lap = |task: usize| {
                    let now = Instant::now();
                    times[task] += u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX);
                    last = now;
                };
                // SAFETY: as above.
                unsafe { shared.walk(job, 0, lap) };
            }
        }
        // The walk ended with a barrier, after which no other thread looks at the job.
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.start.open();
        for worker in self.workers.drain(..) {
            // A worker runs nothing that panics; there would be nothing to do about it here.
            let _ = worker.join();
        }
    }
}

impl Shared {
    #[cfg(feature = "threads")]
    fn work(&self, thread: usize) {
        let mut seen = 0;
        loop {
            seen = self.start.wait(seen, self.patience);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let job = self.job.load(Ordering::Acquire);
            // SAFETY: `run` stored this job before it opened the gate, and keeps it until this thread has reached the
            // last barrier of the walk. The pointers in it are used as the caller of `run` promised.
            unsafe { self.walk(&*job, thread, |_| {}) };
        }
    }

    /// Runs one thread's share of each task; `done` is called after each, when all threads are through with it.
    ///
    /// # Safety
    /// As for [`Pool::run`]; all threads of the pool must walk the same job once.
    unsafe fn walk(&self, job: &Job<'_>, thread: usize, mut done: impl FnMut(usize)) {
        for (i, task) in job.tasks.iter().enumerate() {
            let grid = task.iterations(job.tokens);
            let share = if grid > 1 {
                share(grid, thread, self.threads)
            } else {
                alone(grid, thread)
            };
            if !share.is_empty() {
                let pointers = job.pointers[task.first..].as_ptr();
                // SAFETY: the caller's promise, for a part of the grid that no other thread runs. The barriers order
                // this after all tasks that other threads had a share in.
                unsafe { (task.kernel)(pointers, share.start, share.end, job.tokens as i64) };
            }
            // The first thread runs small tasks alone: between two of them nobody has to wait.
            let next_is_small = job
                .tasks
                .get(i + 1)
                .is_some_and(|t| t.iterations(job.tokens) <= 1);
            if self.threads > 1 && !(grid <= 1 && next_is_small) {
                self.barrier.wait(self.patience);
            }
            done(i);
        }
        if self.threads > 1 && job.tasks.is_empty() {
            self.barrier.wait(self.patience);
        }
    }
}

impl Task {
    fn iterations(&self, tokens: usize) -> i64 {
        (self.grid.fixed + self.grid.per_token * tokens as u64) as i64
    }
}

/// Thread `i` of `n`'s part of `0..grid`.
fn share(grid: i64, i: usize, n: usize) -> Range<i64> {
    let edge = |i: usize| (i128::from(grid) * i as i128 / n as i128) as i64;
    edge(i)..edge(i + 1)
}

/// Everything for the first thread.
fn alone(grid: i64, thread: usize) -> Range<i64> {
    if thread == 0 { 0..grid } else { 0..0 }
}

#[cfg(all(test, feature = "threads"))]
mod tests;
