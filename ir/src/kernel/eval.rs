//! The reference evaluator of kernels, in f32: plain rather than fast.
//!
//! It checks what a backend takes for proven: every access lies in its buffer, nothing undefined is read, divisors are
//! positive. Floats behave as in IEEE 754, rounded to nearest even; the payload of a NaN is not specified, and neither
//! is `to_i32` of what is not an integral value in range.

use std::ops::Range;

use super::verify::{MAX_TOKENS, check_form};
use super::*;

mod arithmetic;
mod error;
mod inst;
mod memory;
mod races;
mod run;
#[cfg(test)]
mod tests;
mod warp;

pub use error::EvalError;

/// 32-bit registers and bytes of private buffers of all threads of a block, at most.
const MAX_STATE: usize = 1 << 28;

/// What runs the iterations of thread loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// One CPU thread, one iteration after the other. Shared locals are private ones.
    Cpu,
    /// The threads of a GPU block, statement by statement together. Private locals are per thread. Code outside of
    /// thread loops is run by all threads alike. Races are errors: of threads for elements of shared locals and of
    /// parameters, and of blocks for elements of parameters.
    Gpu,
}

impl Machine {
    /// The machine that a kernel is written for: one that shuffles, multiplies as a warp, or waits inside a
    /// thread loop, needs a block.
    pub fn of(kernel: &Kernel) -> Machine {
        if needs_block(&kernel.body, false) {
            Machine::Gpu
        } else {
            Machine::Cpu
        }
    }
}

fn needs_block(body: &[Stmt], in_threads: bool) -> bool {
    body.iter().any(|stmt| match stmt {
        Stmt::Let(_, inst) => inst.common().is_some(),
        Stmt::Barrier => in_threads,
        Stmt::For { kind, body, .. } => needs_block(body, in_threads || *kind == LoopKind::Thread),
        Stmt::If { then, otherwise, .. } => {
            needs_block(then, in_threads) || needs_block(otherwise, in_threads)
        }
        Stmt::Store { .. } | Stmt::Prefetch { .. } => false,
    })
}

/// Runs all iterations on [`Machine::of`] the kernel, without a limit of steps.
///
/// `buffers` holds the little-endian bytes of each parameter, in order; longer ones are allowed.
///
/// # Errors
/// See [`EvalError`].
pub fn run<B: AsMut<[u8]>>(kernel: &Kernel, buffers: &mut [B], tokens: i64) -> Result<(), EvalError> {
    Program::new(kernel, Machine::of(kernel))?.run_all(buffers, tokens)
}

/// Where the lanes of a register are: in the words, or in the indices if it is an Index.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The first lane of the first thread.
    at: usize,
    /// Distance between threads; 0 if they share it.
    stride: usize,
    lanes: usize,
}

/// A kernel, made ready to run many times.
#[derive(Debug)]
pub struct Program<'k> {
    kernel: &'k Kernel,
    machine: Machine,
    slots: Vec<Slot>,
    words: usize,
    indices: usize,
    /// The most threads of any thread loop.
    threads: usize,
}

impl<'k> Program<'k> {
    /// Prepares a kernel.
    ///
    /// # Errors
    /// If it is malformed or too large; whether its accesses lie in their buffers is checked when it runs.
    pub fn new(kernel: &'k Kernel, machine: Machine) -> Result<Self, EvalError> {
        check_form(kernel)?;
        if machine == Machine::Cpu && needs_block(&kernel.body, false) {
            return Err(EvalError::NeedsBlock {
                kernel: kernel.name.clone(),
            });
        }
        let mut copies = vec![(1, false); kernel.registers.len()];
        let mut threads = 1;
        if machine == Machine::Gpu {
            count_copies(&kernel.body, None, &mut copies, &mut threads);
        }
        let (mut words, mut indices) = (0, 0);
        let slots = kernel
            .registers
            .iter()
            .zip(copies)
            .map(|(info, (copies, is_per_thread))| {
                let lanes = info.ty.lanes as usize;
                let file = if info.ty.scalar == Scalar::Index {
                    &mut indices
                } else {
                    &mut words
                };
                let at = *file;
                *file += lanes * copies;
                Slot {
                    at,
                    stride: if is_per_thread { lanes } else { 0 },
                    lanes,
                }
            });
        let slots = slots.collect();
        let private = kernel
            .locals
            .iter()
            .map(|l| l.len as usize * l.dtype.size() * threads)
            .sum::<usize>();
        let found = 4 * words + 8 * indices + private;
        if found > MAX_STATE {
            return Err(EvalError::TooLarge {
                kernel: kernel.name.clone(),
                found,
            });
        }
        Ok(Program {
            kernel,
            machine,
            slots,
            words,
            indices,
            threads,
        })
    }

    /// Runs all iterations without a limit of steps.
    ///
    /// # Errors
    /// See [`EvalError`].
    pub fn run_all<B: AsMut<[u8]>>(&self, buffers: &mut [B], tokens: i64) -> Result<(), EvalError> {
        self.run(buffers, 0..self.kernel.grid.at(tokens).max(0), tokens, None)
    }

    /// Runs the given iterations of the parallel loop, in at most `fuel` steps: statements and iterations of loops,
    /// counted for each thread.
    ///
    /// `buffers` holds the little-endian bytes of each parameter, in order; longer ones are allowed.
    ///
    /// # Errors
    /// See [`EvalError`].
    pub fn run<B: AsMut<[u8]>>(
        &self,
        buffers: &mut [B],
        iterations: Range<i64>,
        tokens: i64,
        fuel: Option<u64>,
    ) -> Result<(), EvalError> {
        let kernel = || self.kernel.name.clone();
        if !(1..=MAX_TOKENS).contains(&tokens) {
            return Err(EvalError::Tokens {
                kernel: kernel(),
                found: tokens,
            });
        }
        let grid = self.kernel.grid.at(tokens).max(0);
        if iterations.start < 0 || iterations.end > grid {
            return Err(EvalError::Iterations {
                kernel: kernel(),
                found: iterations,
                grid,
            });
        }
        let (found, expected) = (buffers.len(), self.kernel.params.len());
        if found != expected {
            return Err(EvalError::BufferCount {
                kernel: kernel(),
                found,
                expected,
            });
        }
        run::run(
            self,
            buffers.iter_mut().map(AsMut::as_mut).collect(),
            iterations,
            tokens,
            fuel,
        )
    }
}

/// How many copies each register needs, and whether each thread has its own: if it is assigned in a thread loop.
fn count_copies(body: &[Stmt], block: Option<usize>, copies: &mut [(usize, bool)], threads: &mut usize) {
    for stmt in body {
        let mut inside = block;
        let assigned = match stmt {
            Stmt::Let(reg, _) => Some(*reg),
            Stmt::For {
                kind,
                var,
                start,
                end,
                step,
                ..
            } => {
                if *kind == LoopKind::Thread {
                    let count = thread_count(*start, *end, *step);
                    *threads = count.max(*threads);
                    inside = Some(count);
                }
                Some(*var)
            }
            Stmt::If { .. } | Stmt::Store { .. } | Stmt::Barrier | Stmt::Prefetch { .. } => None,
        };
        if let (Some(reg), Some(count)) = (assigned, inside) {
            copies[reg.0 as usize] = (count.max(1), true);
        }
        stmt.bodies()
            .into_iter()
            .for_each(|body| count_copies(body, inside, copies, threads));
    }
}

/// The threads of a thread loop, whose extent was checked to be fixed and small.
fn thread_count(start: Bound, end: Bound, step: i64) -> usize {
    super::verify::structure::iterations(start, end, step).map_or(0, |n| n as usize)
}
