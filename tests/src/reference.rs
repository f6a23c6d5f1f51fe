//! What the f64 evaluator says.

use rwkvc_frontend::build::{Logits, build};
use rwkvc_frontend::model::Model;
use rwkvc_ir::graph::eval::{Bindings, Tensor, eval};

/// The logits of every token, and the state after the last, under the names of the graph.
pub struct Expected {
    /// Row after row.
    pub logits: Vec<f64>,
    /// The parts of the state.
    pub state: Vec<(String, Vec<f64>)>,
}

/// Evaluates the graph as it was built, before any pass, from a fresh state.
///
/// # Panics
/// If there is no token, or one is not in the vocabulary.
pub fn evaluate(model: &Model, tokens: &[u32]) -> Expected {
    let graph = build(model, Logits::All, false)
        .expect("a graph")
        .specialise(Some(1), Some(tokens.len()));
    let mut bindings = Bindings::<f64>::new(model).with("tokens", Tensor::tokens([1, tokens.len()], tokens));
    for (name, value) in rwkvc::reference::fresh_state(model, &graph).expect("a state") {
        bindings = bindings.with(name, value);
    }
    let outputs = eval(&graph, &bindings).expect("the graph evaluates");
    let (logits, state): (Vec<_>, Vec<_>) = outputs
        .into_iter()
        .map(|(name, value)| (name, value.into_values()))
        .partition(|(name, _)| name == "logits");
    Expected {
        logits: logits.into_iter().next().expect("logits").1,
        state,
    }
}
