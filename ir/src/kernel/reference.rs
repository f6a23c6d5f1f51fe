//! The reference of the operations of Kernel IR.

use std::fmt::Write;

use super::operations::Row;
use super::{Binary, Compare, Unary};

/// The tables of operations in Markdown.
pub fn reference() -> String {
    let mut text = String::from(
        "# Operations of Kernel IR\n\nThey work lane by lane, on registers of any number of lanes. \
         `ir/src/kernel/operations.rs` has the tables.\n",
    );
    let tables = [
        ("On one operand", Unary::ROWS),
        ("On two operands of one type", Binary::ROWS),
        ("Ordered comparisons", Compare::ROWS),
    ];
    for (heading, rows) in tables {
        // Writing to a string cannot fail.
        _ = write!(
            text,
            "\n## {heading}\n\n| word | types | computes |\n|---|---|---|\n"
        );
        for Row { word, types, doc } in rows {
            _ = writeln!(
                text,
                "| `{word}` | {types} | {} |",
                doc.trim().replace('|', "\\|")
            );
        }
    }
    text
}
