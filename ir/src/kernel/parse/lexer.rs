//! Tokens of the text form.

use std::fmt::{self, Display, Formatter};

/// A place in the text, counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// A token. Words and names borrow from the text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'t> {
    /// A word, with dots inside: `load.8`, `T`.
    Word(&'t str),
    /// A name with its sigil: `%x`, `$sum`, `@tmp`.
    Name(char, &'t str),
    /// A number without sign: `64`, `1.5e-3`, `0x7fc00001`.
    Number(&'t str),
    /// A sign.
    Sign(char),
    /// `..`
    Range,
    End,
}

impl Display for Token<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(text) | Token::Number(text) => write!(f, "`{}`", Short(text)),
            Token::Name(sigil, text) => write!(f, "`{sigil}{}`", Short(text)),
            Token::Sign(c) => write!(f, "`{}`", c.escape_debug()),
            Token::Range => f.write_str("`..`"),
            Token::End => f.write_str("the end of the text"),
        }
    }
}

/// A text, cut if it is long.
struct Short<'t>(&'t str);

impl Display for Short<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const MOST: usize = 40;
        match self.0.char_indices().nth(MOST) {
            None => f.write_str(self.0),
            Some((cut, _)) => write!(f, "{}…", &self.0[..cut]),
        }
    }
}

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

    /// Takes the first `len` bytes, which end at a character.
    fn take(&mut self, len: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(len);
        for c in taken.chars() {
            if c == '\n' {
                self.at.line = self.at.line.saturating_add(1);
                self.at.column = 1;
            } else {
                self.at.column = self.at.column.saturating_add(1);
            }
        }
        self.rest = rest;
        taken
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest.trim_start();
            self.take(self.rest.len() - rest.len());
            if !self.rest.starts_with(';') {
                return;
            }
            self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
        }
    }

    /// The next token and where it starts.
    pub(super) fn next(&mut self) -> (Token<'t>, Position) {
        self.skip_blanks();
        let at = self.at;
        let Some(first) = self.rest.chars().next() else {
            return (Token::End, at);
        };
        let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let token = match first {
            '%' | '$' | '@' => {
                self.take(1);
                let len = self.rest.find(|c| !is_letter(c)).unwrap_or(self.rest.len());
                if len == 0 {
                    Token::Sign(first)
                } else {
                    Token::Name(first, self.take(len))
                }
            }
            c if c.is_ascii_digit() => Token::Number(self.take(number_len(self.rest))),
            c if is_letter(c) => Token::Word(self.take(word_len(self.rest))),
            '.' if self.rest.starts_with("..") => {
                self.take(2);
                Token::Range
            }
            c => {
                self.take(c.len_utf8());
                Token::Sign(c)
            }
        };
        (token, at)
    }
}

/// Length of a word: dots belong to it if a letter or digit follows.
fn word_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let is_letter = |i: usize| {
        bytes
            .get(i)
            .is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_')
    };
    (0..bytes.len())
        .find(|&i| !(is_letter(i) || bytes[i] == b'.' && is_letter(i + 1)))
        .unwrap_or(bytes.len())
}

/// Length of a number: letters and digits, a dot before a digit, a sign behind an exponent.
fn number_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let is_digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_digit);
    let is_hexadecimal = text.starts_with("0x");
    let belongs = |i: usize| match bytes[i] {
        b'.' => is_digit(i + 1),
        b'-' | b'+' => !is_hexadecimal && i > 0 && matches!(bytes[i - 1], b'e' | b'E') && is_digit(i + 1),
        c => c.is_ascii_alphanumeric() || c == b'_',
    };
    (0..bytes.len()).find(|&i| !belongs(i)).unwrap_or(bytes.len())
}
