//! The op reference.

use std::fmt::Write;

use super::ops::{Kind, OPS};

/// The op table in Markdown, one section for each op.
pub fn reference() -> String {
    let mut text = String::from("# Ops of the graph IR\n");
    let core = "\n## Core ops\n";
    let fused = "\n## Fused ops\n\nEach decomposes into core ops and means what they mean.\n";
    for (heading, is_fused) in [(core, false), (fused, true)] {
        text += heading;
        for op in OPS.iter().filter(|op| (op.kind == Kind::Fused) == is_fused) {
            // Writing to a string cannot fail.
            _ = write!(text, "\n### `{}`\n\n", op.mnemonic);
            _ = write!(
                text,
                "`({}) -> ({})`\n\n",
                op.operands.join(", "),
                op.results.join(", ")
            );
            for line in op.doc.lines() {
                _ = writeln!(text, "{}", line.trim());
            }
            if !op.attributes.is_empty() {
                text.push('\n');
            }
            for (name, doc) in op.attributes {
                _ = writeln!(text, "- `{name}`: {}", doc.trim());
            }
        }
    }
    text
}
