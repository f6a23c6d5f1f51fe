//! Measuring the real model: each choice compiled, all of them with the same weights in memory.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rwkvc_abi::ProgramKind;
use rwkvc_backend_api::Tuning;
use rwkvc_ir::graph::{Graph, Verified};
use rwkvc_passes::plan::{Plan, Source, Weight};
use rwkvc_passes::storage::Layout;
use rwkvc_runtime::{Model, Session, WeightData, WorkspaceOptions};

use super::Choice;
use super::search::Bench;
use crate::compile::{Options, graph, lower, plan_graphs};
use crate::weights::weights;

/// Calls are repeated for about so long in a sample.
const SAMPLE: Duration = Duration::from_millis(50);

/// The most calls of a sample.
const MOST_CALLS: usize = 200;

/// A model with the memory to run it.
struct Running {
    model: Model,
    /// By the number of threads.
    sessions: HashMap<usize, Session>,
}

impl Running {
    fn new(model: Model) -> Result<Self> {
        Ok(Running {
            sessions: HashMap::new(),
            model,
        })
    }

    /// Makes sure that there are so many threads; whether they are new.
    fn prepare(&mut self, threads: usize) -> Result<bool> {
        let Entry::Vacant(place) = self.sessions.entry(threads) else {
            return Ok(false);
        };
        let options = WorkspaceOptions {
            threads,
            ..WorkspaceOptions::default()
        };
        place.insert(Session::new(&self.model, &options)?);
        Ok(true)
    }

    /// One call with these tokens.
    fn call(&mut self, threads: usize, tokens: &[u32]) -> Result<()> {
        let session = self.sessions.get_mut(&threads);
        let session = session.context("no threads were prepared")?;
        match tokens {
            [token] => session.step(*token)?,
            tokens => session.prefill(tokens)?,
        };
        Ok(())
    }
}

/// Measures calls: how often each is repeated, and with which tokens.
struct Clock {
    start: Instant,
    vocab: usize,
    /// Calls of a sample, by tokens of a call.
    calls: HashMap<usize, usize>,
    /// Counts tokens.
    next: usize,
}

impl Clock {
    fn new(vocab: usize) -> Self {
        Clock {
            start: Instant::now(),
            vocab,
            calls: HashMap::new(),
            next: 0,
        }
    }

    fn tokens(&mut self, n: usize) -> Vec<u32> {
        let tokens = (self.next..self.next + n).map(|i| (i * 7919 % self.vocab) as u32);
        self.next += n;
        tokens.collect()
    }

    /// The seconds of a call, the median of a sample.
    fn sample(&mut self, running: &mut Running, threads: usize, tokens: usize) -> Result<f64> {
        let is_new = running.prepare(threads)?;
        if is_new || !self.calls.contains_key(&tokens) {
            // Once without being measured, so that no sample pays for the first touch of memory.
            let warm = self.tokens(tokens);
            running.call(threads, &warm)?;
        }
        let calls = match self.calls.get(&tokens) {
            Some(&calls) => calls,
            None => {
                let start = Instant::now();
                let text = self.tokens(tokens);
                running.call(threads, &text)?;
                let each = start.elapsed().max(Duration::from_nanos(1));
                let calls = (SAMPLE.as_nanos() / each.as_nanos()) as usize;
                let calls = calls.clamp(1, MOST_CALLS);
                self.calls.insert(tokens, calls);
                calls
            }
        };
        let mut times = vec![];
        for _ in 0..calls {
            let text = self.tokens(tokens);
            let start = Instant::now();
            running.call(threads, &text)?;
            times.push(start.elapsed().as_secs_f64());
        }
        // Not the mean: a call during which something else ran tells nothing.
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }
}

/// A model that was compiled into a file: only threads can be chosen.
pub struct Compiled {
    clock: Clock,
    running: Running,
}

impl Compiled {
    /// Of a model that is loaded.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(model: Model) -> Result<Self> {
        model.use_huge_pages();
        Ok(Compiled {
            clock: Clock::new(model.vocab()),
            running: Running::new(model)?,
        })
    }
}

impl Bench for Compiled {
    fn elapsed(&self) -> Duration {
        self.clock.start.elapsed()
    }

    fn differs(&mut self, a: &Choice, b: &Choice, _: usize) -> Result<bool> {
        Ok(a.threads != b.threads)
    }

    fn sample(&mut self, choice: &Choice, tokens: usize) -> Result<f64> {
        self.clock.sample(&mut self.running, choice.threads, tokens)
    }
}

/// A checkpoint, compiled for each choice anew.
pub struct Checkpoint<'l, 'o> {
    clock: Clock,
    model: Arc<rwkvc_frontend::model::Model>,
    options: &'l mut Options<'o>,
    /// What all choices have in common, by program.
    graphs: Vec<(ProgramKind, Verified<Graph>)>,
    /// By schedule and program.
    running: Vec<(Key, Running)>,
    /// What tells the code of programs apart.
    codes: Vec<(Key, u64)>,
    /// The plan that was made last.
    planned: Option<(Key, Plan)>,
    shared: Shared,
    /// Whether the checkpoint is in huge pages.
    is_moved: bool,
}

/// A program as a schedule makes it.
type Key = (Option<Tuning>, ProgramKind);

impl<'l, 'o> Checkpoint<'l, 'o> {
    /// Of a model, to be compiled with these options.
    pub fn new(model: Arc<rwkvc_frontend::model::Model>, options: &'l mut Options<'o>) -> Self {
        Checkpoint {
            clock: Clock::new(model.config().vocab),
            model,
            options,
            graphs: vec![],
            running: vec![],
            codes: vec![],
            planned: None,
            shared: Shared::default(),
            is_moved: false,
        }
    }

    /// What tells the code of a program apart from others.
    fn code(&mut self, key: Key) -> Result<u64> {
        if let Some((_, code)) = self.codes.iter().find(|(known, _)| *known == key) {
            return Ok(*code);
        }
        let plan = self.plan(key)?;
        let code = code(&plan);
        self.codes.push((key, code));
        self.planned = Some((key, plan));
        Ok(code)
    }

    fn plan(&mut self, key: Key) -> Result<Plan> {
        // What the plan is for, also to those that use it next.
        let (tuning, kind) = key;
        self.options.programs = vec![kind];
        self.options.tuning = tuning;
        if let Some((_, plan)) = self.planned.take_if(|(known, _)| *known == key) {
            return Ok(plan);
        }
        if !self.graphs.iter().any(|(known, _)| *known == kind) {
            let graph = graph(&self.model, kind, self.options)?;
            self.graphs.push((kind, graph));
        }
        let known = self.graphs.iter().find(|(known, _)| *known == kind);
        let (_, graph) = known.context("there is no graph")?;
        plan_graphs(&self.model, std::slice::from_ref(graph), self.options)
    }

    /// The place of a program that runs.
    fn running(&mut self, key: Key) -> Result<usize> {
        if let Some(place) = self.running.iter().position(|(known, _)| *known == key) {
            return Ok(place);
        }
        let plan = self.plan(key)?;
        let mut compiled = lower(&self.model, plan, self.options)?;
        let weights = self.shared.weights(&self.model, &mut compiled.plan)?;
        let model = Model::from_parts(compiled.manifest, compiled.module.bytes(), weights)?;
        // As in any run. All models have the same mapping of the checkpoint, which is moved once.
        if !self.is_moved {
            model.use_huge_pages();
            self.is_moved = true;
        }
        self.running.push((key, Running::new(model)?));
        Ok(self.running.len() - 1)
    }
}

/// The program that a call of so many tokens runs.
fn program(tokens: usize) -> ProgramKind {
    match tokens {
        1 => ProgramKind::Decode,
        _ => ProgramKind::Prefill,
    }
}

impl Bench for Checkpoint<'_, '_> {
    fn elapsed(&self) -> Duration {
        self.clock.start.elapsed()
    }

    fn differs(&mut self, a: &Choice, b: &Choice, tokens: usize) -> Result<bool> {
        if a.threads != b.threads {
            return Ok(true);
        }
        let kind = program(tokens);
        Ok(self.code((a.tuning, kind))? != self.code((b.tuning, kind))?)
    }

    fn sample(&mut self, choice: &Choice, tokens: usize) -> Result<f64> {
        let place = self.running((choice.tuning, program(tokens)))?;
        let (_, running) = &mut self.running[place];
        self.clock.sample(running, choice.threads, tokens)
    }

    fn keep(&mut self, choices: &[Choice]) {
        let tunings: Vec<_> = choices.iter().map(|c| c.tuning).collect();
        self.running.retain(|((tuning, _), _)| tunings.contains(tuning));
    }
}

/// Tells plans apart that are different code.
fn code(plan: &Plan) -> u64 {
    let mut hasher = DefaultHasher::new();
    for kernel in &plan.kernels {
        kernel.to_string().hash(&mut hasher);
    }
    for weight in &plan.weights {
        (&weight.name, &weight.shape, format!("{:?}", weight.layout)).hash(&mut hasher);
    }
    format!("{:?}", plan.programs).hash(&mut hasher);
    hasher.finish()
}

/// Weights that some model in memory has already.
#[derive(Default)]
struct Shared(HashMap<String, Weak<Held>>);

/// A weight that several models share.
struct Held(WeightData);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes().unwrap_or_default()
    }
}

impl Shared {
    /// The weights of a plan, whose own list is empty afterwards: those that are there, and the others computed.
    fn weights(
        &mut self,
        model: &Arc<rwkvc_frontend::model::Model>,
        plan: &mut Plan,
    ) -> Result<Vec<WeightData>> {
        self.0.retain(|_, weight| weight.strong_count() > 0);
        let mut all: Vec<Option<WeightData>> = vec![];
        let mut missing = Plan {
            kernels: vec![],
            weights: vec![],
            state: vec![],
            arena_bytes: 0,
            programs: vec![],
        };
        // Where each weight that is missing is in the plan, and in the list of those.
        let mut places: Vec<usize> = vec![];
        let mut numbers: HashMap<usize, usize> = HashMap::new();
        let mut keys = vec![];
        for (place, mut weight) in std::mem::take(&mut plan.weights).into_iter().enumerate() {
            // What it is made of, and how it is arranged: parts of a quantised matrix come after its codes, and with them.
            let source = match &weight.source {
                Source::Stored(name) => name.clone(),
                Source::Computed(graph) => graph.to_string(),
            };
            let key = format!("{} {:?} {:?} {source}", weight.dtype, weight.shape, weight.layout);
            let there = self.0.get(&key).and_then(Weak::upgrade);
            keys.push(key);
            let follows_missing = weight.codes.is_some_and(|codes| numbers.contains_key(&codes));
            if let Some(held) = there.filter(|_| !follows_missing) {
                all.push(Some(share(held)));
                continue;
            }
            weight.codes = weight.codes.and_then(|codes| numbers.get(&codes).copied());
            numbers.insert(place, places.len());
            places.push(place);
            missing.weights.push(weight);
            all.push(None);
        }
        let is_mapped: Vec<bool> = missing.weights.iter().map(|w| is_mapped(model, w)).collect();
        let computed = weights(model, &missing)?.into_iter().zip(is_mapped);
        for (place, (data, is_mapped)) in places.into_iter().zip(computed) {
            all[place] = Some(match is_mapped {
                true => data,
                false => {
                    let held = Arc::new(Held(data));
                    self.0.insert(keys[place].clone(), Arc::downgrade(&held));
                    share(held)
                }
            });
        }
        let there: Option<Vec<WeightData>> = all.into_iter().collect();
        there.context("a weight is missing")
    }
}

/// Whether a weight is used where the checkpoint is mapped, which costs nothing to do again.
fn is_mapped(model: &rwkvc_frontend::model::Model, weight: &Weight) -> bool {
    match &weight.source {
        Source::Stored(name) if weight.layout == Layout::RowMajor => {
            model.weight(name).is_some_and(|w| w.is_mapped)
        }
        _ => false,
    }
}

fn share(held: Arc<Held>) -> WeightData {
    let len = (*held).as_ref().len();
    // SAFETY: the bytes of a `WeightData` stay where they are, unchanged, as long as it lives, and it lives as long as the
    // `Arc`.
    unsafe { WeightData::shared(held, 0..len) }
}

#[cfg(test)]
mod tests;
