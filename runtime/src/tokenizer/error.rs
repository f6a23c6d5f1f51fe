//! What can be wrong with a vocabulary or with its use.

use std::path::PathBuf;

use thiserror::Error;

use super::vocabulary::{MAX_BYTES, MAX_ID};

/// Why a vocabulary was refused, or what it cannot encode or decode.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The vocabulary file cannot be opened or read, or is not UTF-8.
    #[error("cannot read vocabulary file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// More text than any real vocabulary has.
    #[error("vocabulary has more than {MAX_BYTES} bytes")]
    TooLarge,
    /// No line at all.
    #[error("vocabulary is empty, expected lines of `id literal length`")]
    Empty,
    /// One line is wrong.
    #[error("vocabulary line {line}: {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: LineProblem,
    },
    /// The size of a model says nothing about its tokenizer.
    #[error(
        "no built-in tokenizer fits a model with {rows} vocabulary rows (bytes: 257 to 1024, World: 65530 to 66560); \
         a vocabulary file is needed"
    )]
    NoBuiltIn {
        /// Rows of the model's embedding.
        rows: usize,
    },
    /// The vocabulary of World models is not built in.
    #[error(
        "this program was built without the World vocabulary (feature `world-vocab`); a vocabulary file is needed"
    )]
    WithoutWorld,
    /// A text needs a byte that the vocabulary lacks.
    #[error("no token of the vocabulary fits the text at byte {offset}, which is {byte:#04x}")]
    NotEncodable {
        /// The byte there.
        byte: u8,
        /// Where in the text, in bytes.
        offset: usize,
    },
    /// An id that the vocabulary lacks.
    #[error("token {id} is not in the vocabulary, whose highest id is {highest}")]
    UnknownToken {
        /// The id.
        id: u32,
        /// The highest id that there is.
        highest: u32,
    },
}

/// What is wrong with a line of a vocabulary.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineProblem {
    /// Not three fields.
    #[error("expected `id literal length`, separated by single spaces")]
    Fields,
    /// The first field.
    #[error("the id is not a number from 1 to {MAX_ID} (0 is the end of text)")]
    Id,
    /// The last field.
    #[error("the length is not a number")]
    LengthNumber,
    /// The literal and the last field disagree.
    #[error("the token has {found} bytes, but the line says {stated}")]
    Length {
        /// Bytes of the literal.
        found: usize,
        /// The last field.
        stated: usize,
    },
    /// A token that stands for nothing would never be found.
    #[error("the token has no bytes")]
    EmptyToken,
    /// The same id in an earlier line.
    #[error("id {0} occurs twice")]
    RepeatedId(u32),
    /// The same bytes in an earlier line.
    #[error("the same token has id {0} already")]
    RepeatedToken(u32),
    /// The second field.
    #[error(transparent)]
    Literal(#[from] LiteralError),
}

/// What is wrong with a Python literal.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LiteralError {
    /// No pair of quotes around it.
    #[error("the literal is not of the form '…', \"…\", b'…' or b\"…\"")]
    Quotes,
    /// A quote inside.
    #[error("the literal ends at a quote before its last one")]
    StrayQuote,
    /// `\q`, or `\u0041` in a bytes literal.
    #[error("the literal has the unknown escape `\\{0}`")]
    UnknownEscape(char),
    /// Too few hexadecimal digits.
    #[error("the escape `\\{kind}` needs {digits} hexadecimal digits")]
    Digits {
        /// `x`, `u` or `U`.
        kind: char,
        /// How many it needs.
        digits: usize,
    },
    /// A surrogate or something beyond Unicode.
    #[error("the escape for {0:#x} is no Unicode character")]
    NotACharacter(u32),
    /// An octal escape beyond `\377` in a bytes literal.
    #[error("the escape for {0:#x} is no byte")]
    NotAByte(u32),
    /// Bytes literals are ASCII.
    #[error("a bytes literal has the character `{0}`, which is not ASCII")]
    NotAscii(char),
}
