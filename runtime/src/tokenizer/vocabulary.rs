//! The set of tokens, and the file it comes from.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::{LineProblem, TokenizerError};
use super::literal;
use super::trie::Trie;

/// No token has a higher id; bounds the table of a file that names one huge id.
pub(super) const MAX_ID: u32 = (1 << 20) - 1;

/// No vocabulary file is longer. The World vocabulary has 1.2 MB.
pub(super) const MAX_BYTES: usize = 8 << 20;

/// Tokens by id and by bytes.
pub(super) struct Vocabulary {
    /// All tokens back to back.
    bytes: Vec<u8>,
    /// Start and length of each id's bytes; length 0 where the id has no entry.
    spans: Vec<(u32, u32)>,
    n_tokens: usize,
    trie: Trie,
}

impl Vocabulary {
    fn empty(n_tokens: usize) -> Self {
        Self {
            bytes: Vec::new(),
            spans: Vec::new(),
            n_tokens: 0,
            trie: Trie::with_capacity(n_tokens),
        }
    }

    /// A vocabulary of distinct tokens with distinct ids.
    pub(super) fn new(tokens: impl ExactSizeIterator<Item = (u32, impl AsRef<[u8]>)>) -> Self {
        let mut vocabulary = Self::empty(tokens.len());
        for (id, token) in tokens {
            let start = vocabulary.bytes.len();
            vocabulary.bytes.extend_from_slice(token.as_ref());
            vocabulary.add(id, start).expect("tokens and ids are distinct");
        }
        vocabulary
    }

    /// Makes `bytes[start..]`, which must not be empty, the token `id`.
    fn add(&mut self, id: u32, start: usize) -> Result<(), LineProblem> {
        let index = id as usize;
        if index >= self.spans.len() {
            self.spans.resize(index + 1, (0, 0));
        }
        if self.spans[index].1 != 0 {
            return Err(LineProblem::RepeatedId(id));
        }
        let token = &self.bytes[start..];
        if let Some(earlier) = self.trie.insert(token, id) {
            return Err(LineProblem::RepeatedToken(earlier));
        }
        self.spans[index] = (start as u32, token.len() as u32);
        self.n_tokens += 1;
        Ok(())
    }

    /// Adds the token of one line.
    fn add_line(&mut self, line: &str) -> Result<(), LineProblem> {
        let (id, rest) = line.split_once(' ').ok_or(LineProblem::Fields)?;
        let (token, length) = rest.rsplit_once(' ').ok_or(LineProblem::Fields)?;
        let id = number(id)
            .filter(|id| (1..=MAX_ID as usize).contains(id))
            .ok_or(LineProblem::Id)? as u32;
        let stated = number(length).ok_or(LineProblem::LengthNumber)?;
        let start = self.bytes.len();
        literal::parse(token, &mut self.bytes)?;
        let found = self.bytes.len() - start;
        if found != stated {
            return Err(LineProblem::Length { found, stated });
        }
        if found == 0 {
            return Err(LineProblem::EmptyToken);
        }
        self.add(id, start)
    }

    pub(super) fn token(&self, id: u32) -> Option<&[u8]> {
        let &(start, length) = self.spans.get(id as usize).filter(|(_, length)| *length != 0)?;
        Some(&self.bytes[start as usize..][..length as usize])
    }

    pub(super) fn longest_prefix(&self, bytes: &[u8]) -> Option<(u32, usize)> {
        self.trie.longest_prefix(bytes)
    }

    pub(super) fn highest_id(&self) -> u32 {
        self.spans.len().saturating_sub(1) as u32
    }

    pub(super) fn n_tokens(&self) -> usize {
        self.n_tokens
    }
}

/// Decimal digits and nothing else: `str::parse` alone would let a sign pass.
fn number(text: &str) -> Option<usize> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

pub(super) fn parse(text: &str) -> Result<Vocabulary, TokenizerError> {
    if text.len() > MAX_BYTES {
        return Err(TokenizerError::TooLarge);
    }
    // Lines have some 18 bytes; the tables grow where they are shorter.
    let mut vocabulary = Vocabulary::empty(text.len() / 18);
    for (index, line) in text.lines().enumerate() {
        vocabulary
            .add_line(line)
            .map_err(|problem| TokenizerError::Line {
                line: index + 1,
                problem,
            })?;
    }
    if vocabulary.n_tokens == 0 {
        return Err(TokenizerError::Empty);
    }
    Ok(vocabulary)
}

pub(super) fn read(path: &Path) -> Result<String, TokenizerError> {
    let failed = |source| TokenizerError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() > MAX_BYTES {
        return Err(TokenizerError::TooLarge);
    }
    String::from_utf8(bytes).map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
}
