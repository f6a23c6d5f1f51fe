//! Buffers while a kernel runs.

use super::races::{Clock, Races, User};
use super::*;

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
    races: Races,
}

/// Why an element cannot be used.
pub(super) enum Trouble {
    OutOfBounds,
    Undefined(i64),
    Race(i64),
    BlockRace(i64),
    Differs(i64),
}

impl<'a> Memory<'a> {
    /// A parameter; its uses are traced if `is_traced`.
    pub(super) fn param(bytes: &'a mut [u8], dtype: DType, length: i64, is_traced: bool) -> Self {
        Memory {
            bytes,
            dtype,
            length,
            copies: 1,
            written: vec![],
            races: if is_traced {
                Races::of_grid(length as usize)
            } else {
                Races::untraced()
            },
        }
    }

    /// A local in `copies` copies; its uses are traced if `is_traced`.
    pub(super) fn local(bytes: &'a mut [u8], local: &Local, copies: usize, is_traced: bool) -> Self {
        let length = local.len as usize;
        Memory {
            bytes,
            dtype: local.dtype,
            length: local.len,
            copies,
            written: vec![0; length * copies],
            races: if is_traced {
                Races::of_block(length)
            } else {
                Races::untraced()
            },
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

    /// Loads `count` elements into lanes: one into each, or as many as have room. `clock` tells the iteration and the epoch.
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
        if self.races.are_traced() {
            (first..first + count).try_for_each(|element| self.races.load(element, user, clock))?;
        }
        match self.dtype {
            DType::F32 | DType::I32 => self.load_words(4 * base, lanes),
            dtype if count > lanes.len() => self.load_words(dtype.size() * base, lanes),
            DType::I8 => {
                let bytes = lanes.iter_mut().zip(&self.bytes[base..]);
                bytes.for_each(|(lane, byte)| *lane = i32::from(*byte as i8) as u32);
            }
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
        if self.races.are_traced() {
            (first..first + lanes.len()).try_for_each(|element| self.races.store(element, user, clock))?;
        }
        let all_copies = user == User::Everyone && self.copies > 1;
        let copies = if all_copies {
            0..self.copies
        } else {
            self.copy_of(user)..self.copy_of(user) + 1
        };
        for copy in copies {
            let base = copy * self.length as usize + first;
            if !self.written.is_empty() {
                self.written[base..base + lanes.len()].fill(clock.iteration);
            }
            match self.dtype {
                DType::F32 | DType::I32 => {
                    let bytes = self.bytes[4 * base..].chunks_exact_mut(4);
                    bytes
                        .zip(lanes)
                        .for_each(|(b, lane)| b.copy_from_slice(&lane.to_le_bytes()));
                }
                DType::I8 => {
                    let bytes = self.bytes[base..].iter_mut();
                    bytes.zip(lanes).for_each(|(byte, lane)| *byte = *lane as u8);
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
}
