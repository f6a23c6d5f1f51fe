//! What can be wrong with a graph.

use super::{NodeId, TensorType, Value};

/// Why an op does not fit its operands.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TypeError {
    /// The wrong number of operands.
    #[error("has {found} operands, expected {expected}")]
    OperandCount {
        /// How many the op takes.
        expected: String,
        /// How many there are.
        found: usize,
    },
    /// An operand of the wrong type.
    #[error("operand `{operand}` is {found}, expected {expected}")]
    Operand {
        /// Its name in the op table.
        operand: String,
        /// Its type.
        found: TensorType,
        /// What the op takes there, given the other operands.
        expected: String,
    },
    /// An attribute out of its range.
    #[error("attribute `{attribute}` is {found}, expected {expected}")]
    Attribute {
        /// Its name in the op table.
        attribute: &'static str,
        /// Its value.
        found: String,
        /// Which values the op takes.
        expected: String,
    },
    /// A type that no value can have.
    #[error(
        "gives {0}, expected at most {max} axes, none empty, and each symbolic length at most once",
        max = TensorType::MAX_RANK
    )]
    Unrepresentable(TensorType),
}

/// Why a graph, or an edit of one, is not valid.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GraphError {
    /// An op does not fit its operands.
    #[error("`{op}` {error}")]
    Type {
        /// The op's mnemonic.
        op: &'static str,
        /// What does not fit.
        error: TypeError,
    },
    /// A value of another graph, or one that was removed.
    #[error("result {} of node {} does not exist in this graph", .0.result, .0.node)]
    NoSuchValue(Value),
    /// Two inputs of one name.
    #[error("two inputs are called `{0}`, expected unique names")]
    DuplicateInput(String),
    /// Two outputs of one name.
    #[error("two outputs are called `{0}`, expected unique names")]
    DuplicateOutput(String),
    /// One weight with two types.
    #[error("weight `{name}` is {second}, but {first} elsewhere in the graph")]
    WeightTypes {
        /// The weight.
        name: String,
        /// Its type where it was met first.
        first: TensorType,
        /// The other type.
        second: TensorType,
    },
    /// A weight whose type is symbolic.
    #[error("weight `{name}` is {ty}, expected a fixed shape")]
    SymbolicWeight {
        /// The weight.
        name: String,
        /// Its type.
        ty: TensorType,
    },
    /// A replacement of another type.
    #[error("a value of type {old} cannot be replaced by one of type {new}")]
    Replacement {
        /// The type of the value to replace.
        old: TensorType,
        /// The type of the replacement.
        new: TensorType,
    },
    /// A node computed from itself.
    #[error("node {node} (`{op}`) is computed from itself")]
    Cycle {
        /// A node on the cycle.
        node: NodeId,
        /// Its mnemonic.
        op: &'static str,
    },
    /// A stored result type that is not the inferred one.
    #[error("result {} of `{op}` is {found}, expected {expected}", .value.result)]
    ResultType {
        /// The mnemonic.
        op: &'static str,
        /// The result.
        value: Value,
        /// The type that is stored or written down.
        found: TensorType,
        /// The type that follows from the operands.
        expected: TensorType,
    },
    /// More or fewer results than the op gives.
    #[error("`{op}` has {found} results, expected {expected}")]
    ResultCount {
        /// The mnemonic.
        op: &'static str,
        /// How many are stored or written down.
        found: usize,
        /// How many the op gives.
        expected: usize,
    },
}
