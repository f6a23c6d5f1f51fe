//! Who is in a batch, wherever its states are.

use rwkvc_abi::StateSlot;

/// Why members of a batch are not what a call takes them for. Nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The batch has no room.
    #[error("the batch is full: it was compiled for {0} states")]
    Full(usize),
    /// There is no such member.
    #[error("there is no member {slot} in a batch of {members}")]
    Unknown {
        /// The one that was named.
        slot: usize,
        /// How many there are.
        members: usize,
    },
    /// Each member takes one token.
    #[error("{found} tokens for a batch of {members}: each member takes one")]
    Tokens {
        /// Tokens given.
        found: usize,
        /// How many members there are.
        members: usize,
    },
}

/// The members of a batch: numbers from 0 on. Each part of the state has a row for each that there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Members {
    pub(crate) count: usize,
    pub(crate) capacity: usize,
}

impl Members {
    pub(crate) fn none_of(capacity: usize) -> Self {
        Members { count: 0, capacity }
    }

    /// The number of the next one.
    pub(crate) fn next(self) -> Result<usize, MemberError> {
        match self.count < self.capacity {
            true => Ok(self.count),
            false => Err(MemberError::Full(self.capacity)),
        }
    }

    /// The number of the last one, which takes the place of `member` when that leaves.
    pub(crate) fn last(self, member: usize) -> Result<usize, MemberError> {
        match member < self.count {
            true => Ok(self.count - 1),
            false => Err(MemberError::Unknown {
                slot: member,
                members: self.count,
            }),
        }
    }

    pub(crate) fn check_tokens(self, tokens: &[u32]) -> Result<(), MemberError> {
        let (found, members) = (tokens.len(), self.count);
        match found == members {
            true => Ok(()),
            false => Err(MemberError::Tokens { found, members }),
        }
    }

    /// Where a member's row of a part of the state starts, in bytes.
    pub(crate) fn row(self, slot: &StateSlot, member: usize) -> usize {
        let (start, len) = place(slot);
        start * self.capacity + member * len
    }
}

/// The bytes of a part of one state: where it starts, and how many. The manifest's check bounds both.
pub(crate) fn place(slot: &StateSlot) -> (usize, usize) {
    (slot.offset as usize * 4, slot.shape.iter().product::<usize>() * 4)
}
