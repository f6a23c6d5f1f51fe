//! Uses of an element in an order that nothing decides.

use super::memory::Trouble;

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

/// When something happens; both count from 1.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    /// Iterations of the parallel loop so far.
    pub(super) iteration: u64,
    /// Iterations and barriers so far.
    pub(super) epoch: u64,
}

/// Uses of an element since a barrier.
#[derive(Clone, Copy, Debug)]
struct Trace {
    /// Of the barrier.
    epoch: u64,
    writer: User,
    reader: User,
}

/// More than one block.
const SEVERAL: u64 = u64::MAX;

/// The blocks that used an element: their iteration, 0 for none.
#[derive(Clone, Copy, Debug)]
struct Blocks {
    writer: u64,
    reader: u64,
}

/// Uses of the elements of a buffer, as far as they are traced.
pub(super) struct Races {
    /// For each element, if several threads see it.
    threads: Vec<Trace>,
    /// For each element, if several blocks see it.
    blocks: Vec<Blocks>,
}

impl Races {
    /// Of a buffer that nobody shares, or from which all only load.
    pub(super) fn untraced() -> Self {
        Races {
            threads: vec![],
            blocks: vec![],
        }
    }

    /// Of a buffer that the threads of one block share.
    pub(super) fn of_block(length: usize) -> Self {
        let nothing = Trace {
            epoch: 0,
            writer: User::Nobody,
            reader: User::Nobody,
        };
        Races {
            threads: vec![nothing; length],
            blocks: vec![],
        }
    }

    /// Of a buffer that all blocks share.
    pub(super) fn of_grid(length: usize) -> Self {
        let nobody = Blocks { writer: 0, reader: 0 };
        Races {
            blocks: vec![nobody; length],
            ..Self::of_block(length)
        }
    }

    pub(super) fn are_traced(&self) -> bool {
        !self.threads.is_empty()
    }

    pub(super) fn load(&mut self, element: usize, user: User, clock: Clock) -> Result<(), Trouble> {
        if let Some(trace) = self.threads.get_mut(element) {
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
        }
        if let Some(blocks) = self.blocks.get_mut(element) {
            if ![0, clock.iteration].contains(&blocks.writer) {
                return Err(Trouble::BlockRace(element as i64));
            }
            blocks.reader = if [0, clock.iteration].contains(&blocks.reader) {
                clock.iteration
            } else {
                SEVERAL
            };
        }
        Ok(())
    }

    pub(super) fn store(&mut self, element: usize, user: User, clock: Clock) -> Result<(), Trouble> {
        if let Some(trace) = self.threads.get_mut(element) {
            trace.renew(clock.epoch);
            let is_own = |other: User| other == User::Nobody || other == user;
            // Where all threads read and then all write, the first may write before the last has read.
            let is_late = user == User::Everyone && trace.reader == User::Everyone;
            if !is_own(trace.writer) || !is_own(trace.reader) || is_late {
                return Err(Trouble::Race(element as i64));
            }
            trace.writer = user;
        }
        if let Some(blocks) = self.blocks.get_mut(element) {
            let own = [0, clock.iteration];
            if !own.contains(&blocks.writer) || !own.contains(&blocks.reader) {
                return Err(Trouble::BlockRace(element as i64));
            }
            blocks.writer = clock.iteration;
        }
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
