//! Waiting for other threads: a gate that opens again and again, and a barrier made of it.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// How long a thread keeps looking before it goes to sleep.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// Looks with nothing but a pause in between.
    spins: u32,
    /// Looks after letting another thread run.
    yields: u32,
}

impl Patience {
    /// For threads with a core each: about as long as sampling a token takes, so that workers stay awake.
    pub(super) const SPIN: Self = Patience {
        spins: 4000,
        yields: 16,
    };
    /// For more threads than cores: whoever is waited for needs the core.
    pub(super) const YIELD: Self = Patience { spins: 0, yields: 16 };
}

/// On a cache line pair of its own, so that spinning on it disturbs no one.
#[repr(align(128))]
struct Apart<T>(T);

/// Counts how often it was opened; threads wait for the next time.
pub(super) struct Gate {
    openings: Apart<AtomicU32>,
    /// Threads that sleep or are about to.
    sleepers: Apart<AtomicU32>,
    lock: Mutex<()>,
    opened: Condvar,
}

impl Gate {
    pub(super) fn new() -> Self {
        Gate {
            openings: Apart(AtomicU32::new(0)),
            sleepers: Apart(AtomicU32::new(0)),
            lock: Mutex::new(()),
            opened: Condvar::new(),
        }
    }

    /// Lets all waiting threads through. What this thread did before is visible to them.
    pub(super) fn open(&self) {
        // Sequentially consistent, like the operations of a thread going to sleep: either this thread sees the sleeper,
        // or the sleeper sees the opening.
        self.openings.0.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.0.load(Ordering::SeqCst) > 0 {
            // With the lock, no sleeper is between its last look and its sleep.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.opened.notify_all();
        }
    }

    /// Waits until the gate was opened since `seen` openings; returns how many there are now.
    pub(super) fn wait(&self, seen: u32, patience: Patience) -> u32 {
        for look in 0..patience.spins + patience.yields {
            let now = self.openings.0.load(Ordering::Acquire);
            if now != seen {
                return now;
            }
            if look < patience.spins {
                std::hint::spin_loop()
            } else {
                std::thread::yield_now()
            }
        }
        self.sleepers.0.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let now = loop {
            let now = self.openings.0.load(Ordering::SeqCst);
            if now != seen {
                break now;
            }
            guard = self.opened.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        drop(guard);
        self.sleepers.0.fetch_sub(1, Ordering::SeqCst);
        now
    }

    /// How often it was opened, for a thread without which it is not opened again.
    fn seen(&self) -> u32 {
        self.openings.0.load(Ordering::Relaxed)
    }
}

/// Where all threads meet.
pub(super) struct Barrier {
    threads: usize,
    arrived: Apart<AtomicUsize>,
    gate: Gate,
}

impl Barrier {
    pub(super) fn new(threads: usize) -> Self {
        Barrier {
            threads,
            arrived: Apart(AtomicUsize::new(0)),
            gate: Gate::new(),
        }
    }

    /// Returns when all threads have called it. What each did before is visible to all after.
    pub(super) fn wait(&self, patience: Patience) {
        // The gate cannot open before this thread arrives.
        let seen = self.gate.seen();
        // Release: publishes this thread's work to the last one; acquire: the last one sees everyone's.
        if self.arrived.0.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            // Published by the opening; nobody arrives again before it.
            self.arrived.0.store(0, Ordering::Relaxed);
            self.gate.open();
        } else {
            self.gate.wait(seen, patience);
        }
    }
}
