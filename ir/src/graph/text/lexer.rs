//! Tokens.

use std::fmt;

use super::{ParseError, is_word};

/// A place in a text, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// The smallest part of a text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'t> {
    /// A name, mnemonic, number or number format.
    Word(&'t str),
    /// What stands in quotes.
    Text(String),
    /// Any other character.
    Sign(char),
    /// `->`
    Arrow,
    /// Nothing is left.
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(word) => write!(f, "`{word}`"),
            Token::Text(text) => f.write_str(&super::quoted(text)),
            Token::Sign(c) => write!(f, "`{}`", c.escape_debug()),
            Token::Arrow => f.write_str("`->`"),
            Token::End => f.write_str("the end of the text"),
        }
    }
}

/// Cuts a text into tokens.
pub(super) struct Lexer<'t> {
    rest: &'t str,
    at: Position,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Lexer {
            rest: text,
            at: Position { line: 1, column: 1 },
        }
    }

    /// The next token and where it begins.
    pub(super) fn next(&mut self) -> Result<(Token<'t>, Position), ParseError> {
        self.skip_blanks();
        let at = self.at;
        let Some(c) = self.rest.chars().next() else {
            return Ok((Token::End, at));
        };
        let token = if self.rest.starts_with("->") {
            self.take(2);
            Token::Arrow
        } else if is_word(c) {
            let end = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
            // A word ends before an arrow.
            let end = self.rest[..end].len()
                - usize::from(self.rest[..end].ends_with('-') && self.rest[end..].starts_with('>'));
            Token::Word(self.take(end))
        } else if c == '"' {
            self.take(1);
            Token::Text(self.text(at)?)
        } else {
            self.take(c.len_utf8());
            Token::Sign(c)
        };
        Ok((token, at))
    }

    /// The rest of a text in quotes.
    fn text(&mut self, start: Position) -> Result<String, ParseError> {
        let mut text = String::new();
        loop {
            let at = self.at;
            let Some(c) = self.rest.chars().next() else {
                return Err(start.expected("a text that ends with `\"`", "the end of the text"));
            };
            self.take(c.len_utf8());
            match c {
                '"' => return Ok(text),
                '\\' => text.push(self.escape(at)?),
                c => text.push(c),
            }
        }
    }

    /// The character that stands after a `\`.
    fn escape(&mut self, at: Position) -> Result<char, ParseError> {
        let wrong = || at.expected("`\\\\`, `\\\"` or `\\u{…}`", "another escape");
        if self.rest.starts_with(['\\', '"']) {
            return Ok(if self.take(1) == "\\" { '\\' } else { '"' });
        }
        let code = self
            .rest
            .strip_prefix("u{")
            .and_then(|rest| rest.split_once('}'))
            .ok_or_else(wrong)?
            .0;
        let c = u32::from_str_radix(code, 16)
            .ok()
            .and_then(char::from_u32)
            .ok_or_else(wrong)?;
        self.take("u{}".len() + code.len());
        Ok(c)
    }

    fn skip_blanks(&mut self) {
        loop {
            let blanks = self.rest.len() - self.rest.trim_start().len();
            self.take(blanks);
            if !self.rest.starts_with(';') {
                return;
            }
            let comment = self.rest.find('\n').unwrap_or(self.rest.len());
            self.take(comment);
        }
    }

    /// Takes so many bytes off.
    fn take(&mut self, bytes: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        for c in taken.chars() {
            if c == '\n' {
                self.at = Position {
                    line: self.at.line + 1,
                    column: 1,
                };
            } else {
                self.at.column += 1;
            }
        }
        taken
    }
}
