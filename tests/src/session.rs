//! The runtime's session, with rows of logits back to back.

use rwkvc_runtime::{Model, State, WorkspaceOptions};

/// One text on one model.
pub struct Session(pub rwkvc_runtime::Session);

impl Session {
    /// A fresh state.
    ///
    /// # Panics
    /// Without memory or threads.
    pub fn new(model: &Model, threads: usize) -> Self {
        let options = WorkspaceOptions { threads, pin: false };
        Session(rwkvc_runtime::Session::new(model, &options).expect("memory and threads"))
    }

    /// A copy of the state.
    ///
    /// # Panics
    /// Without memory.
    pub fn state(&self) -> State {
        self.0.state().expect("memory")
    }

    /// Continues from a state.
    ///
    /// # Panics
    /// If it is of another model.
    pub fn set_state(&mut self, state: &State) {
        self.0.set_state(state).expect("a state of this model");
    }

    /// One token after the other; the logits of each.
    ///
    /// # Panics
    /// If a token is not in the vocabulary or there is no decode program.
    pub fn decode(&mut self, tokens: &[u32]) -> Vec<f32> {
        let mut rows = Vec::with_capacity(tokens.len() * self.0.vocab());
        for &token in tokens {
            rows.extend_from_slice(self.0.step(token).expect("a step"));
        }
        rows
    }

    /// Tokens in chunks; the logits of each.
    ///
    /// # Panics
    /// If a token is not in the vocabulary or there is no score program.
    pub fn score(&mut self, tokens: &[u32]) -> Vec<f32> {
        let mut rows = Vec::with_capacity(tokens.len() * self.0.vocab());
        let mut each = |_: usize, row: &[f32]| rows.extend_from_slice(row);
        self.0.score(tokens, &mut each).expect("a run");
        rows
    }

    /// Tokens in chunks; the logits of the last.
    ///
    /// # Panics
    /// If there is no token, one is not in the vocabulary, or there is no prefill program.
    pub fn prefill(&mut self, tokens: &[u32]) -> Vec<f32> {
        self.0.prefill(tokens).expect("a run").to_vec()
    }
}
