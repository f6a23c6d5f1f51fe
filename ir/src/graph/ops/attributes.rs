//! Attributes of ops in text: `{eps=1e-5}`, or bare after the mnemonic of an op without operands: `const 1.0`.

use super::{Activation, Dim, Member, TensorType};
use crate::graph::text::{ParseError, Position, dim, quoted};
use crate::graph::types::Shape;
use crate::quantized::Format;

/// A type of attributes.
pub(crate) trait Attribute: Sized {
    /// What is expected of the text, for messages.
    const EXPECTED: &'static str;

    /// The text; `None` if the result types tell.
    fn print(&self) -> Option<String>;

    /// From the text.
    fn parse(given: &Given<'_>) -> Option<Self>;

    /// From the result types, if they tell.
    fn declared(_: &[TensorType]) -> Option<Self> {
        None
    }
}

/// The value of an attribute, as written.
#[derive(Debug)]
pub(crate) enum Given<'t> {
    /// `1e-5`, `true`, `bias+tanh`
    Word(&'t str),
    /// `"emb.weight"`
    Text(String),
    /// `[B,T,64]`, `[bias, plain]`
    List(Vec<&'t str>),
}

impl Given<'_> {
    fn describe(&self) -> String {
        match self {
            Given::Word(word) => format!("`{word}`"),
            Given::Text(text) => quoted(text),
            Given::List(words) => format!("`[{}]`", words.join(", ")),
        }
    }
}

/// What is written after the operands of an op.
pub(crate) struct Attributes<'t> {
    /// Name, empty for a bare value, place and value of each.
    pub(crate) given: Vec<(&'t str, Position, Given<'t>)>,
    /// The result types.
    pub(crate) declared: Vec<TensorType>,
    /// Where the statement begins, for attributes that are missing.
    pub(crate) at: Position,
}

impl Attributes<'_> {
    /// Takes out the attribute `name`.
    pub(crate) fn take<T: Attribute>(&mut self, name: &str) -> Result<T, ParseError> {
        if let Some(value) = T::declared(&self.declared) {
            return Ok(value);
        }
        let Some(i) = self.given.iter().position(|(n, ..)| *n == name || n.is_empty()) else {
            return Err(self
                .at
                .expected(format!("an op with the attribute `{name}`"), "one without"));
        };
        let (_, at, given) = self.given.remove(i);
        T::parse(&given).ok_or_else(|| at.expected(format!("{} as `{name}`", T::EXPECTED), given.describe()))
    }

    /// Fails if there are attributes that nobody took.
    pub(crate) fn finish(&self) -> Result<(), ParseError> {
        match self.given.first() {
            None => Ok(()),
            Some(("", at, given)) => Err(at.expected("no attribute", given.describe())),
            Some((name, at, _)) => Err(at.expected("an attribute that the op has", format!("`{name}`"))),
        }
    }
}

impl Attribute for f64 {
    const EXPECTED: &'static str = "a number";

    fn print(&self) -> Option<String> {
        Some(format!("{self:?}"))
    }

    fn parse(given: &Given<'_>) -> Option<Self> {
        let Given::Word(word) = given else { return None };
        word.parse().ok()
    }
}

impl Attribute for bool {
    const EXPECTED: &'static str = "`true` or `false`";

    fn print(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn parse(given: &Given<'_>) -> Option<Self> {
        let Given::Word(word) = given else { return None };
        word.parse().ok()
    }
}

impl Attribute for Format {
    const EXPECTED: &'static str = "`int8`, `int4` or `dynamic8`";

    fn print(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn parse(given: &Given<'_>) -> Option<Self> {
        let Given::Word(word) = given else { return None };
        word.parse().ok()
    }
}

impl Attribute for String {
    const EXPECTED: &'static str = "a text in quotes";

    fn print(&self) -> Option<String> {
        Some(quoted(self))
    }

    fn parse(given: &Given<'_>) -> Option<Self> {
        let Given::Text(text) = given else { return None };
        Some(text.clone())
    }
}

impl Attribute for TensorType {
    const EXPECTED: &'static str = "a type";

    fn print(&self) -> Option<String> {
        None
    }

    fn parse(_: &Given<'_>) -> Option<Self> {
        None
    }

    fn declared(types: &[TensorType]) -> Option<Self> {
        types.first().cloned()
    }
}

impl Attribute for Vec<Dim> {
    const EXPECTED: &'static str = "a shape such as `[B,T,64]`";

    fn print(&self) -> Option<String> {
        Some(Shape(self).to_string())
    }

    fn parse(given: &Given<'_>) -> Option<Self> {
        let Given::List(words) = given else { return None };
        words.iter().map(|word| dim(word)).collect()
    }
}

impl Attribute for Vec<Member> {
    const EXPECTED: &'static str = "members such as `[plain, bias+tanh, relu2+scale+residual]`";

    fn print(&self) -> Option<String> {
        let members: Vec<String> = self.iter().map(print_member).collect();
        Some(format!("[{}]", members.join(", ")))
    }

    fn parse(given: &Given<'_>) -> Option<Self> {
        let Given::List(words) = given else { return None };
        words.iter().map(|word| parse_member(word)).collect()
    }
}

/// The activations by name.
const ACTIVATIONS: [(&str, Activation); 4] = [
    ("relu", Activation::Relu),
    ("relu2", Activation::Relu2),
    ("tanh", Activation::Tanh),
    ("sigmoid", Activation::Sigmoid),
];

fn print_member(member: &Member) -> String {
    let activation = ACTIVATIONS.iter().find(|(_, a)| *a == member.activation);
    let parts = [
        member.skip_zeros.then_some("skip_zeros"),
        member.bias.then_some("bias"),
        activation.map(|(name, _)| *name),
        member.scale.then_some("scale"),
        member.residual.then_some("residual"),
    ];
    let parts: Vec<&str> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        "plain".into()
    } else {
        parts.join("+")
    }
}

/// The parts, each at most once and in the order in which they are applied.
fn parse_member(word: &str) -> Option<Member> {
    let mut member = Member::PLAIN;
    if word == "plain" {
        return Some(member);
    }
    for part in word.split('+') {
        match part {
            "skip_zeros" => member.skip_zeros = true,
            "bias" => member.bias = true,
            "scale" => member.scale = true,
            "residual" => member.residual = true,
            _ => member.activation = ACTIVATIONS.iter().find(|(name, _)| *name == part)?.1,
        }
    }
    (print_member(&member) == word).then_some(member)
}
