//! The text form of graphs.
//!
//! ```text
//! func @step(%x: f32[B,T,4], %prev: f32[B,4]) -> (y: %0, prev: %1) {
//!   %mix = param "mix" : bf16[4]
//!   %0, %1 = shift_mix %x, %prev, %mix : f32[B,T,4], f32[B,4] @"blocks.0.ffn"
//! }
//! ```
//!
//! A statement is `results = mnemonic operands {attributes} : types @"label"`; attributes and label are left out if there
//! are none, and an op without operands has its attribute bare. `;` starts a comment. Names other than words of
//! `A-Z a-z 0-9 _ . + -` are in quotes.
//!
//! The printer walks from the outputs, calls weights by their names and numbers other values, so text does not depend on
//! the history of a graph, and `print(parse(text)) == text` for printed text.

mod lexer;
mod parse;
mod print;

#[cfg(test)]
mod tests;

use super::{Dim, GraphError};

pub(crate) use lexer::Position;
pub use parse::parse;
pub(crate) use print::attributes;

/// Why a text is not a graph.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{line}:{column}: {problem}")]
pub struct ParseError {
    /// The line, counted from 1.
    pub line: usize,
    /// The character of the line, counted from 1.
    pub column: usize,
    /// What is the matter there.
    pub problem: Problem,
}

/// What is the matter with a text.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Problem {
    /// Something else should stand there.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What may stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// It reads well but makes no valid graph.
    #[error("{0}")]
    Graph(GraphError),
}

impl Position {
    /// An error at this place.
    pub(crate) fn expected(self, expected: impl Into<String>, found: impl Into<String>) -> ParseError {
        self.problem(Problem::Expected {
            expected: expected.into(),
            found: found.into(),
        })
    }

    fn problem(self, problem: Problem) -> ParseError {
        ParseError {
            line: self.line,
            column: self.column,
            problem,
        }
    }
}

/// Whether a character may stand in a name without quotes.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-')
}

/// A name as it is written.
fn name(name: &str) -> String {
    if name.is_empty() || name.contains("->") || !name.chars().all(is_word) {
        quoted(name)
    } else {
        name.into()
    }
}

/// A text in quotes.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_control() => quoted.extend(c.escape_unicode()),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The axis that a word stands for.
pub(crate) fn dim(word: &str) -> Option<Dim> {
    match word {
        "B" => Some(Dim::Batch),
        "T" => Some(Dim::Time),
        _ => word.parse().ok().map(Dim::Fixed),
    }
}
