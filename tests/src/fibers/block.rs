//! The threads of one block, and their barriers.

use corosensei::Coroutine;
use corosensei::stack::DefaultStack;
use rwkvc_abi::KernelFn;

use super::stand_ins::{Place, Request, as_thread};
use super::warp::{self, Fiber, State, WARP};

/// Bytes of the stack of a thread.
const STACK: usize = 64 << 10;

/// A block that runs.
pub(super) struct Block {
    fibers: Vec<Fiber>,
}

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// All threads are through.
    Done,
    /// Some wait for other blocks.
    CameOn,
    /// Some wait for other blocks, as they did before.
    Waits,
}

impl Block {
    /// Threads at their beginning, on stacks from a pool. `place` is that of the first thread.
    ///
    /// # Safety
    /// Until the block is gone, the function must stay in memory and may be called with these arguments.
    pub(super) unsafe fn new(
        place: Place,
        function: KernelFn,
        args: *const u64,
        stacks: &mut Vec<DefaultStack>,
    ) -> Result<Self, String> {
        let mut fibers = Vec::with_capacity(place.threads as usize);
        for thread in 0..place.threads {
            let stack = match stacks.pop() {
                Some(stack) => stack,
                None => {
                    DefaultStack::new(STACK).map_err(|error| format!("no stack for a thread: {error}"))?
                }
            };
            let place = Place { thread, ..place };
            fibers.push(Fiber::new(Coroutine::with_stack(stack, move |yielder, _| {
                // SAFETY: the caller has promised it.
                as_thread(yielder, place, || unsafe { function(args.cast(), 0, 0, 0) });
            })));
        }
        Ok(Block { fibers })
    }

    /// Gives the stacks back to the pool.
    pub(super) fn end(self, stacks: &mut Vec<DefaultStack>) {
        stacks.extend(self.fibers.into_iter().filter_map(Fiber::end));
    }

    /// Lets the threads run until they can only go on when other blocks do.
    pub(super) fn run(&mut self) -> Result<Progress, String> {
        let mut came_on = false;
        loop {
            for warp in self.fibers.chunks_mut(WARP) {
                came_on |= warp::run(warp)?;
            }
            if !self.barrier()? {
                break;
            }
        }
        Ok(match came_on {
            _ if self.fibers.iter().all(|f| f.state == State::Done) => Progress::Done,
            true => Progress::CameOn,
            false => Progress::Waits,
        })
    }

    /// Lets the threads go on that wait at a barrier, if all do.
    fn barrier(&mut self) -> Result<bool, String> {
        let waits = |f: &&Fiber| matches!(f.state, State::Waits(Request::Barrier { .. }));
        let Some(first) = self.fibers.iter().find(waits) else {
            return Ok(false);
        };
        let others = |f: &Fiber| f.state == State::Waits(Request::Others);
        let same = self.fibers.iter().filter(|f| f.state == first.state).count();
        if same < self.fibers.len() {
            if self.fibers.iter().any(others) {
                return Ok(false);
            }
            let all = self.fibers.len();
            return Err(format!("{same} of {all} threads of a block reach a barrier"));
        }
        for fiber in &mut self.fibers {
            fiber.state = State::Ready([0; 4]);
        }
        Ok(true)
    }
}
