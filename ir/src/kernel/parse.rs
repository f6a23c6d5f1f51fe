//! Reads the text form that [`super::text`] describes. Every text gives kernels or an error with a place; whether a
//! kernel makes sense is for the verifier to say.

use std::collections::HashMap;
use std::str::FromStr;

use super::text::{ACCESS, LOOP, REDUCTION, SCALAR, SPACE, value};
use super::*;

mod body;
mod lexer;

use lexer::{Lexer, Position, Token};

/// What does not belong into the text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: found {found}, expected {expected}")]
pub struct ParseError {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// What stands there.
    pub found: String,
    /// What would be right.
    pub expected: String,
}

/// Bodies in bodies, at most.
pub(crate) const MAX_DEPTH: usize = 64;

type Parsed<T> = Result<T, ParseError>;

/// Reads kernels until the end of the text.
///
/// # Errors
/// If the text is not a list of kernels.
pub fn parse(text: &str) -> Result<Vec<Kernel>, ParseError> {
    let mut parser = Parser::new(text);
    let mut kernels = vec![];
    while parser.token != Token::End {
        kernels.push(parser.kernel()?);
    }
    Ok(kernels)
}

impl FromStr for Kernel {
    type Err = ParseError;

    /// Reads exactly one kernel.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut parser = Parser::new(text);
        let kernel = parser.kernel()?;
        if parser.token == Token::End {
            Ok(kernel)
        } else {
            parser.refuse("the end of the text")
        }
    }
}

struct Parser<'t> {
    lexer: Lexer<'t>,
    /// The next token.
    token: Token<'t>,
    at: Position,
    /// The kernel so far.
    kernel: Kernel,
    registers: HashMap<(char, &'t str), Reg>,
    buffers: HashMap<(char, &'t str), Buf>,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Self {
        let mut lexer = Lexer::new(text);
        let (token, at) = lexer.next();
        Parser {
            lexer,
            token,
            at,
            kernel: empty_kernel(),
            registers: HashMap::new(),
            buffers: HashMap::new(),
            depth: 0,
        }
    }

    fn refuse<T>(&self, expected: impl Into<String>) -> Parsed<T> {
        refuse(self.at, self.token.to_string(), expected)
    }

    fn advance(&mut self) -> Token<'t> {
        let token = self.token;
        (self.token, self.at) = self.lexer.next();
        token
    }

    fn takes(&mut self, token: Token<'_>) -> bool {
        let is_next = self.token == token;
        if is_next {
            self.advance();
        }
        is_next
    }

    fn takes_sign(&mut self, sign: char) -> bool {
        self.takes(Token::Sign(sign))
    }

    fn sign(&mut self, sign: char) -> Parsed<()> {
        if self.takes_sign(sign) {
            Ok(())
        } else {
            self.refuse(format!("`{sign}`"))
        }
    }

    fn takes_word(&mut self, word: &str) -> bool {
        self.takes(Token::Word(word))
    }

    fn word(&mut self, word: &str) -> Parsed<()> {
        if self.takes_word(word) {
            Ok(())
        } else {
            self.refuse(format!("`{word}`"))
        }
    }

    /// One of the words of a table.
    fn one_of<T: Copy>(&mut self, table: &[(T, &str)]) -> Parsed<T> {
        if let Token::Word(word) = self.token
            && let Some((value, _)) = table.iter().find(|(_, w)| *w == word)
        {
            self.advance();
            return Ok(*value);
        }
        let words: Vec<String> = table.iter().map(|(_, word)| format!("`{word}`")).collect();
        self.refuse(words.join(" or "))
    }

    /// A name with one of the sigils, without it.
    fn name(&mut self, sigils: &str, what: &str) -> Parsed<(char, &'t str, Position)> {
        match self.token {
            Token::Name(sigil, name) if sigils.contains(sigil) => {
                let at = self.at;
                self.advance();
                Ok((sigil, name, at))
            }
            _ => self.refuse(what),
        }
    }

    /// An integer from `-most - 1` to `most` with an optional sign.
    fn integer(&mut self, most: i64) -> Parsed<i64> {
        let at = self.at;
        let is_negative = self.takes_sign('-');
        let magnitude = self.magnitude(most, is_negative, at)?;
        Ok(if is_negative {
            magnitude.wrapping_neg()
        } else {
            magnitude
        })
    }

    /// The digits of an integer whose sign was read; `i64::MIN` is its own magnitude.
    fn magnitude(&mut self, most: i64, is_negative: bool, at: Position) -> Parsed<i64> {
        let expected = format!("an integer from {} to {most}", -most - 1);
        let Token::Number(digits) = self.token else {
            return self.refuse(expected);
        };
        let sign = if is_negative { "-" } else { "" };
        match digits.parse::<u64>() {
            Ok(n) if n <= most as u64 + u64::from(is_negative) => {
                self.advance();
                Ok(n as i64)
            }
            _ => refuse(
                at,
                format!("`{sign}{}`", digits.chars().take(40).collect::<String>()),
                expected,
            ),
        }
    }

    /// `4*T + 8`, `T`, `5`
    fn extent(&mut self) -> Parsed<Extent> {
        let mut extent = Extent::fixed(0);
        let mut is_first = true;
        loop {
            let at = self.at;
            let is_negative = self.takes_sign('-');
            if !is_first && !is_negative && !self.takes_sign('+') {
                return Ok(extent);
            }
            is_first = false;
            let (part, term) = if self.takes_word("T") {
                (&mut extent.per_token, 1)
            } else {
                let n = self.magnitude(i64::MAX, is_negative, at)?;
                if self.takes_sign('*') {
                    self.word("T")?;
                    (&mut extent.per_token, n)
                } else {
                    (&mut extent.fixed, n)
                }
            };
            let term = if is_negative { term.wrapping_neg() } else { term };
            *part = match part.checked_add(term) {
                Some(sum) => sum,
                None => return refuse(at, "a sum beyond 64 bits".into(), "a smaller extent"),
            };
        }
    }

    fn kernel(&mut self) -> Parsed<Kernel> {
        self.kernel = empty_kernel();
        self.registers.clear();
        self.buffers.clear();
        self.word("kernel")?;
        let (_, name, _) = self.name("@", "the name of the kernel, as in `@name`")?;
        self.kernel.name = name.to_owned();
        self.sign('(')?;
        if !self.takes_sign(')') {
            loop {
                self.param()?;
                if !self.takes_sign(',') {
                    break;
                }
            }
            self.sign(')')?;
        }
        self.word("grid")?;
        self.kernel.grid = self.extent()?;
        self.sign('{')?;
        while self.takes_word("local") {
            self.local()?;
        }
        self.kernel.body = self.statements()?;
        Ok(std::mem::replace(&mut self.kernel, empty_kernel()))
    }

    fn param(&mut self) -> Parsed<()> {
        let (sigil, name, at) = self.name("%", "a parameter, as in `%x: read f32[4]`")?;
        self.sign(':')?;
        let access = self.one_of(&ACCESS)?;
        let dtype = self.one_of(&DType::ALL.map(|d| (d, d.name())))?;
        self.sign('[')?;
        let len = self.extent()?;
        self.sign(']')?;
        self.kernel.params.push(Param {
            name: name.to_owned(),
            dtype,
            len,
            access,
        });
        self.new_buffer(sigil, name, at)
    }

    fn local(&mut self) -> Parsed<()> {
        let space = self.one_of(&SPACE)?;
        let (sigil, name, at) = self.name("@", "a local, as in `@tmp: f32[4]`")?;
        self.sign(':')?;
        let dtype = self.one_of(&DType::ALL.map(|d| (d, d.name())))?;
        self.sign('[')?;
        let len = self.integer(i64::MAX)?;
        self.sign(']')?;
        self.kernel.locals.push(Local {
            name: name.to_owned(),
            dtype,
            len,
            space,
        });
        self.new_buffer(sigil, name, at)
    }

    fn new_buffer(&mut self, sigil: char, name: &'t str, at: Position) -> Parsed<()> {
        let buf = Buf((self.kernel.params.len() + self.kernel.locals.len() - 1) as u32);
        if self.buffers.insert((sigil, name), buf).is_some() {
            return refuse(at, format!("`{sigil}{name}` again"), "a new name");
        }
        Ok(())
    }
}

fn refuse<T>(at: Position, found: String, expected: impl Into<String>) -> Parsed<T> {
    Err(ParseError {
        line: at.line,
        column: at.column,
        found,
        expected: expected.into(),
    })
}

fn empty_kernel() -> Kernel {
    Kernel {
        name: String::new(),
        params: vec![],
        locals: vec![],
        grid: Extent::fixed(0),
        registers: vec![],
        body: vec![],
    }
}
