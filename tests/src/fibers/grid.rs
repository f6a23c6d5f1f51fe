//! All blocks of a launch.

use std::collections::HashMap;

use corosensei::stack::DefaultStack;

use super::block::{Block, Progress};
use super::code::{self, Compiled, Entry};
use super::memory::Guarded;
use super::stand_ins::Place;
use super::text;

/// How often all blocks may look whether they can go on, before that counts as for ever.
const PATIENCE: usize = 10_000;

/// Compiled kernels with what they need to run, one launch at a time.
pub(super) struct Program {
    entries: HashMap<String, Entry>,
    /// What the running block shares, by name.
    shared: Vec<(String, Guarded)>,
    /// Of threads that are through.
    stacks: Vec<DefaultStack>,
    /// Keeps the entries in memory.
    _code: rwkvc_runtime::object::Code,
}

/// One run of an entry.
pub(super) struct Launch<'a> {
    pub(super) blocks: u32,
    pub(super) threads: u32,
    /// All parameters, 64 bits each.
    pub(super) args: &'a [u64],
    /// Whether blocks wait for each other.
    pub(super) all_at_once: bool,
}

/// A block, and what its threads share while another runs; nothing if there is no other.
struct Resident {
    block: Block,
    shared: Vec<Vec<u8>>,
}

impl Program {
    pub(super) fn compile(listing: &str) -> Result<Self, String> {
        let Compiled {
            entries,
            shared,
            _code,
        } = code::compile(&text::for_this_machine(listing)?)?;
        Ok(Program {
            entries,
            shared,
            stacks: vec![],
            _code,
        })
    }

    /// Whether there is an entry of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The threads of a block of an entry.
    pub(super) fn threads(&self, name: &str) -> Result<u32, String> {
        Ok(self.entry(name)?.threads)
    }

    fn entry(&self, name: &str) -> Result<&Entry, String> {
        self.entries
            .get(name)
            .ok_or_else(|| format!("there is no kernel `{name}`"))
    }

    /// Runs an entry.
    ///
    /// # Safety
    /// It must take these arguments.
    ///
    /// # Errors
    /// What a thread does that a GPU would not survive.
    pub(super) unsafe fn launch(&mut self, name: &str, launch: &Launch<'_>) -> Result<(), String> {
        let entry = self.entry(name)?;
        for (what, found, expected) in [
            ("arguments", launch.args.len(), entry.params),
            ("threads", launch.threads as usize, entry.threads as usize),
        ] {
            if found != expected {
                return Err(format!("kernel `{name}`: {found} {what}, expected {expected}"));
            }
        }
        // Blocks are independent of each other, so those that need not run together begin with the last.
        let resident = if launch.all_at_once { launch.blocks } else { 1 };
        let mut end = launch.blocks;
        while end > 0 {
            let start = end.saturating_sub(resident);
            // SAFETY: the caller has promised it.
            unsafe { self.run_together(name, start..end, launch) }
                .map_err(|e| format!("kernel `{name}`: {e}"))?;
            end = start;
        }
        Ok(())
    }

    /// # Safety
    /// As [`Program::launch`].
    unsafe fn run_together(
        &mut self,
        name: &str,
        blocks: std::ops::Range<u32>,
        launch: &Launch<'_>,
    ) -> Result<(), String> {
        let function = self.entry(name)?.function;
        self.shared.iter_mut().for_each(|(_, memory)| memory.forget());
        let is_alone = blocks.len() == 1;
        let mut residents = vec![];
        for block in blocks {
            let place = Place {
                thread: 0,
                threads: launch.threads,
                block,
                blocks: launch.blocks,
            };
            // SAFETY: `_code` keeps the function; the caller has promised the rest.
            let block = unsafe { Block::new(place, function, launch.args.as_ptr(), &mut self.stacks)? };
            let shared = if is_alone {
                vec![]
            } else {
                self.shared.iter().map(|(_, m)| m.bytes().to_vec()).collect()
            };
            residents.push(Some(Resident { block, shared }));
        }
        let mut patience = PATIENCE;
        while residents.iter().any(Option::is_some) {
            let mut came_on = false;
            for place in &mut residents {
                let Some(resident) = place else { continue };
                resident.swap(&mut self.shared);
                let progress = resident.block.run()?;
                resident.swap(&mut self.shared);
                came_on |= progress != Progress::Waits;
                if progress == Progress::Done
                    && let Some(resident) = place.take()
                {
                    resident.block.end(&mut self.stacks);
                }
            }
            patience = if came_on { PATIENCE } else { patience - 1 };
            if patience == 0 {
                return Err("threads wait for ever".into());
            }
        }
        match self.shared.iter().find(|(_, memory)| !memory.is_intact()) {
            Some((memory, _)) => Err(format!("bytes around `{memory}` have changed")),
            None => Ok(()),
        }
    }
}

impl Resident {
    /// Exchanges what its threads share with what is in the place where they share it.
    fn swap(&mut self, shared: &mut [(String, Guarded)]) {
        for ((_, memory), own) in shared.iter_mut().zip(&mut self.shared) {
            memory.bytes_mut().swap_with_slice(own);
        }
    }
}
