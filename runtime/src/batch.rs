//! Many texts that advance together, so that the weights are read once for all.

pub(crate) mod members;

use crate::exec::{BatchDevice, CpuBatch, SessionError};
use crate::model::{Model, StepError};
use crate::sampler::SamplerOptions;
use crate::state::State;
use crate::workspace::WorkspaceOptions;
pub use members::MemberError;

/// States that advance by one token each, on whatever device. Members join and leave between steps, and prompts of those
/// who are to join are read in chunks between steps, too.
///
/// What becomes of a member does not depend on the others; on a CPU to the last bit while there are no more than 16. More
/// are added up in another order.
///
/// ```no_run
/// # use rwkvc_runtime::Model;
/// use rwkvc_runtime::batch::Prompt;
///
/// let model = Model::open("model.rwkvc".as_ref())?;
/// let mut batch = model.batch(&Default::default())?;
/// batch.join(&model.new_state()?)?;
/// let mut prompt = Prompt::new(model.new_state()?, vec![510, 6, 2]);
/// // Each step of the members waits for no more than a chunk of the prompt.
/// while batch.admit(&mut prompt)?.is_none() {
///     batch.step(&[11])?;
/// }
/// let logits = batch.step(&[2, 11])?;     // one token of each; logits [2, vocab]
/// let first = batch.leave(0)?;            // its state; the last member is number 0 now
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Batch(Box<dyn BatchDevice>);

/// A text that is to join a batch: a state, and the tokens that it has yet to read.
#[derive(Debug)]
pub struct Prompt {
    state: State,
    tokens: Vec<u32>,
    /// How many of the tokens the state has read.
    read: usize,
}

impl Prompt {
    /// Tokens to be read by a state.
    pub fn new(state: State, tokens: Vec<u32>) -> Self {
        Prompt {
            state,
            tokens,
            read: 0,
        }
    }

    /// Tokens that are not read yet.
    pub fn unread(&self) -> &[u32] {
        &self.tokens[self.read..]
    }
}

/// A member whose prompt was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    /// Its number, which is the last.
    pub member: usize,
    /// The logits after its prompt, `[vocab]`.
    pub logits: Vec<f32>,
}

impl Batch {
    /// On the CPU, without members.
    ///
    /// # Errors
    /// If the model was compiled without a batch program, or memory or threads are not to be had.
    pub fn new(model: &Model, options: &WorkspaceOptions) -> Result<Self, SessionError> {
        Ok(Batch::on(CpuBatch::new(model, options)?))
    }

    /// The members of a device.
    pub fn on(device: impl BatchDevice + 'static) -> Self {
        Batch(Box::new(device))
    }

    /// Logits of a token.
    pub fn vocab(&self) -> usize {
        self.0.vocab()
    }

    /// How many members there are.
    pub fn members(&self) -> usize {
        self.0.members()
    }

    /// How many there may be.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Adds a state; its number, which is the last.
    ///
    /// # Errors
    /// As [`BatchDevice::join`].
    pub fn join(&mut self, state: &State) -> Result<usize, SessionError> {
        self.0.join(state)
    }

    /// Reads the next chunk of a prompt. After the last chunk its state joins.
    ///
    /// # Errors
    /// If the batch is full or the prompt has no unread tokens; as [`BatchDevice::prefill`] and [`BatchDevice::join`].
    pub fn admit(&mut self, prompt: &mut Prompt) -> Result<Option<Joined>, SessionError> {
        // First, so that no time goes into a prompt that cannot join.
        if self.members() == self.capacity() {
            return Err(MemberError::Full(self.capacity()).into());
        }
        StepError::check_tokens(&prompt.tokens, self.vocab())?;
        let chunk = self.0.chunk()?.min(prompt.unread().len());
        let tokens = &prompt.tokens[prompt.read..prompt.read + chunk];
        let logits = self.0.prefill(&mut prompt.state, tokens)?;
        prompt.read += chunk;
        if !prompt.unread().is_empty() {
            return Ok(None);
        }
        let logits = logits.to_vec();
        let member = self.0.join(&prompt.state)?;
        Ok(Some(Joined { member, logits }))
    }

    /// Takes a member out; the last one gets its number.
    ///
    /// # Errors
    /// As [`BatchDevice::leave`].
    pub fn leave(&mut self, member: usize) -> Result<State, SessionError> {
        self.0.leave(member)
    }

    /// One token of each member in, in their order; the logits of each out, `[members, vocab]`. Allocates nothing.
    ///
    /// # Errors
    /// As [`BatchDevice::step`].
    pub fn step(&mut self, tokens: &[u32]) -> Result<&[f32], SessionError> {
        self.0.step(tokens)
    }

    /// [`Self::step`], adding the nanoseconds of each launch of the batch program to its place in `times`.
    ///
    /// # Errors
    /// As [`BatchDevice::profile`].
    pub fn profile(&mut self, tokens: &[u32], times: &mut [u64]) -> Result<(), SessionError> {
        self.0.profile(tokens, times)
    }

    /// Begins to choose the tokens of a member where the logits are; whether the device can.
    ///
    /// # Errors
    /// If there is no such member.
    pub fn sample_by(&mut self, member: usize, options: &SamplerOptions) -> Result<bool, SessionError> {
        self.0.sample_by(member, options)
    }

    /// Chooses the next `n` tokens of each member where the logits are, `[n, members]`.
    ///
    /// # Errors
    /// As [`BatchDevice::choose`].
    pub fn choose(&mut self, n: usize) -> Result<Vec<u32>, SessionError> {
        self.0.choose(n)
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("members", &self.members())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}
