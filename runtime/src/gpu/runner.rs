//! The buffers of one session, and running programs on them.

use super::driver::{
    Address, DeviceBuffer, Driver, Event, Function, Graph, HostMemory, KernelLaunch, Owned, Resource,
};
use super::error::GpuError;
use super::model::{GpuModel, Mode, check_memory};
use super::sampling::Chooser;
use crate::exec::SessionError;
use crate::model::StepError;
use rwkvc_abi::SampleOptions;
use rwkvc_abi::kernel::{WALK, WalkRow};
use rwkvc_abi::{Arg, Launch, Manifest, Program, ProgramKind, Size};
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes from which on a weight is asked for before its launch.
const LARGE_WEIGHT: u64 = 64 << 10;

/// Memory on the device and the programs that are run on it.
pub(super) struct Runner {
    // First, so that recorded launches go before the memory they use.
    programs: Vec<Prepared>,
    /// The program that chooses tokens, if the code has one.
    sampler: Option<Prepared>,
    /// What it needs besides the logits.
    chooser: Chooser,
    /// Whether the device has chosen tokens that the states have not read.
    is_ahead: bool,
    mode: Mode,
    walker: Option<Walker>,
    state: DeviceBuffer,
    arena: DeviceBuffer,
    tokens: DeviceBuffer,
    logits: DeviceBuffer,
    /// Logits that were copied here.
    copied: Box<dyn HostMemory>,
    /// How many rows of logits were copied since the last call.
    rows: usize,
    /// Marks around launches that are timed: as many as were ever needed.
    marks: Vec<(Event, Owned)>,
    /// The call that came last: a program of `programs`, and its tokens.
    last: Option<(usize, usize)>,
    model: GpuModel,
}

/// A program with the addresses of its buffers.
struct Prepared {
    /// Its index in the manifest.
    index: usize,
    tasks: Vec<Task>,
    /// The parameters of all tasks, back to back: addresses, and the number of tokens as the last of each.
    args: Vec<u64>,
    /// Recorded launches, by number of tokens and whether the next ones are chosen at the end.
    graphs: HashMap<(usize, bool), (Graph, Owned)>,
    /// What [`rwkvc_abi::kernel::WALK`] walks, by number of tokens.
    tables: HashMap<usize, DeviceBuffer>,
}

struct Task {
    kernel: usize,
    function: Function,
    threads: u32,
    grid: Size,
    /// The largest weight that it reads all of: where it starts, and its bytes.
    weight: (Address, u64),
    /// Its part of [`Prepared::args`].
    args: std::ops::Range<usize>,
}

/// The persistent megakernel.
struct Walker {
    function: Function,
    grid: u32,
    threads: u32,
    /// Words of a row of a table.
    words: usize,
    counter: DeviceBuffer,
}

impl Runner {
    /// For those programs of a model that `wanted` names. The state is whatever the memory has.
    pub(super) fn new(
        model: &GpuModel,
        mode: Mode,
        wanted: impl Fn(ProgramKind) -> bool,
    ) -> Result<Self, GpuError> {
        let manifest = model.manifest();
        let driver = model.driver();
        let chosen = || {
            manifest
                .programs
                .iter()
                .enumerate()
                .filter(|(_, p)| wanted(p.kind))
        };
        let most = |bytes: &dyn Fn(&Program) -> u64| chosen().map(|(_, p)| bytes(p)).max().unwrap_or(0);
        let state = most(&|p| manifest.state_bytes(p));
        let tokens = most(&|p| p.max_tokens as u64 * 4);
        let logits = most(&|p| manifest.logits_bytes(p));
        let total = [state, manifest.arena_bytes, tokens, logits]
            .into_iter()
            .try_fold(0u64, u64::checked_add);
        check_memory(&**driver, "the session", total.unwrap_or(u64::MAX))?;
        let batch = chosen().find(|(_, p)| p.kind == ProgramKind::Batch);
        let states = batch.map_or(1, |(_, p)| p.max_tokens);
        let mut runner = Runner {
            programs: vec![],
            sampler: None,
            chooser: Chooser::new(driver, states)?,
            is_ahead: false,
            mode,
            walker: match mode {
                Mode::Persistent => Some(Walker::new(model)?),
                Mode::Launches | Mode::Graph => None,
            },
            state: DeviceBuffer::new(driver, state)?,
            arena: DeviceBuffer::new(driver, manifest.arena_bytes)?,
            tokens: DeviceBuffer::new(driver, tokens)?,
            logits: DeviceBuffer::new(driver, logits)?,
            copied: driver.host_memory(logits)?,
            rows: 0,
            marks: vec![],
            last: None,
            model: model.clone(),
        };
        runner.programs = chosen().map(|(index, p)| runner.prepare(index, p)).collect();
        let mut all = manifest.programs.iter().enumerate();
        let sampler = all.find(|(_, p)| p.kind == ProgramKind::Sample);
        runner.sampler = sampler.map(|(index, p)| runner.prepare(index, p));
        Ok(runner)
    }

    fn prepare(&self, index: usize, program: &Program) -> Prepared {
        let mut prepared = Prepared {
            index,
            tasks: vec![],
            args: vec![],
            graphs: HashMap::new(),
            tables: HashMap::new(),
        };
        for launch in &program.launches {
            let kernel = &self.model.manifest().kernels[launch.kernel];
            let start = prepared.args.len();
            prepared
                .args
                .extend(launch.args.iter().map(|arg| self.address(*arg).0));
            // The number of tokens.
            prepared.args.push(0);
            prepared.tasks.push(Task {
                kernel: launch.kernel,
                function: self.model.function(launch.kernel),
                threads: kernel.threads,
                grid: kernel.grid,
                weight: self.largest_weight(launch),
                args: start..prepared.args.len(),
            });
        }
        prepared
    }

    fn largest_weight(&self, launch: &Launch) -> (Address, u64) {
        let weights = launch.args.iter().filter_map(|arg| match *arg {
            Arg::Weight(index) => Some((
                self.model.weight(index),
                self.model.manifest().weights[index].bytes,
            )),
            _ => None,
        });
        let whole = weights.filter(|(_, bytes)| *bytes <= launch.weight_bytes && !launch.skips_zeros);
        whole.max_by_key(|(_, bytes)| *bytes).unwrap_or((Address(0), 0))
    }

    fn address(&self, arg: Arg) -> Address {
        match arg {
            Arg::Weight(index) => self.model.weight(index),
            Arg::State(offset) => self.state.address().offset(offset),
            Arg::Arena(offset) => self.arena.address().offset(offset),
            Arg::Tokens => self.tokens.address(),
            Arg::Logits => self.logits.address(),
            Arg::Sampler => self.chooser.options(),
            Arg::Counts => self.chooser.counts(),
        }
    }

    pub(super) fn model(&self) -> &GpuModel {
        &self.model
    }

    pub(super) fn driver(&self) -> &dyn Driver {
        &**self.model.driver()
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn state(&self) -> Address {
        self.state.address()
    }

    /// Checks a call; returns the program's position here and the most tokens it takes at once.
    pub(super) fn check(&self, kind: ProgramKind, tokens: &[u32]) -> Result<(usize, usize), StepError> {
        let position = self.position(kind).ok_or(StepError::Program(kind))?;
        StepError::check_tokens(tokens, self.model.vocab())?;
        Ok((position, self.program(position).max_tokens))
    }

    fn position(&self, kind: ProgramKind) -> Option<usize> {
        (0..self.programs.len()).find(|&position| self.program(position).kind == kind)
    }

    /// Checks that there is a place for the time of each launch of a program.
    pub(super) fn check_times(&self, program: usize, times: Option<&[u64]>) -> Result<(), StepError> {
        let expected = self.programs[program].tasks.len();
        match times.map(<[u64]>::len) {
            Some(found) if found != expected => Err(StepError::Times { found, expected }),
            _ => Ok(()),
        }
    }

    /// Runs a program on tokens that were checked; with `times`, adds the nanoseconds that each launch took.
    pub(super) fn run(
        &mut self,
        program: usize,
        tokens: &[u32],
        times: Option<&mut [u64]>,
    ) -> Result<(), GpuError> {
        self.forget();
        self.driver()
            .upload(self.tokens.address(), bytemuck::cast_slice(tokens))?;
        let count = tokens.len();
        match times {
            Some(times) => {
                self.programs[program].set_tokens(count);
                self.launch_timed(program, count, times)?;
            }
            None => self.start(program, count, false)?,
        }
        self.last = Some((program, count));
        Ok(())
    }

    /// Runs a program on the tokens that are on the device; with `choose`, the next ones are then in their place.
    fn start(&mut self, program: usize, count: usize, choose: bool) -> Result<(), GpuError> {
        self.rows = 0;
        self.programs[program].set_tokens(count);
        match self.mode {
            Mode::Graph if self.comes_again(program, count) => {
                return self.replay(program, count, choose);
            }
            Mode::Persistent if self.program(program).kind == ProgramKind::Decode => {
                self.walk(program, count)?;
            }
            _ => self.launch(&self.programs[program], count)?,
        }
        match &self.sampler {
            Some(sampler) if choose => self.launch(sampler, count),
            _ => Ok(()),
        }
    }

    /// Chooses `n` tokens for each state, after the call that came last; the states read all of them but the last. Those
    /// chosen at the same time are together.
    pub(super) fn generate(&mut self, n: usize) -> Result<Vec<u32>, SessionError> {
        let (last, tokens) = self.last.ok_or(StepError::NoTokens)?;
        let (step, states) = match self.program(last).kind {
            ProgramKind::Batch => (Some(last), tokens),
            ProgramKind::Decode | ProgramKind::Prefill => (self.position(ProgramKind::Decode), 1),
            // Where the logits of the last token are, those of the first are expected.
            ProgramKind::Score | ProgramKind::Sample => return Err(StepError::NoTokens.into()),
        };
        let step = step.ok_or(StepError::Program(ProgramKind::Decode))?;
        let Some(sampler) = &mut self.sampler else {
            return Err(StepError::Program(ProgramKind::Sample).into());
        };
        sampler.set_tokens(states);
        let driver = Arc::clone(self.model.driver());
        self.chooser.ready(&*driver)?;
        let reads = n > 1 || (n == 1 && self.is_ahead);
        // If anything fails on the way, nothing is known of the states.
        self.last = None;
        let mut chosen = vec![];
        let mut left = n;
        while left > 0 {
            let now = left.min(self.chooser.room());
            for i in 0..now {
                if self.is_ahead {
                    self.start(step, states, true)?;
                } else if let Some(sampler) = &self.sampler {
                    self.launch(sampler, states)?;
                }
                self.is_ahead = true;
                self.chooser.keep(&*driver, self.tokens.address(), i)?;
            }
            self.chooser.read(&*driver, now, &mut chosen)?;
            left -= now;
        }
        self.last = Some(if reads { (step, states) } else { (last, tokens) });
        Ok(chosen)
    }

    /// How tokens of states are chosen.
    pub(super) fn chooser(&mut self) -> &mut Chooser {
        &mut self.chooser
    }

    /// Begins to choose the tokens of a state in this way.
    pub(super) fn set_sampling(&mut self, state: usize, sampling: SampleOptions) {
        self.chooser.set(state, sampling);
    }

    /// Whether calls with this many tokens are many: not so the rest of a prompt.
    fn comes_again(&self, program: usize, tokens: usize) -> bool {
        let program = self.program(program);
        program.kind == ProgramKind::Batch || tokens == program.max_tokens
    }

    fn program(&self, position: usize) -> &Program {
        &self.model.manifest().programs[self.programs[position].index]
    }

    fn launch(&self, program: &Prepared, tokens: usize) -> Result<(), GpuError> {
        for launch in program.launches(tokens) {
            // SAFETY: `Manifest::check` has compared every buffer with what its kernel declares to touch for up to
            // `max_tokens` tokens, and that nothing written overlaps; blocks of a grid are independent by the contract
            // of kernels. The memory belongs to this value or, weights that are only read, to the model; it is released
            // through the driver, after the stream is through.
            unsafe { self.driver().launch(&launch)? };
        }
        Ok(())
    }

    fn launch_timed(&mut self, program: usize, tokens: usize, times: &mut [u64]) -> Result<(), GpuError> {
        let driver = Arc::clone(self.model.driver());
        while self.marks.len() <= times.len() {
            let event = driver.event()?;
            self.marks
                .push((event, Owned::new(&driver, Resource::Event(event))));
        }
        // A launch of an empty grid is none, and takes no time.
        let prepared = &self.programs[program];
        driver.mark(self.marks[0].0)?;
        for (task, (mark, _)) in prepared.tasks.iter().zip(&self.marks[1..]) {
            if let Some(launch) = prepared.task_launch(task, tokens) {
                // SAFETY: as in `launch`.
                unsafe { driver.launch(&launch)? };
            }
            driver.mark(*mark)?;
        }
        for (time, marks) in times.iter_mut().zip(self.marks.windows(2)) {
            *time += driver.elapsed(marks[0].0, marks[1].0)?;
        }
        Ok(())
    }

    fn replay(&mut self, program: usize, tokens: usize, choose: bool) -> Result<(), GpuError> {
        let driver = Arc::clone(self.model.driver());
        let prepared = &mut self.programs[program];
        if let Some((graph, _)) = prepared.graphs.get(&(tokens, choose)) {
            return driver.replay(*graph);
        }
        let sampler = self.sampler.iter().filter(|_| choose);
        let choosing = sampler.flat_map(|sampler| sampler.launches(tokens));
        let launches: Vec<_> = prepared.launches(tokens).chain(choosing).collect();
        // SAFETY: as in `launch`; graphs are released before the memory.
        let graph = unsafe { driver.record(&launches)? };
        let owned = Owned::new(&driver, Resource::Graph(graph));
        prepared.graphs.insert((tokens, choose), (graph, owned));
        driver.replay(graph)
    }

    fn walk(&mut self, program: usize, tokens: usize) -> Result<(), GpuError> {
        let driver = Arc::clone(self.model.driver());
        let Some(walker) = &self.walker else {
            return Err(GpuError::Persistent(
                "the runner was made for another mode".into(),
            ));
        };
        let prepared = &mut self.programs[program];
        let launches = prepared.tasks.len() as u64;
        if !prepared.tables.contains_key(&tokens) {
            let rows = prepared.table(tokens, walker.words, driver.info().l2_bytes / 4);
            let bytes: &[u8] = bytemuck::cast_slice(&rows);
            let table = DeviceBuffer::new(&driver, bytes.len() as u64)?;
            driver.upload(table.address(), bytes)?;
            prepared.tables.insert(tokens, table);
        }
        let table = prepared.tables[&tokens].address();
        driver.zero(walker.counter.address(), walker.counter.bytes())?;
        let args = [table.0, launches, walker.counter.address().0, tokens as u64];
        let launch = KernelLaunch {
            function: walker.function,
            grid: walker.grid,
            threads: walker.threads,
            args: &args,
            cooperative: true,
        };
        // SAFETY: the kernels and buffers of the table are those of `launch`; the table is as long as `launches` says.
        unsafe { driver.launch(&launch) }
    }

    /// The logits of the call that came last, copied from the device if they were not yet.
    pub(super) fn logits(&mut self) -> Result<&[f32], SessionError> {
        let (program, tokens) = self.last.ok_or(StepError::NoTokens)?;
        let all = self.program(program).kind.has_all_logits();
        let (rows, vocab) = (if all { tokens } else { 1 }, self.model.vocab());
        let bytes = &mut self.copied.bytes_mut()[..rows * vocab * 4];
        if self.rows < rows {
            let driver = self.model.driver();
            driver.download(self.logits.address(), bytes)?;
            self.rows = rows;
        }
        Ok(bytemuck::cast_slice(&self.copied.bytes()[..rows * vocab * 4]))
    }

    /// The extra results of the call that came last (of its last chunk): names and values, copied from the device.
    pub(super) fn probes(&self) -> Result<Vec<(&str, Vec<f32>)>, GpuError> {
        let Some((program, tokens)) = self.last else {
            return Ok(vec![]);
        };
        let probes = self.program(program).probes.iter();
        probes
            .filter_map(|probe| {
                // The manifest's check: within the arena.
                let mut values = vec![0f32; usize::try_from(probe.elements.at(tokens)?).ok()?];
                let at = self.arena.address().offset(probe.offset);
                let bytes = bytemuck::cast_slice_mut(&mut values);
                let copied = match bytes.is_empty() {
                    true => Ok(()),
                    false => self.driver().download(at, bytes),
                };
                Some(copied.map(|()| (probe.name.as_str(), values)))
            })
            .collect()
    }

    /// Forgets the call that came last: its logits are not those of the state any more.
    pub(super) fn forget(&mut self) {
        self.last = None;
        self.rows = 0;
        self.is_ahead = false;
    }
}

impl Prepared {
    fn set_tokens(&mut self, tokens: usize) {
        for task in &self.tasks {
            self.args[task.args.end - 1] = tokens as u64;
        }
    }

    /// The launches for some tokens, but those of empty grids.
    fn launches(&self, tokens: usize) -> impl Iterator<Item = KernelLaunch<'_>> {
        self.tasks
            .iter()
            .filter_map(move |task| self.task_launch(task, tokens))
    }

    fn task_launch(&self, task: &Task, tokens: usize) -> Option<KernelLaunch<'_>> {
        Some(KernelLaunch {
            function: task.function,
            grid: task.blocks(tokens).filter(|grid| *grid > 0)?,
            threads: task.threads,
            args: &self.args[task.args.clone()],
            cooperative: false,
        })
    }

    /// What the persistent megakernel walks: rows of `words` words. A large weight is asked for, as far as `ahead` bytes, when
    /// the large one before it has been read: the memory has nothing to do during the small launches between the two.
    fn table(&self, tokens: usize, words: usize, ahead: u64) -> Vec<u64> {
        let mut table = vec![0; self.tasks.len() * words];
        let mut next = (Address(0), 0);
        for (task, row) in self.tasks.iter().zip(table.chunks_mut(words)).rev() {
            let buffers = &self.args[task.args.start..task.args.end - 1];
            let mut head = WalkRow {
                kernel: task.kernel as u64,
                grid: task.blocks(tokens).unwrap_or(0).into(),
                ..WalkRow::default()
            };
            if task.weight.1 >= LARGE_WEIGHT {
                (head.prefetch, head.prefetch_bytes) = (next.0.0, next.1.min(ahead));
                next = task.weight;
            }
            row[..WalkRow::WORDS].copy_from_slice(&head.words());
            row[WalkRow::WORDS..][..buffers.len()].copy_from_slice(buffers);
        }
        table
    }
}

impl Task {
    /// Always there: the manifest's check bounds it.
    fn blocks(&self, tokens: usize) -> Option<u32> {
        u32::try_from(self.grid.at(tokens)?).ok()
    }
}

impl Walker {
    fn new(model: &GpuModel) -> Result<Self, GpuError> {
        let fail = |reason: String| Err(GpuError::Persistent(reason));
        let Some(function) = model.walk() else {
            return fail(format!("the code has no kernel `{}`", WALK));
        };
        let threads = common_threads(model.manifest()).map_err(GpuError::Persistent)?;
        let driver = model.driver();
        let info = driver.info();
        let blocks = driver.occupancy(function, threads)?;
        let Some(grid @ 1..) = blocks.checked_mul(info.multiprocessors) else {
            let name = &info.name;
            return fail(format!(
                "no block of {threads} threads fits a multiprocessor of `{name}`"
            ));
        };
        let params = model.manifest().kernels.iter().map(|k| k.params.len());
        Ok(Walker {
            function,
            grid,
            threads,
            words: WalkRow::WORDS + params.max().unwrap_or(0),
            counter: DeviceBuffer::new(driver, 4)?,
        })
    }
}

/// The threads of every block of a step of one token.
fn common_threads(manifest: &Manifest) -> Result<u32, String> {
    let step = manifest.program(ProgramKind::Decode).into_iter();
    let kernels: Vec<_> = step
        .flat_map(|p| &p.launches)
        .map(|l| &manifest.kernels[l.kernel])
        .collect();
    let Some(first) = kernels.first() else {
        return Err("there is no decode program".into());
    };
    for kernel in &kernels {
        if kernel.threads != first.threads {
            return Err(format!(
                "`{}` has blocks of {} threads, `{}` of {}",
                first.symbol, first.threads, kernel.symbol, kernel.threads
            ));
        }
        let buffers = kernel.params.iter().map(|p| p.bytes);
        if buffers.chain([kernel.grid]).any(|size| size.per_token != 0) {
            return Err(format!("`{}` depends on the number of tokens", kernel.symbol));
        }
    }
    Ok(first.threads)
}
