//! Buffers while a kernel runs.

use super::*;

/// Who uses an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum User {
    Nobody,
    Thread(usize),
    /// All threads alike, outside of thread loops.
    Everyone,
    /// Several, one after the other.
    Several,
}

/// Uses of an element of a shared local since a barrier.
#[derive(Clone, Copy, Debug)]
struct Trace {
    /// Of the barrier.
    epoch: u64,
    writer: User,
    reader: User,
}

/// A buffer.
pub(super) struct Memory<'a> {
    pub(super) bytes: &'a mut [u8],
    dtype: DType,
    /// Elements of one copy.
    pub(super) length: i64,
    /// Copies, one for each thread.
    pub(super) copies: usize,
    /// For each element of each copy of a local: the iteration that wrote it.
    written: Vec<u64>,
    traces: Vec<Trace>,
}

/// Why an element cannot be used.
pub(super) enum Trouble {
    OutOfBounds,
    Undefined(i64),
    Race(i64),
    Differs(i64),
}

impl<'a> Memory<'a> {
    pub(super) fn param(bytes: &'a mut [u8], dtype: DType, length: i64) -> Self {
        Memory {
            bytes,
            dtype,
            length,
            copies: 1,
            written: vec![],
            traces: vec![],
        }
    }

    /// A local in `copies` copies; its uses are traced if threads share it.
    pub(super) fn local(bytes: &'a mut [u8], local: &Local, copies: usize, is_traced: bool) -> Self {
        let length = local.len as usize;
        let nothing = Trace {
            epoch: 0,
            writer: User::Nobody,
            reader: User::Nobody,
        };
        Memory {
            bytes,
            dtype: local.dtype,
            length: local.len,
            copies,
            written: vec![0; length * copies],
            traces: if is_traced { vec![nothing; length] } else { vec![] },
        }
    }

    /// The first of `lanes` elements, if all exist.
    fn position(&self, index: i64, lanes: usize) -> Result<usize, Trouble> {
        let fits = index >= 0
            && index
                .checked_add(lanes as i64)
                .is_some_and(|end| end <= self.length);
        if fits {
            Ok(index as usize)
        } else {
            Err(Trouble::OutOfBounds)
        }
    }

    fn copy_of(&self, user: User) -> usize {
        match user {
            User::Thread(thread) if self.copies > 1 => thread,
            _ => 0,
        }
    }

    /// Loads `count` elements into lanes: one into each, or two of 16 bits. `clock` tells the iteration and the epoch.
    pub(super) fn load(
        &mut self,
        index: i64,
        count: usize,
        lanes: &mut [u32],
        user: User,
        clock: Clock,
    ) -> Result<(), Trouble> {
        let first = self.position(index, count)?;
        let base = self.copy_of(user) * self.length as usize + first;
        if !self.written.is_empty() {
            for i in 0..count {
                self.check_written(first + i, base + i, user, clock)?;
            }
        }
        match self.dtype {
            DType::F32 | DType::I32 => self.load_words(4 * base, lanes),
            DType::F16 | DType::BF16 if count > lanes.len() => self.load_words(2 * base, lanes),
            DType::F16 => self.load_halves(base, lanes, |bits| half::f16::from_bits(bits).to_f32()),
            DType::BF16 => self.load_halves(base, lanes, |bits| half::bf16::from_bits(bits).to_f32()),
        }
        Ok(())
    }

    fn load_words(&self, first_byte: usize, lanes: &mut [u32]) {
        let bytes = self.bytes[first_byte..].chunks_exact(4);
        for (lane, b) in lanes.iter_mut().zip(bytes) {
            *lane = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        }
    }

    fn load_halves(&self, base: usize, lanes: &mut [u32], widen: impl Fn(u16) -> f32) {
        let bytes = self.bytes[2 * base..].chunks_exact(2);
        for (lane, b) in lanes.iter_mut().zip(bytes) {
            *lane = widen(u16::from_le_bytes([b[0], b[1]])).to_bits();
        }
    }

    fn check_written(&mut self, element: usize, at: usize, user: User, clock: Clock) -> Result<(), Trouble> {
        if self.written[at] != clock.iteration {
            return Err(Trouble::Undefined(element as i64));
        }
        if user == User::Everyone && self.copies > 1 {
            let (size, length) = (self.dtype.size(), self.length as usize);
            let copy = |i: usize| &self.bytes[size * (element + i * length)..][..size];
            let differs =
                |i: usize| self.written[element + i * length] != clock.iteration || copy(i) != copy(0);
            if (1..self.copies).any(differs) {
                return Err(Trouble::Differs(element as i64));
            }
        }
        let Some(trace) = self.traces.get_mut(element) else {
            return Ok(());
        };
        trace.renew(clock.epoch);
        // What all threads wrote, each of them wrote before it reads.
        if ![User::Nobody, User::Everyone, user].contains(&trace.writer) {
            return Err(Trouble::Race(element as i64));
        }
        trace.reader = if [User::Nobody, user].contains(&trace.reader) {
            user
        } else {
            User::Several
        };
        Ok(())
    }

    /// Stores `lanes`, rounded to the format.
    pub(super) fn store(
        &mut self,
        index: i64,
        lanes: &[u32],
        user: User,
        clock: Clock,
    ) -> Result<(), Trouble> {
        let first = self.position(index, lanes.len())?;
        let all_copies = user == User::Everyone && self.copies > 1;
        let copies = if all_copies {
            0..self.copies
        } else {
            self.copy_of(user)..self.copy_of(user) + 1
        };
        for copy in copies {
            let base = copy * self.length as usize + first;
            if !self.written.is_empty() {
                for i in 0..lanes.len() {
                    self.mark_written(first + i, base + i, user, clock)?;
                }
            }
            match self.dtype {
                DType::F32 | DType::I32 => {
                    let bytes = self.bytes[4 * base..].chunks_exact_mut(4);
                    bytes
                        .zip(lanes)
                        .for_each(|(b, lane)| b.copy_from_slice(&lane.to_le_bytes()));
                }
                DType::F16 => self.store_halves(base, lanes, |x| half::f16::from_f32(x).to_bits()),
                DType::BF16 => self.store_halves(base, lanes, |x| half::bf16::from_f32(x).to_bits()),
            }
        }
        Ok(())
    }

    fn store_halves(&mut self, base: usize, lanes: &[u32], narrow: impl Fn(f32) -> u16) {
        let bytes = self.bytes[2 * base..].chunks_exact_mut(2);
        for (b, lane) in bytes.zip(lanes) {
            b.copy_from_slice(&narrow(f32::from_bits(*lane)).to_le_bytes());
        }
    }

    fn mark_written(&mut self, element: usize, at: usize, user: User, clock: Clock) -> Result<(), Trouble> {
        self.written[at] = clock.iteration;
        let Some(trace) = self.traces.get_mut(element) else {
            return Ok(());
        };
        trace.renew(clock.epoch);
        let is_own = |other: User| other == User::Nobody || other == user;
        // Where all threads read and then all write, the first may write before the last has read.
        let is_late = user == User::Everyone && trace.reader == User::Everyone;
        if !is_own(trace.writer) || !is_own(trace.reader) || is_late {
            return Err(Trouble::Race(element as i64));
        }
        trace.writer = user;
        Ok(())
    }
}

impl Trace {
    fn renew(&mut self, epoch: u64) {
        if self.epoch != epoch {
            *self = Trace {
                epoch,
                writer: User::Nobody,
                reader: User::Nobody,
            };
        }
    }
}

/// When something happens; both count from 1.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    /// Iterations of the parallel loop so far.
    pub(super) iteration: u64,
    /// Iterations and barriers so far.
    pub(super) epoch: u64,
}
