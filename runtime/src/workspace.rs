//! What a step needs besides the model and the state: scratch memory, room for the logits, and threads.

use crate::buffer::{Buffer, OutOfMemory};
use crate::model::Model;
use crate::pool::{Job, Pool, Task};
use rwkvc_abi::{Access, Arg, Launch, Manifest, Program};

/// How a workspace runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkspaceOptions {
    /// Threads of a step, from 1 to 1024. Results do not depend on it.
    pub threads: usize,
    /// Keep each further thread on a core of its own (Linux). The calling thread is left where it is.
    pub pin: bool,
}

/// One thread for each core that this process may use; one without the feature `threads`.
impl Default for WorkspaceOptions {
    fn default() -> Self {
        let threads = match cfg!(feature = "threads") {
            true => std::thread::available_parallelism()
                .map_or(1, usize::from)
                .min(crate::pool::MAX_THREADS),
            false => 1,
        };
        WorkspaceOptions { threads, pin: false }
    }
}

/// Why there is no workspace.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// No memory.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
    /// No threads.
    #[error("the threads cannot be started: {0}")]
    Threads(#[from] std::io::Error),
}

/// Memory and threads for the steps of one model. All of it is allocated when it is made. The calling thread takes part in
/// each step, which needs up to 1 MiB of its stack.
pub struct Workspace {
    // First, so that the threads end before the memory they know of is gone.
    pool: Pool,
    programs: Vec<Prepared>,
    arena: Buffer,
    logits: Buffer,
    tokens: Buffer,
    /// Keeps code and weights alive.
    model: Model,
    /// Index of the program that ran last, and its tokens.
    last: Option<(usize, usize)>,
}

/// What of a call is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Logits, probes and the state.
    All,
    /// The state, as of all parts of a prompt but the last.
    State,
}

/// A program with the addresses of its buffers.
struct Prepared {
    tasks: Vec<Task>,
    /// The first of them that leave the state as it is after all.
    for_state: usize,
    /// Of all launches, back to back.
    pointers: Vec<*mut u8>,
    /// Indices of pointers into the state, which differs from call to call, and their offsets in it.
    state: Vec<(usize, usize)>,
}

// SAFETY: the pointers are to memory that the workspace owns or that the model, which is `Sync`, keeps; those into a state
// are set anew for each call. No thread of the pool uses them between calls.
unsafe impl Send for Workspace {}

impl Workspace {
    pub(crate) fn new(model: &Model, options: &WorkspaceOptions) -> Result<Self, WorkspaceError> {
        let manifest = model.manifest();
        let arena = Buffer::zeroed(manifest.arena_bytes)?;
        // The manifest's check bounds both.
        let most = |f: &dyn Fn(&Program) -> u64| manifest.programs.iter().map(f).max().unwrap_or(0);
        let tokens = Buffer::zeroed(most(&|p| p.max_tokens as u64 * 4))?;
        let logits = Buffer::zeroed(most(&|p| manifest.logits_bytes(p)))?;
        let prepare = |program: &Program| {
            let mut prepared = Prepared {
                tasks: vec![],
                for_state: launches_for_state(manifest, program),
                pointers: vec![],
                state: vec![],
            };
            for launch in &program.launches {
                let kernel = model.kernel(launch.kernel);
                let grid = manifest.kernels[launch.kernel].grid;
                prepared.tasks.push(Task {
                    kernel,
                    first: prepared.pointers.len(),
                    grid,
                });
                for arg in &launch.args {
                    let pointer = match *arg {
                        Arg::Weight(i) => model.weight(i).cast_mut(),
                        Arg::Arena(offset) => arena.pointer().wrapping_add(offset as usize),
                        Arg::Tokens => tokens.pointer(),
                        Arg::Logits => logits.pointer(),
                        Arg::Sampler | Arg::Counts => {
                            unreachable!("`Manifest::check` leaves these to GPUs")
                        }
                        Arg::State(offset) => {
                            prepared.state.push((prepared.pointers.len(), offset as usize));
                            std::ptr::null_mut()
                        }
                    };
                    prepared.pointers.push(pointer);
                }
            }
            prepared
        };
        let programs = manifest.programs.iter().map(prepare).collect();
        let pool = Pool::new(options.threads, options.pin)?;
        Ok(Workspace {
            pool,
            programs,
            arena,
            logits,
            tokens,
            model: model.clone(),
            last: None,
        })
    }

    /// Threads of a step.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The extra results of the call that came last (of its last chunk): names and f32 values. Only models compiled with
    /// probes have any.
    pub fn probes(&self) -> impl Iterator<Item = (&str, &[f32])> {
        let run = self
            .last
            .map(|(program, tokens)| (&self.model.manifest().programs[program].probes, tokens));
        run.into_iter().flat_map(move |(probes, tokens)| {
            probes.iter().filter_map(move |probe| {
                let start = probe.offset as usize / 4;
                let len = usize::try_from(probe.elements.at(tokens)?).ok()?;
                Some((
                    probe.name.as_str(),
                    self.arena.floats().get(start..start.checked_add(len)?)?,
                ))
            })
        })
    }

    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// The logits of `count` tokens of the call that came last.
    pub(crate) fn logits(&self, count: usize) -> &[f32] {
        &self.logits.floats()[..count * self.model.vocab()]
    }

    /// Runs a program. The state must be what [`Manifest::state_bytes`](crate::Manifest) says of it, and the tokens as
    /// many as the program takes and all within the vocabulary: the caller has checked that.
    pub(crate) fn run(
        &mut self,
        program: usize,
        state: &mut Buffer,
        tokens: &[u32],
        wanted: Wanted,
        times: Option<&mut [u64]>,
    ) {
        let prepared = &mut self.programs[program];
        let count = match wanted {
            Wanted::All => prepared.tasks.len(),
            Wanted::State => prepared.for_state,
        };
        let places = bytemuck::cast_slice_mut::<u8, u32>(self.tokens.bytes_mut());
        places[..tokens.len()].copy_from_slice(tokens);
        for (pointer, offset) in &prepared.state {
            prepared.pointers[*pointer] = state.pointer().wrapping_add(*offset);
        }
        let job = Job {
            tasks: &prepared.tasks[..count],
            pointers: &prepared.pointers,
            tokens: tokens.len(),
        };
        // SAFETY: `Manifest::check` has compared every buffer with what its kernel declares to touch for up to
        // `max_tokens` tokens, and that nothing written overlaps; iterations of a grid are independent by the contract
        // of kernels. Arena, logits and tokens belong to this workspace and the state is borrowed, all of them
        // uniquely; weights are only read. `model` keeps code and weights alive.
        unsafe { self.pool.run(&job, times.map(|times| &mut times[..count])) };
        self.last = Some((program, tokens.len()));
    }
}

/// How many launches of a program there are up to the last one that writes to the state.
fn launches_for_state(manifest: &Manifest, program: &Program) -> usize {
    let writes = |launch: &Launch| {
        let params = &manifest.kernels[launch.kernel].params;
        let mut args = launch.args.iter().zip(params);
        args.any(|(arg, param)| matches!(arg, Arg::State(_)) && param.access != Access::Read)
    };
    let last = program.launches.iter().rposition(writes);
    last.map_or(0, |last| last + 1)
}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workspace")
            .field("threads", &self.threads())
            .field("arena", &self.arena)
            .field("logits", &self.logits)
            .finish_non_exhaustive()
    }
}
