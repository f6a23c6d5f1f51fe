//! A model ready to run: compiled, or interpreted by the reference evaluator.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rwkvc_abi::ProgramKind;
use rwkvc_frontend::build::{Logits, build, initial_state};
use rwkvc_frontend::model::{Model, ModelError};
use rwkvc_ir::graph::eval::{Bindings, Tensor, eval};
use rwkvc_ir::graph::{Graph, Verified, verify};
use rwkvc_passes::narrow_activations::Activations;
use rwkvc_passes::pipeline::{self, Fuel, Selection};
use rwkvc_passes::quantize::Formats;
use rwkvc_runtime::gpu::{Driver, GpuModel, GpuSession, Mode};
use rwkvc_runtime::sampler::SamplerOptions;
use rwkvc_runtime::{Artifact, State, Workspace, WorkspaceOptions};

use crate::compile::{Options, compile};
use crate::weights::weights;

/// Runs a model over tokens, carrying its state along.
pub trait Engine {
    /// Rows of the vocabulary.
    fn vocab(&self) -> usize;

    /// One token in, the logits of the next one out.
    fn step(&mut self, token: u32) -> Result<&[f32]>;

    /// Tokens in, the logits after the last one out. There is at least one.
    fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32]>;

    /// Tokens in; `each` gets the logits after every one.
    fn score(&mut self, tokens: &[u32], each: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()>;

    /// Begins to choose tokens where the logits are, as these options say; whether [`Self::generate`] can.
    fn choose_by(&mut self, _: &SamplerOptions) -> bool {
        false
    }

    /// The next `n` tokens, the first one after the call that came last. The state reads all but the last one of them,
    /// which the next call of this reads first; a token that is given is read in place of it.
    fn generate(&mut self, _: usize) -> Result<Vec<u32>> {
        bail!("this engine chooses no tokens")
    }

    /// Continues from a saved state.
    fn load_state(&mut self, path: &Path) -> Result<()>;

    /// Saves the state.
    fn save_state(&self, path: &Path) -> Result<()>;
}

/// Opens a checkpoint of any format.
pub fn open_checkpoint(path: &Path) -> Result<Arc<Model>> {
    if !path.is_dir() && is_artifact(path)? {
        bail!(
            "`{}` is compiled already; this needs the checkpoint that it was compiled from",
            path.display()
        );
    }
    Model::open(path).map(Arc::new).map_err(|error| match error {
        // The reader names the file itself.
        ModelError::Checkpoint(error) => error.into(),
        error => anyhow::Error::new(error).context(format!("`{}`", path.display())),
    })
}

/// Whether a file is an artifact.
pub fn is_artifact(path: &Path) -> Result<bool> {
    use std::io::Read;
    if path.is_dir() {
        return Ok(false);
    }
    let file = std::fs::File::open(path).with_context(|| format!("opening `{}`", path.display()))?;
    let mut start = vec![];
    file.take(16)
        .read_to_end(&mut start)
        .with_context(|| format!("reading `{}`", path.display()))?;
    Ok(Artifact::is_artifact(&start))
}

/// Moves the weights of a model into huge pages, in a thread of its own: the first tokens need not wait for it.
pub fn use_huge_pages(model: &rwkvc_runtime::Model) {
    let model = model.clone();
    let moving = std::thread::Builder::new().name("huge pages".into());
    // Without a thread the weights stay where they are, which is slower and nothing else.
    let _ = moving.spawn(move || model.use_huge_pages());
}

/// Compiles a checkpoint in memory and loads the code.
pub fn load(model: &Arc<Model>, options: &mut Options<'_>) -> Result<rwkvc_runtime::Model> {
    let compiled = compile(model, options)?;
    let weights = weights(model, &compiled.plan)?;
    Ok(rwkvc_runtime::Model::from_parts(
        compiled.manifest,
        compiled.module.bytes(),
        weights,
    )?)
}

/// Compiles a checkpoint in memory and loads the code on a GPU.
pub fn load_on_gpu(
    model: &Arc<Model>,
    options: &mut Options<'_>,
    driver: Arc<dyn Driver>,
) -> Result<GpuModel> {
    let compiled = compile(model, options)?;
    let weights = weights(model, &compiled.plan)?;
    Ok(GpuModel::from_parts(
        compiled.manifest,
        compiled.module.bytes(),
        weights,
        driver,
    )?)
}

/// Compiled code with a workspace and a state.
pub struct Compiled {
    model: rwkvc_runtime::Model,
    workspace: Workspace,
    state: State,
}

impl Compiled {
    /// A fresh state.
    pub fn new(model: rwkvc_runtime::Model, options: &WorkspaceOptions) -> Result<Self> {
        let workspace = model.workspace(options)?;
        let state = model.new_state()?;
        Ok(Compiled {
            model,
            workspace,
            state,
        })
    }
}

impl Engine for Compiled {
    fn vocab(&self) -> usize {
        self.model.vocab()
    }

    fn step(&mut self, token: u32) -> Result<&[f32]> {
        Ok(self.model.step(&mut self.workspace, &mut self.state, token)?)
    }

    fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        Ok(self.model.prefill(&mut self.workspace, &mut self.state, tokens)?)
    }

    fn score(&mut self, tokens: &[u32], each: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> {
        let mut result = Ok(());
        self.model
            .score(&mut self.workspace, &mut self.state, tokens, &mut |_, logits| {
                if result.is_ok() {
                    result = each(logits);
                }
            })?;
        result
    }

    fn load_state(&mut self, path: &Path) -> Result<()> {
        self.state = State::load(&self.model, path)
            .with_context(|| format!("loading the state `{}`", path.display()))?;
        Ok(())
    }

    fn save_state(&self, path: &Path) -> Result<()> {
        self.state
            .save(path)
            .with_context(|| format!("saving the state `{}`", path.display()))
    }
}

/// Compiled code on a GPU, with a state there.
pub struct Gpu {
    session: GpuSession,
}

impl Gpu {
    /// A fresh state on the device of a model.
    pub fn new(model: &GpuModel, mode: Mode) -> Result<Self> {
        let session = model.session(mode)?;
        Ok(Gpu { session })
    }
}

impl Engine for Gpu {
    fn vocab(&self) -> usize {
        self.session.model().vocab()
    }

    fn step(&mut self, token: u32) -> Result<&[f32]> {
        Ok(self.session.step(token)?)
    }

    fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        Ok(self.session.prefill(tokens)?)
    }

    fn score(&mut self, tokens: &[u32], each: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> {
        let mut result = Ok(());
        self.session.score(tokens, &mut |_, logits| {
            if result.is_ok() {
                result = each(logits);
            }
        })?;
        result
    }

    fn choose_by(&mut self, options: &SamplerOptions) -> bool {
        match options.on_device() {
            Some(sampling) if self.session.model().has(ProgramKind::Sample) => {
                self.session.set_sampling(sampling);
                true
            }
            _ => false,
        }
    }

    fn generate(&mut self, n: usize) -> Result<Vec<u32>> {
        Ok(self.session.generate(n)?)
    }

    fn load_state(&mut self, path: &Path) -> Result<()> {
        let loaded = self.session.load_state(path);
        loaded.with_context(|| format!("loading the state `{}`", path.display()))
    }

    fn save_state(&self, path: &Path) -> Result<()> {
        let state = self.session.state()?;
        state
            .save(path)
            .with_context(|| format!("saving the state `{}`", path.display()))
    }
}

/// The state before any token, for the evaluator: every input of the graph but the tokens, with its tuned value if the
/// model has one, else zeros.
pub fn fresh_state(model: &Model, graph: &Graph) -> Result<Vec<(String, Tensor<f64>)>> {
    let mut state = vec![];
    for (name, ty) in graph.inputs() {
        let shape: Option<Vec<usize>> = ty.shape.iter().map(|d| d.as_fixed()).collect();
        if let (Some(shape), true) = (shape, name != "tokens") {
            let value = match initial_state(model, &name)? {
                Some((_, tuned)) => eval::<f64>(&tuned, &Bindings::new(model))?.remove(0).1,
                None => Tensor::zeros(shape),
            };
            state.push((name, value));
        }
    }
    Ok(state)
}

/// Most tokens of one evaluation.
const REFERENCE_CHUNK: usize = 64;

/// The reference evaluator in f64: slow, and right.
pub struct Reference {
    model: Arc<Model>,
    graph: Verified<Graph>,
    /// Inputs besides the tokens, and their values.
    state: Vec<(String, Tensor<f64>)>,
    logits: Vec<f32>,
}

impl Reference {
    /// A fresh state, for the equations as they are, or with matrices and activations in other formats. Activations are
    /// rounded for one token as for many.
    pub fn new(model: Arc<Model>, formats: &Formats, activations: Activations) -> Result<Self> {
        let graph = build(&model, Logits::All, false)?.specialise(Some(1), None);
        let graph = match formats.are_stored() && activations == Activations::F32 {
            true => verify(graph)?,
            // Which activations are quantised or rounded depends on what the passes make of the graph.
            false => {
                let passes = Selection::all()
                    .with_formats(formats.clone())
                    .with_activations(activations);
                pipeline::run(graph, &passes, &mut Fuel::new(None), &mut |_, _| {})?
            }
        };
        let state = fresh_state(&model, &graph)?;
        Ok(Reference {
            model,
            graph,
            state,
            logits: vec![],
        })
    }

    /// Advances the state; the logits of every token, row after row.
    fn run(&mut self, tokens: &[u32]) -> Result<Vec<f64>> {
        let vocab = self.vocab();
        if let Some(token) = tokens.iter().find(|&&t| t as usize >= vocab) {
            bail!("token {token} is not in the vocabulary of {vocab}");
        }
        let mut bindings = Bindings::new(&*self.model);
        bindings = bindings.with("tokens", Tensor::tokens([1, tokens.len()], tokens));
        for (name, value) in &self.state {
            bindings = bindings.with(name.clone(), value.clone());
        }
        let mut logits = vec![];
        for (name, value) in eval(&self.graph, &bindings)? {
            if name == "logits" {
                logits = value.into_values();
            } else if let Some((_, slot)) = self.state.iter_mut().find(|(n, _)| *n == name) {
                *slot = value;
            }
        }
        Ok(logits)
    }
}

impl Engine for Reference {
    fn vocab(&self) -> usize {
        self.model.config().vocab
    }

    fn step(&mut self, token: u32) -> Result<&[f32]> {
        self.prefill(&[token])
    }

    fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        let mut last = vec![];
        for chunk in tokens.chunks(REFERENCE_CHUNK) {
            last = self.run(chunk)?;
        }
        let vocab = self.vocab();
        self.logits = last[last.len() - vocab..].iter().map(|&x| x as f32).collect();
        Ok(&self.logits)
    }

    fn score(&mut self, tokens: &[u32], each: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> {
        for chunk in tokens.chunks(REFERENCE_CHUNK) {
            let rows: Vec<f32> = self.run(chunk)?.iter().map(|&x| x as f32).collect();
            for row in rows.chunks_exact(self.vocab()) {
                each(row)?;
            }
        }
        Ok(())
    }

    fn load_state(&mut self, _: &Path) -> Result<()> {
        bail!("the evaluator keeps its state in f64 and cannot load state files; use another --backend")
    }

    fn save_state(&self, _: &Path) -> Result<()> {
        bail!("the evaluator keeps its state in f64 and cannot save state files; use another --backend")
    }
}
