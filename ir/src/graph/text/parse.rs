//! The parser.
//!
//! **Invariant:** no text makes it panic, and it takes no more memory than the text calls for. It does not recurse.

use std::collections::HashMap;

use super::lexer::{Lexer, Position, Token};
use super::{ParseError, Problem, dim};
use crate::DType;
use crate::graph::ops::{Attributes, Given, Op, OpInfo};
use crate::graph::{Graph, GraphError, TensorType, Value};

/// Reads a graph. Values are defined before they are used.
///
/// # Errors
/// The first place where the text is not that of a valid graph.
pub fn parse(text: &str) -> Result<Graph, ParseError> {
    let mut lexer = Lexer::new(text);
    let (token, at) = lexer.next()?;
    let mut parser = Parser {
        lexer,
        token,
        at,
        graph: Graph::new(""),
        values: HashMap::new(),
    };
    parser.function()?;
    match parser.token {
        Token::End => Ok(parser.graph),
        _ => Err(parser.unexpected("the end of the text")),
    }
}

struct Parser<'t> {
    lexer: Lexer<'t>,
    /// The next token, and where it begins.
    token: Token<'t>,
    at: Position,
    graph: Graph,
    values: HashMap<String, Value>,
}

impl<'t> Parser<'t> {
    fn function(&mut self) -> Result<(), ParseError> {
        if self.word("`func`")? != "func" {
            return Err(self.unexpected("`func`"));
        }
        self.advance()?;
        self.sign('@')?;
        self.graph = Graph::new(self.name("the name of the function")?);
        self.sign('(')?;
        if !self.is_sign(')') {
            self.input()?;
            while self.skip(',')? {
                self.input()?;
            }
        }
        self.sign(')')?;
        if self.token != Token::Arrow {
            return Err(self.unexpected("`->`"));
        }
        self.advance()?;
        // Outputs are named before their values are defined.
        let mut outputs = vec![];
        self.sign('(')?;
        if !self.is_sign(')') {
            outputs.push(self.output()?);
            while self.skip(',')? {
                outputs.push(self.output()?);
            }
        }
        self.sign(')')?;
        self.sign('{')?;
        while !self.is_sign('}') {
            self.statement()?;
        }
        self.advance()?;
        for (name, value, at) in outputs {
            if self.graph.output(&name).is_some() {
                return Err(at.problem(Problem::Graph(GraphError::DuplicateOutput(name))));
            }
            let value = self.lookup(&value, at)?;
            self.graph.set_output(name, value);
        }
        Ok(())
    }

    fn input(&mut self) -> Result<(), ParseError> {
        let at = self.at;
        self.sign('%')?;
        let name = self.name("the name of an input")?;
        self.sign(':')?;
        let ty = self.ty()?;
        let value = self
            .graph
            .add_input(&name, ty)
            .map_err(|e| at.problem(Problem::Graph(e)))?;
        self.values.insert(name, value);
        Ok(())
    }

    fn output(&mut self) -> Result<(String, String, Position), ParseError> {
        let name = self.name("the name of an output")?;
        self.sign(':')?;
        let at = self.at;
        self.sign('%')?;
        Ok((name, self.name("a value")?, at))
    }

    fn statement(&mut self) -> Result<(), ParseError> {
        let start = self.at;
        let mut results = vec![self.result()?];
        while self.skip(',')? {
            results.push(self.result()?);
        }
        self.sign('=')?;
        let at = self.at;
        let mnemonic = self.word("an op")?;
        let info = Op::by_mnemonic(mnemonic).ok_or_else(|| self.unexpected("an op"))?;
        self.advance()?;
        let mut operands = vec![];
        if self.is_sign('%') {
            operands.push(self.operand()?);
            while self.skip(',')? {
                operands.push(self.operand()?);
            }
        }
        let given = self.attributes(info)?;
        self.sign(':')?;
        let mut declared = vec![self.ty()?];
        while self.skip(',')? {
            declared.push(self.ty()?);
        }
        let label = if self.skip('@')? {
            Some(self.text("a label in quotes")?)
        } else {
            None
        };

        let mut attributes = Attributes { given, declared, at };
        let op = Op::parse(mnemonic, &mut attributes)?;
        attributes.finish()?;
        let values = self
            .graph
            .add(op, &operands)
            .map_err(|e| at.problem(Problem::Graph(e)))?;
        let op = info.mnemonic;
        for found in [attributes.declared.len(), results.len()] {
            if found != values.len() {
                let error = GraphError::ResultCount {
                    op,
                    found,
                    expected: values.len(),
                };
                return Err(start.problem(Problem::Graph(error)));
            }
        }
        for (&value, found) in values.iter().zip(attributes.declared) {
            let expected = self.graph.ty(value).clone();
            if found != expected {
                let error = GraphError::ResultType {
                    op,
                    value,
                    found,
                    expected,
                };
                return Err(at.problem(Problem::Graph(error)));
            }
        }
        if let Some(&value) = values.first() {
            self.graph.set_label(value.node, label);
        }
        for ((name, at), value) in results.into_iter().zip(values) {
            let found = format!("`%{name}` again");
            if self.values.insert(name, value).is_some() {
                return Err(at.expected("a new name", found));
            }
        }
        Ok(())
    }

    fn result(&mut self) -> Result<(String, Position), ParseError> {
        let at = self.at;
        if !self.is_sign('%') {
            return Err(self.unexpected("`%` or `}`"));
        }
        self.advance()?;
        Ok((self.name("the name of a value")?, at))
    }

    fn operand(&mut self) -> Result<Value, ParseError> {
        let at = self.at;
        self.sign('%')?;
        let name = self.name("a value")?;
        self.lookup(&name, at)
    }

    fn lookup(&self, name: &str, at: Position) -> Result<Value, ParseError> {
        let value = self.values.get(name).copied();
        value.ok_or_else(|| at.expected("a value that is defined", format!("`%{}`", super::name(name))))
    }

    /// One bare value, or pairs in braces.
    fn attributes(&mut self, info: &OpInfo) -> Result<Vec<(&'t str, Position, Given<'t>)>, ParseError> {
        let mut given = vec![];
        if self.skip('{')? {
            loop {
                let at = self.at;
                let name = self.word("the name of an attribute")?;
                self.advance()?;
                self.sign('=')?;
                given.push((name, at, self.given()?));
                if !self.skip(',')? {
                    break;
                }
            }
            self.sign('}')?;
        } else if info.operands.is_empty() && !self.is_sign(':') {
            let at = self.at;
            given.push(("", at, self.given()?));
        }
        Ok(given)
    }

    fn given(&mut self) -> Result<Given<'t>, ParseError> {
        if self.skip('[')? {
            return Ok(Given::List(self.words()?));
        }
        match self.advance()? {
            (Token::Word(word), _) => Ok(Given::Word(word)),
            (Token::Text(text), _) => Ok(Given::Text(text)),
            (token, at) => Err(at.expected("the value of an attribute", token.to_string())),
        }
    }

    fn ty(&mut self) -> Result<TensorType, ParseError> {
        let word = self.word("a type")?;
        let dtype: DType = word
            .parse()
            .ok()
            // Bytes exist in kernels only.
            .filter(|&dtype| dtype != DType::I8)
            .ok_or_else(|| self.unexpected("f32, f16, bf16 or i32"))?;
        self.advance()?;
        self.sign('[')?;
        let at = self.at;
        let shape = self.words()?.into_iter().map(|word| {
            dim(word).ok_or_else(|| at.expected("lengths: numbers, `B` or `T`", format!("`{word}`")))
        });
        Ok(TensorType::new(dtype, shape.collect::<Result<Vec<_>, _>>()?))
    }

    /// Words up to a closing bracket.
    fn words(&mut self) -> Result<Vec<&'t str>, ParseError> {
        let mut words = vec![];
        if !self.is_sign(']') {
            loop {
                words.push(self.word("a word")?);
                self.advance()?;
                if !self.skip(',')? {
                    break;
                }
            }
        }
        self.sign(']')?;
        Ok(words)
    }

    /// A word or a text in quotes.
    fn name(&mut self, expected: &str) -> Result<String, ParseError> {
        match self.advance()? {
            (Token::Word(word), _) => Ok(word.into()),
            (Token::Text(text), _) => Ok(text),
            (token, at) => Err(at.expected(expected, token.to_string())),
        }
    }

    fn text(&mut self, expected: &str) -> Result<String, ParseError> {
        match self.advance()? {
            (Token::Text(text), _) => Ok(text),
            (token, at) => Err(at.expected(expected, token.to_string())),
        }
    }

    /// The next token, which stays, if it is a word.
    fn word(&self, expected: &str) -> Result<&'t str, ParseError> {
        match self.token {
            Token::Word(word) => Ok(word),
            _ => Err(self.unexpected(expected)),
        }
    }

    fn is_sign(&self, sign: char) -> bool {
        self.token == Token::Sign(sign)
    }

    /// Steps over a sign, if it stands there.
    fn skip(&mut self, sign: char) -> Result<bool, ParseError> {
        let found = self.is_sign(sign);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn sign(&mut self, sign: char) -> Result<(), ParseError> {
        if self.skip(sign)? {
            Ok(())
        } else {
            Err(self.unexpected(&format!("`{sign}`")))
        }
    }

    fn unexpected(&self, expected: &str) -> ParseError {
        self.at.expected(expected, self.token.to_string())
    }

    /// Gives the next token and steps over it.
    fn advance(&mut self) -> Result<(Token<'t>, Position), ParseError> {
        let (token, at) = self.lexer.next()?;
        let token = std::mem::replace(&mut self.token, token);
        Ok((token, std::mem::replace(&mut self.at, at)))
    }
}
