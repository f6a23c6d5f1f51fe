//! The loop from a prompt to text: the only one there is.

use std::collections::VecDeque;

use crate::exec::SessionError;
use crate::sampler::{OptionsError, SampleError, Sampler, SamplerOptions};
use crate::session::Session;
use crate::text::{EmptyStop, TextStream};
use crate::tokenizer::{END_OF_TEXT, Tokenizer};

/// Tokens that a device chooses before this machine looks at them: text that comes in pieces of a few words.
const AHEAD: usize = 16;

/// How to generate.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// How tokens are chosen.
    pub sampling: SamplerOptions,
    /// Capacity of the text, in tokens.
    pub max_tokens: usize,
    /// Strings at which the text ends; they are not part of it.
    pub stops: Vec<String>,
    /// Whether the state is to have read every token of the text and none beyond it, after the last one.
    pub exact_state: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        GenerateOptions {
            sampling: SamplerOptions::default(),
            max_tokens: 256,
            stops: vec![],
            exact_state: true,
        }
    }
}

/// Why no more text comes.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The session failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The sampling options make no sense.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// No token can be chosen.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// A stop string is empty.
    #[error(transparent)]
    Stop(#[from] EmptyStop),
    /// The device chose fewer tokens than it was asked for.
    #[error("the device chose no token")]
    NoToken,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it.
    EndOfText,
    /// A stop string came.
    Stop,
    /// It has as many tokens as were asked for.
    MaxTokens,
}

impl Finish {
    /// `end_of_text`, `stop` or `max_tokens`.
    pub fn name(self) -> &'static str {
        match self {
            Finish::EndOfText => "end_of_text",
            Finish::Stop => "stop",
            Finish::MaxTokens => "max_tokens",
        }
    }
}

/// What a token adds to the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The token; none in the piece that ends the text.
    pub token: Option<u32>,
    /// Complete characters, ready to be shown; often empty. Without a vocabulary there are none.
    pub text: String,
}

/// Pieces of text as they come, each computed when it is asked for. After the last one, [`Generator::finish`] says why it was
/// the last.
///
/// ```no_run
/// use rwkvc_runtime::generate::{GenerateOptions, Generator};
/// use rwkvc_runtime::tokenizer::Tokenizer;
/// use rwkvc_runtime::{Model, Session};
///
/// let model = Model::open("model.rwkvc".as_ref())?;
/// let tokenizer = Tokenizer::bytes();
/// let mut session = Session::new(&model, &Default::default())?;
/// let prompt = tokenizer.prompt(b"Once upon a time")?;
/// for piece in Generator::new(&mut session, Some(tokenizer), &prompt, GenerateOptions::default())? {
///     print!("{}", piece?.text);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Generator<'s> {
    session: &'s mut Session,
    chooser: Chooser,
    stream: Option<TextStream>,
    /// Tokens that may still come.
    left: usize,
    next: u32,
    phase: Phase,
}

/// How far a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Tokens come.
    Running,
    /// The last token came; what the stream kept back is next.
    Ending(Finish),
    /// All came.
    Ended(Finish),
    /// An error came.
    Failed,
}

/// What chooses the tokens of a text: this machine from logits, or the device where the logits are.
enum Chooser {
    Here(Box<Sampler>),
    OnDevice {
        /// How many tokens it may choose at a time.
        ahead: usize,
        /// Those that it has chosen.
        ready: VecDeque<u32>,
    },
}

impl<'s> Generator<'s> {
    /// Reads a prompt, which has at least one token. Without a tokenizer there are tokens, but no text and no stop strings.
    ///
    /// # Errors
    /// If the options make no sense, a stop string is empty, or the session cannot read the prompt.
    pub fn new(
        session: &'s mut Session,
        tokenizer: Option<Tokenizer>,
        prompt: &[u32],
        options: GenerateOptions,
    ) -> Result<Self, GenerateError> {
        let stream = tokenizer.map(|t| TextStream::new(t, options.stops)).transpose()?;
        let mut chooser = if session.sample_by(&options.sampling) {
            Chooser::OnDevice {
                ahead: if options.exact_state { 1 } else { AHEAD },
                ready: VecDeque::new(),
            }
        } else {
            Chooser::Here(Box::new(Sampler::new(options.sampling, session.vocab())?))
        };
        let left = options.max_tokens;
        let logits = session.prefill(prompt)?;
        let next = match &mut chooser {
            Chooser::Here(sampler) => sampler.sample(logits)?,
            Chooser::OnDevice { ahead, ready } => choose(session, left.clamp(1, *ahead), ready)?,
        };
        Ok(Generator {
            session,
            chooser,
            stream,
            left,
            next,
            phase: match left {
                0 => Phase::Ending(Finish::MaxTokens),
                _ => Phase::Running,
            },
        })
    }

    /// Why the text ended; nothing while more may come.
    pub fn finish(&self) -> Option<Finish> {
        match self.phase {
            Phase::Ending(finish) | Phase::Ended(finish) => Some(finish),
            Phase::Running | Phase::Failed => None,
        }
    }

    /// The piece of the next token, which is known.
    fn advance(&mut self) -> Result<Piece, GenerateError> {
        let token = self.next;
        if token == END_OF_TEXT {
            self.phase = Phase::Ending(Finish::EndOfText);
            return Ok(self.rest());
        }
        self.left -= 1;
        let mut piece = Piece {
            token: Some(token),
            text: String::new(),
        };
        let mut is_stopped = false;
        if let Some(stream) = &mut self.stream {
            let added = stream.push(token);
            piece.text.push_str(added.text);
            is_stopped = added.stop.is_some();
        }
        if is_stopped || self.left == 0 {
            // The state after a text has read every token of it.
            self.session.step(token)?;
            self.phase = Phase::Ending(if is_stopped {
                Finish::Stop
            } else {
                Finish::MaxTokens
            });
        } else {
            self.next = match &mut self.chooser {
                Chooser::Here(sampler) => sampler.sample(self.session.step(token)?)?,
                Chooser::OnDevice { ahead, ready } => {
                    choose(self.session, self.left.clamp(1, *ahead), ready)?
                }
            };
        }
        Ok(piece)
    }

    /// What the stream kept back.
    fn rest(&mut self) -> Piece {
        if let Phase::Ending(finish) = self.phase {
            self.phase = Phase::Ended(finish);
        }
        let text = self.stream.as_mut().map(|stream| stream.finish().text.to_owned());
        Piece {
            token: None,
            text: text.unwrap_or_default(),
        }
    }
}

impl Iterator for Generator<'_> {
    type Item = Result<Piece, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.phase {
            Phase::Running => {
                let piece = self.advance();
                if piece.is_err() {
                    self.phase = Phase::Failed;
                }
                Some(piece)
            }
            Phase::Ending(_) => Some(Ok(self.rest())),
            Phase::Ended(_) | Phase::Failed => None,
        }
    }
}

/// The next of the tokens that are ready; if there are none, the device chooses up to `ahead`.
fn choose(session: &mut Session, ahead: usize, ready: &mut VecDeque<u32>) -> Result<u32, GenerateError> {
    if ready.is_empty() {
        ready.extend(session.choose(ahead)?);
    }
    ready.pop_front().ok_or(GenerateError::NoToken)
}
