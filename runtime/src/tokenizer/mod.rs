//! Text to token ids and back.
//!
//! RWKV's tokenizer has no merges and no normalisation: a vocabulary is a set of byte strings, and text is cut by
//! taking the longest one that fits, again and again, from the left.
//!
//! **Invariants:** token 0 ends a text and stands for no bytes; every other id stands for at most one string and no
//! string has two ids, so `decode(encode(x)) == x`.

mod error;
mod literal;
mod trie;
mod vocabulary;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
#[cfg(feature = "world-vocab")]
use std::sync::LazyLock;

pub use error::{LineProblem, LiteralError, TokenizerError};
use vocabulary::Vocabulary;

/// The token that starts and ends a text.
pub const END_OF_TEXT: u32 = 0;

/// The World vocabulary as the Python package `rwkv` ships it (see `NOTICE`).
#[cfg(feature = "world-vocab")]
const WORLD: &str = include_str!("rwkv_vocab_v20230424.txt");

/// The highest id of the World vocabulary.
const WORLD_HIGHEST: usize = 65_529;

/// World models have 65,536 rows; room above that is for fine-tuned models that add tokens of their own.
const WORLD_ROWS: std::ops::RangeInclusive<usize> = WORLD_HIGHEST + 1..=66_560;

/// Byte-level models need 257 rows and may pad them.
const BYTE_ROWS: std::ops::RangeInclusive<usize> = 257..=1024;

/// A vocabulary, ready to encode and decode. Clones share it.
///
/// ```
/// use rwkvc_runtime::tokenizer::Tokenizer;
///
/// let tokenizer = Tokenizer::world();
/// let tokens = tokenizer.encode("Hello world")?;
/// assert_eq!(tokens, [33155, 40213]);
/// assert_eq!(tokenizer.decode(&tokens)?, b"Hello world");
/// # Ok::<(), rwkvc_runtime::tokenizer::TokenizerError>(())
/// ```
#[derive(Clone)]
pub struct Tokenizer {
    vocabulary: Arc<Vocabulary>,
}

impl Tokenizer {
    /// The vocabulary of the World and G1 models: 65,529 tokens, among them every single byte, so that
    /// [`encode`](Self::encode) never fails. The first call parses it, which takes some milliseconds.
    #[cfg(feature = "world-vocab")]
    pub fn world() -> Self {
        static SHARED: LazyLock<Tokenizer> =
            LazyLock::new(|| Tokenizer::parse(WORLD).expect("the vocabulary in this crate is well formed"));
        SHARED.clone()
    }

    /// One token per byte: byte `b` is token `b + 1`, as in the World vocabulary. For models with few rows.
    pub fn bytes() -> Self {
        let vocabulary = Vocabulary::new((0..=u8::MAX).map(|byte| (u32::from(byte) + 1, [byte])));
        Self {
            vocabulary: Arc::new(vocabulary),
        }
    }

    /// The built-in tokenizer for a model with `rows` rows in its embedding: World for 65,530 to 66,560 rows, bytes
    /// for 257 to 1,024.
    ///
    /// # Errors
    /// [`TokenizerError::NoBuiltIn`] for any other size: such a model needs its vocabulary file. So does a World model where
    /// the feature `world-vocab` is off, which [`TokenizerError::WithoutWorld`] says.
    pub fn for_vocab(rows: usize) -> Result<Self, TokenizerError> {
        if WORLD_ROWS.contains(&rows) {
            #[cfg(feature = "world-vocab")]
            return Ok(Self::world());
            #[cfg(not(feature = "world-vocab"))]
            return Err(TokenizerError::WithoutWorld);
        }
        match BYTE_ROWS.contains(&rows) {
            true => Ok(Self::bytes()),
            false => Err(TokenizerError::NoBuiltIn { rows }),
        }
    }

    /// Reads a vocabulary: a line per token with its id (1 to 1,048,575), its text as a Python `str` or `bytes`
    /// literal and its length in bytes, separated by single spaces.
    ///
    /// ```
    /// use rwkvc_runtime::tokenizer::Tokenizer;
    ///
    /// let tokenizer = Tokenizer::parse("1 'a' 1\n2 'b' 1\n3 'ab' 2\n4 b'\\xff' 1\n")?;
    /// assert_eq!(tokenizer.encode("aab")?, [1, 3]);
    /// # Ok::<(), rwkvc_runtime::tokenizer::TokenizerError>(())
    /// ```
    ///
    /// # Errors
    /// If a line has another form or contradicts another line, with its number; if there is no line; if the text
    /// exceeds 8 MiB.
    pub fn parse(text: &str) -> Result<Self, TokenizerError> {
        Ok(Self {
            vocabulary: Arc::new(vocabulary::parse(text)?),
        })
    }

    /// Reads a vocabulary file; see [`parse`](Self::parse).
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and if the file cannot be read or is not UTF-8.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        Self::parse(&vocabulary::read(path.as_ref())?)
    }

    /// Token ids of `text`.
    ///
    /// # Errors
    /// [`TokenizerError::NotEncodable`] if the vocabulary lacks a single byte that is needed; both built-in
    /// vocabularies have all 256.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode_bytes(text.as_bytes())
    }

    /// Token ids of any bytes, UTF-8 or not.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_bytes(&self, bytes: &[u8]) -> Result<Vec<u32>, TokenizerError> {
        let mut tokens = Vec::with_capacity(bytes.len() / 3);
        let mut offset = 0;
        while let Some(&byte) = bytes.get(offset) {
            let (id, length) = self
                .vocabulary
                .longest_prefix(&bytes[offset..])
                .ok_or(TokenizerError::NotEncodable { byte, offset })?;
            tokens.push(id);
            offset += length;
        }
        Ok(tokens)
    }

    /// The tokens of a prompt for a fresh state: it starts with [`END_OF_TEXT`], as texts did in training.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn prompt(&self, bytes: &[u8]) -> Result<Vec<u32>, TokenizerError> {
        let mut tokens = self.encode_bytes(bytes)?;
        tokens.insert(0, END_OF_TEXT);
        Ok(tokens)
    }

    /// The bytes that `tokens` stand for. Token 0 stands for none.
    ///
    /// Text cut at a token need not be valid UTF-8; [`Decoder`](crate::text::Decoder) puts the pieces together.
    ///
    /// # Errors
    /// [`TokenizerError::UnknownToken`] for an id that has no entry.
    pub fn decode(&self, tokens: &[u32]) -> Result<Vec<u8>, TokenizerError> {
        let mut bytes = Vec::with_capacity(tokens.len() * 4);
        for &id in tokens {
            let token = self.token(id).ok_or(TokenizerError::UnknownToken {
                id,
                highest: self.highest_id(),
            })?;
            bytes.extend_from_slice(token);
        }
        Ok(bytes)
    }

    /// The bytes of one token: none for token 0, [`None`] for an id that has no entry.
    pub fn token(&self, id: u32) -> Option<&[u8]> {
        if id == END_OF_TEXT {
            Some(&[])
        } else {
            self.vocabulary.token(id)
        }
    }

    /// The highest id in the vocabulary. A model fits if it has more rows than this.
    pub fn highest_id(&self) -> u32 {
        self.vocabulary.highest_id()
    }

    /// The number of tokens, token 0 not counted.
    pub fn n_tokens(&self) -> usize {
        self.vocabulary.n_tokens()
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("n_tokens", &self.n_tokens())
            .field("highest_id", &self.highest_id())
            .finish()
    }
}
