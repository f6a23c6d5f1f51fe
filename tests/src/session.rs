//! Loaded code with a workspace and a state.

use rwkvc_runtime::{Model, State, Workspace, WorkspaceOptions};

/// One text on one model. Rows of logits come back to back.
pub struct Session {
    /// The code.
    pub model: Model,
    /// What it remembers.
    pub state: State,
    /// Its scratch memory and threads.
    pub workspace: Workspace,
}

impl Session {
    /// A fresh state.
    ///
    /// # Panics
    /// Without memory or threads.
    pub fn new(model: &Model, threads: usize) -> Self {
        let workspace = model
            .workspace(&WorkspaceOptions { threads, pin: false })
            .expect("memory and threads");
        Session {
            model: model.clone(),
            state: model.new_state().expect("memory"),
            workspace,
        }
    }

    /// One token after the other; the logits of each.
    ///
    /// # Panics
    /// If a token is not in the vocabulary or there is no decode program.
    pub fn decode(&mut self, tokens: &[u32]) -> Vec<f32> {
        let mut rows = Vec::with_capacity(tokens.len() * self.model.vocab());
        for &token in tokens {
            rows.extend_from_slice(
                self.model
                    .step(&mut self.workspace, &mut self.state, token)
                    .expect("a step"),
            );
        }
        rows
    }

    /// Tokens in chunks; the logits of each.
    ///
    /// # Panics
    /// If a token is not in the vocabulary or there is no score program.
    pub fn score(&mut self, tokens: &[u32]) -> Vec<f32> {
        let mut rows = Vec::with_capacity(tokens.len() * self.model.vocab());
        self.model
            .score(&mut self.workspace, &mut self.state, tokens, &mut |_, row| {
                rows.extend_from_slice(row)
            })
            .expect("a run");
        rows
    }

    /// Tokens in chunks; the logits of the last.
    ///
    /// # Panics
    /// If there is no token, one is not in the vocabulary, or there is no prefill program.
    pub fn prefill(&mut self, tokens: &[u32]) -> Vec<f32> {
        self.model
            .prefill(&mut self.workspace, &mut self.state, tokens)
            .expect("a run")
            .to_vec()
    }
}
