//! Runs statements, each for all threads that are active before the next.

use super::memory::{Memory, Trouble};
use super::races::{Clock, User};
use super::*;

pub(super) fn run(
    program: &Program<'_>,
    buffers: Vec<&mut [u8]>,
    iterations: Range<i64>,
    tokens: i64,
    fuel: Option<u64>,
) -> Result<(), EvalError> {
    let kernel = program.kernel;
    let is_gpu = program.machine == Machine::Gpu;
    let mut memories = Vec::with_capacity(kernel.params.len() + kernel.locals.len());
    for (param, bytes) in kernel.params.iter().zip(buffers) {
        let length = param.len.at(tokens);
        let expected = length.saturating_mul(param.dtype.size() as i64);
        let found = bytes.len();
        if i64::try_from(found).is_ok_and(|found| found < expected) {
            let (kernel, buffer) = (kernel.name.clone(), param.name.clone());
            return Err(EvalError::BufferSize {
                kernel,
                buffer,
                found,
                expected,
            });
        }
        let is_traced = is_gpu && param.access != Access::Read;
        memories.push(Memory::param(bytes, param.dtype, length, is_traced));
    }
    let copies = |local: &Local| match local.space {
        Space::Private if is_gpu => program.threads,
        Space::Private | Space::Shared => 1,
    };
    let sizes = kernel
        .locals
        .iter()
        .map(|local| local.len as usize * local.dtype.size() * copies(local));
    let mut storage: Vec<Vec<u8>> = sizes.map(|size| vec![0; size]).collect();
    for (local, bytes) in kernel.locals.iter().zip(&mut storage) {
        memories.push(Memory::local(
            bytes,
            local,
            copies(local),
            is_gpu && local.space == Space::Shared,
        ));
    }
    let mut run = Run {
        program,
        memories,
        words: vec![0; program.words],
        indices: vec![0; program.indices],
        tokens,
        iterations,
        block: None,
        clock: Clock {
            iteration: 0,
            epoch: 0,
        },
        fuel: fuel.unwrap_or(u64::MAX),
        full: fuel.unwrap_or(u64::MAX),
    };
    run.body(&kernel.body, &[0])
}

pub(super) struct Run<'p, 'k, 'm> {
    pub(super) program: &'p Program<'k>,
    memories: Vec<Memory<'m>>,
    /// F32, I32 and Bool lanes.
    pub(super) words: Vec<u32>,
    /// Index lanes.
    pub(super) indices: Vec<i64>,
    pub(super) tokens: i64,
    iterations: Range<i64>,
    /// The threads of the current thread loop of a GPU.
    block: Option<usize>,
    clock: Clock,
    fuel: u64,
    /// The fuel at the start.
    full: u64,
}

pub(super) type Ran = Result<(), EvalError>;

impl<'k> Run<'_, 'k, '_> {
    pub(super) fn kernel(&self) -> String {
        self.program.kernel.name.clone()
    }

    fn burn(&mut self, threads: usize) -> Ran {
        match self.fuel.checked_sub(threads as u64) {
            Some(rest) => {
                self.fuel = rest;
                Ok(())
            }
            None => Err(EvalError::Fuel {
                kernel: self.kernel(),
                fuel: self.full,
            }),
        }
    }

    /// The first lane of a register in its file.
    pub(super) fn at(&self, reg: Reg, thread: usize) -> usize {
        let slot = &self.program.slots[reg.0 as usize];
        slot.at + thread * slot.stride
    }

    fn index(&self, reg: Reg, thread: usize) -> i64 {
        self.indices[self.at(reg, thread)]
    }

    fn set_index(&mut self, reg: Reg, thread: usize, value: i64) {
        let at = self.at(reg, thread);
        self.indices[at] = value;
    }

    pub(super) fn affine(&self, affine: &Affine, thread: usize) -> i64 {
        affine.terms.iter().fold(affine.offset, |sum, &(reg, factor)| {
            sum.wrapping_add(factor.wrapping_mul(self.index(reg, thread)))
        })
    }

    fn bound(&self, bound: Bound, thread: usize) -> i64 {
        match bound {
            Bound::Extent(extent) => extent.at(self.tokens),
            Bound::Reg(reg) => self.index(reg, thread),
        }
    }

    fn body(&mut self, body: &'k [Stmt], active: &[usize]) -> Ran {
        for stmt in body {
            self.burn(active.len())?;
            match stmt {
                Stmt::Let(reg, Inst::Shuffle(from, mask)) => self.shuffle(*reg, *from, *mask, active)?,
                Stmt::Let(reg, Inst::Mma { format, a, b, c }) => {
                    self.products(*reg, *format, [*a, *b, *c], active)?;
                }
                Stmt::Let(reg, inst) => active
                    .iter()
                    .try_for_each(|&thread| self.inst(*reg, inst, thread))?,
                Stmt::Store { buf, at, value } => {
                    active
                        .iter()
                        .try_for_each(|&thread| self.store(*buf, at, *value, thread))?;
                }
                Stmt::For {
                    kind,
                    var,
                    start,
                    end,
                    step,
                    body,
                } => match kind {
                    LoopKind::Parallel => self.parallel(*var, body)?,
                    LoopKind::Thread if self.program.machine == Machine::Gpu => {
                        self.threads(*var, (*start, *end), *step, body)?;
                    }
                    LoopKind::Thread | LoopKind::Serial | LoopKind::Unrolled => {
                        self.repeat(*var, (*start, *end), *step, body, active)?;
                    }
                },
                Stmt::If {
                    condition,
                    then,
                    otherwise,
                } => {
                    let holds = |thread: &usize| self.words[self.at(*condition, *thread)] != 0;
                    let (yes, no): (Vec<usize>, Vec<usize>) = active.iter().partition(|thread| holds(thread));
                    for (body, active) in [(then, yes), (otherwise, no)] {
                        if !active.is_empty() {
                            self.body(body, &active)?;
                        }
                    }
                }
                Stmt::Barrier => {
                    self.together(active)?;
                    self.clock.epoch += 1;
                }
                Stmt::Prefetch { .. } => {}
            }
        }
        Ok(())
    }

    /// Checks that all threads of the block are here.
    pub(super) fn together(&self, active: &[usize]) -> Ran {
        match self.block {
            Some(expected) if active.len() != expected => Err(EvalError::Divergence {
                kernel: self.kernel(),
                found: active.len(),
                expected,
            }),
            _ => Ok(()),
        }
    }

    fn parallel(&mut self, var: Reg, body: &'k [Stmt]) -> Ran {
        for i in self.iterations.clone() {
            self.burn(1)?;
            self.clock.iteration += 1;
            self.clock.epoch += 1;
            self.set_index(var, 0, i);
            self.body(body, &[0])?;
        }
        Ok(())
    }

    /// The threads of a GPU block.
    fn threads(&mut self, var: Reg, (start, end): (Bound, Bound), step: i64, body: &'k [Stmt]) -> Ran {
        let first = self.bound(start, 0);
        let all: Vec<usize> = (0..thread_count(start, end, step)).collect();
        for &thread in &all {
            self.set_index(var, thread, first + thread as i64 * step);
        }
        self.block = Some(all.len());
        let result = if all.is_empty() {
            Ok(())
        } else {
            self.body(body, &all)
        };
        self.block = None;
        result
    }

    /// A loop that each active thread leaves at its own end.
    fn repeat(
        &mut self,
        var: Reg,
        (start, end): (Bound, Bound),
        step: i64,
        body: &'k [Stmt],
        active: &[usize],
    ) -> Ran {
        let mut threads = Vec::with_capacity(active.len());
        let mut ends = Vec::with_capacity(active.len());
        for &thread in active {
            let (start, end) = (self.bound(start, thread), self.bound(end, thread));
            if start < end {
                self.set_index(var, thread, start);
                threads.push(thread);
                ends.push(end);
            }
        }
        while !threads.is_empty() {
            self.burn(threads.len())?;
            self.body(body, &threads)?;
            let mut kept = 0;
            for i in 0..threads.len() {
                let (thread, end) = (threads[i], ends[i]);
                if let Some(next) = self
                    .index(var, thread)
                    .checked_add(step)
                    .filter(|&next| next < end)
                {
                    self.set_index(var, thread, next);
                    (threads[kept], ends[kept]) = (thread, end);
                    kept += 1;
                }
            }
            threads.truncate(kept);
            ends.truncate(kept);
        }
        Ok(())
    }

    fn user(&self, thread: usize) -> User {
        if self.block.is_some() {
            User::Thread(thread)
        } else {
            User::Everyone
        }
    }

    fn trouble(&self, buf: Buf, index: i64, lanes: usize, trouble: Trouble) -> EvalError {
        let params = &self.program.kernel.params;
        let number = buf.0 as usize;
        let local = || &self.program.kernel.locals[number - params.len()].name;
        let (kernel, buffer) = (
            self.kernel(),
            params.get(number).map_or_else(local, |p| &p.name).clone(),
        );
        match trouble {
            Trouble::OutOfBounds => {
                let length = self.memories[number].length;
                EvalError::OutOfBounds {
                    kernel,
                    buffer,
                    index,
                    lanes,
                    length,
                }
            }
            Trouble::Undefined(index) => EvalError::Undefined {
                kernel,
                buffer,
                index,
            },
            Trouble::Race(index) => EvalError::Race {
                kernel,
                buffer,
                index,
            },
            Trouble::BlockRace(index) => EvalError::BlockRace {
                kernel,
                buffer,
                index,
            },
            Trouble::Differs(index) => EvalError::Differs {
                kernel,
                buffer,
                index,
            },
        }
    }

    /// Loads `count` elements into the lanes of a register.
    pub(super) fn load(&mut self, dest: Reg, buf: Buf, at: &Affine, count: usize, thread: usize) -> Ran {
        let (index, first, user) = (self.affine(at, thread), self.at(dest, thread), self.user(thread));
        let lanes = self.program.slots[dest.0 as usize].lanes;
        let memory = &mut self.memories[buf.0 as usize];
        memory
            .load(
                index,
                count,
                &mut self.words[first..first + lanes],
                user,
                self.clock,
            )
            .map_err(|trouble| self.trouble(buf, index, count, trouble))
    }

    fn store(&mut self, buf: Buf, at: &Affine, value: Reg, thread: usize) -> Ran {
        let lanes = self.program.slots[value.0 as usize].lanes;
        let (index, first, user) = (self.affine(at, thread), self.at(value, thread), self.user(thread));
        let memory = &mut self.memories[buf.0 as usize];
        memory
            .store(index, &self.words[first..first + lanes], user, self.clock)
            .map_err(|trouble| self.trouble(buf, index, lanes, trouble))
    }
}
