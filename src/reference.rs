//! The reference evaluator as a device: slow, and right.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use rwkvc_frontend::build::{Logits, build, initial_state};
use rwkvc_frontend::model::Model;
use rwkvc_ir::graph::eval::{Bindings, Tensor, eval};
use rwkvc_ir::graph::{Graph, Verified, verify};
use rwkvc_passes::fuel::Fuel;
use rwkvc_passes::pipeline::{self, Selection};
use rwkvc_passes::settings::Settings;
use rwkvc_runtime::State;
use rwkvc_runtime::exec::{Device, SessionError};
use rwkvc_runtime::model::StepError;

/// The state before any token, for the evaluator: every input of the graph but the tokens, with its tuned value if the
/// model has one, else zeros.
///
/// # Errors
/// If the tuned state of a model cannot be evaluated.
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
    /// A fresh state, for the equations as the settings of passes change them. Activations are
    /// rounded for one token as for many.
    ///
    /// # Errors
    /// If the equations do not fit the model, or a pass fails.
    pub fn new(model: Arc<Model>, settings: &Settings) -> Result<Self> {
        let graph = build(&model, Logits::All, false)?.specialise(Some(1), None);
        let graph = match settings.are_default() {
            true => verify(graph)?,
            // Which activations are quantised or rounded depends on what the passes make of the graph.
            false => {
                let passes = Selection::all().with_settings(settings.clone());
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

impl Device for Reference {
    fn vocab(&self) -> usize {
        self.model.config().vocab
    }

    fn step(&mut self, token: u32) -> Result<&[f32], SessionError> {
        self.prefill(&[token])
    }

    fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32], SessionError> {
        if tokens.is_empty() {
            return Err(StepError::NoTokens.into());
        }
        let mut last = vec![];
        for chunk in tokens.chunks(REFERENCE_CHUNK) {
            last = self.run(chunk).map_err(other)?;
        }
        let vocab = self.vocab();
        self.logits = last[last.len() - vocab..].iter().map(|&x| x as f32).collect();
        Ok(&self.logits)
    }

    fn score(&mut self, tokens: &[u32], each: &mut dyn FnMut(usize, &[f32])) -> Result<(), SessionError> {
        for (i, chunk) in tokens.chunks(REFERENCE_CHUNK).enumerate() {
            let rows = self.run(chunk).map_err(other)?;
            let rows: Vec<f32> = rows.iter().map(|&x| x as f32).collect();
            for (j, row) in rows.chunks_exact(self.vocab()).enumerate() {
                each(i * REFERENCE_CHUNK + j, row);
            }
        }
        Ok(())
    }

    fn reset(&mut self) -> Result<(), SessionError> {
        self.state = fresh_state(&self.model, &self.graph).map_err(other)?;
        Ok(())
    }

    fn state(&self) -> Result<State, SessionError> {
        Err(SessionError::Unsupported(F64_STATES))
    }

    fn set_state(&mut self, _: &State) -> Result<(), SessionError> {
        Err(SessionError::Unsupported(F64_STATES))
    }

    fn read_state(&self, _: &Path) -> Result<State, SessionError> {
        Err(SessionError::Unsupported(F64_STATES))
    }
}

/// Why the evaluator has no states for others.
const F64_STATES: &str =
    "the evaluator keeps its state in f64, and neither loads nor saves state files; use another --backend";

fn other(error: anyhow::Error) -> SessionError {
    SessionError::Other(error.into())
}
