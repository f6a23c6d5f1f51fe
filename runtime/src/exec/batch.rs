//! What advances many states at once: a [`BatchDevice`], the CPU or a GPU.

use super::SessionError;
use crate::sampler::SamplerOptions;
use crate::state::State;

/// Advances many states of one model, its members. They are numbered from 0 on.
///
/// A method that fails before it has done anything leaves the members as they were.
pub trait BatchDevice {
    /// Rows of the vocabulary: logits of a token.
    fn vocab(&self) -> usize;

    /// How many members there are.
    fn members(&self) -> usize;

    /// How many there may be.
    fn capacity(&self) -> usize;

    /// Adds a state; its number, which is the last.
    ///
    /// # Errors
    /// If the batch is full, the state is of another model, or the device fails.
    fn join(&mut self, state: &State) -> Result<usize, SessionError>;

    /// Takes a member out; the last one gets its number.
    ///
    /// # Errors
    /// If there is no such member, there is no memory for its state, or the device fails.
    fn leave(&mut self, member: usize) -> Result<State, SessionError>;

    /// One token of each member in, in their order; the logits of each out, `[members, vocab]`.
    ///
    /// # Errors
    /// If there is not one token for each member, the model does not know one, or the device fails.
    fn step(&mut self, tokens: &[u32]) -> Result<&[f32], SessionError>;

    /// Tokens of a prompt that [`prefill`](Self::prefill) reads at once.
    ///
    /// # Errors
    /// If the model has no prefill program.
    fn chunk(&self) -> Result<usize, SessionError>;

    /// Advances a state that is no member by tokens of its prompt; the logits after the last one, `[vocab]`.
    ///
    /// # Errors
    /// If there are no tokens, the model does not know one or has no prefill program, the state is of another model, or the
    /// device fails. The state is then as it was.
    fn prefill(&mut self, state: &mut State, tokens: &[u32]) -> Result<&[f32], SessionError>;

    /// Begins to choose the tokens of a member where the logits are, as these options say; whether the device can.
    ///
    /// # Errors
    /// If there is no such member.
    fn sample_by(&mut self, member: usize, options: &SamplerOptions) -> Result<bool, SessionError>;

    /// Chooses the next `n` tokens of each member where the logits are, `[n, members]`, the first ones from those of the step
    /// that came last. Members read all but the last of them, which the next call of this reads first; tokens that are given
    /// to [`step`](Self::step) are read in place of them.
    ///
    /// # Errors
    /// If the device cannot, no step came since a member joined or left, or the device fails.
    fn choose(&mut self, n: usize) -> Result<Vec<u32>, SessionError>;

    /// [`step`](Self::step), adding the nanoseconds of each launch to its place in `times`.
    ///
    /// # Errors
    /// As `step`, and if there is not one place for each launch.
    fn profile(&mut self, tokens: &[u32], times: &mut [u64]) -> Result<(), SessionError>;
}
