//! Errors in IR texts, shown as compilers do: the line, and a mark below the word that is wrong.

use std::fmt::Display;
use std::io::IsTerminal;

/// An error at a place of a text.
#[derive(Debug, thiserror::Error)]
#[error("`{name}`: {line}:{column}: {problem}")]
pub(crate) struct TextError {
    name: String,
    /// Counted from 1.
    line: usize,
    /// In characters, counted from 1.
    column: usize,
    problem: String,
    text: String,
}

impl TextError {
    /// An error at a line and a character of it, both counted from 1.
    pub(crate) fn new(
        name: &impl Display,
        text: String,
        (line, column): (usize, usize),
        problem: &impl Display,
    ) -> Self {
        TextError {
            name: name.to_string(),
            line,
            column,
            problem: problem.to_string(),
            text,
        }
    }

    /// The line with its mark, which is red on a terminal.
    pub(crate) fn excerpt(&self) -> String {
        let is_coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let (red, plain) = if is_coloured {
            ("\x1b[1;31m", "\x1b[0m")
        } else {
            ("", "")
        };
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let line = self.text.lines().nth(self.line - 1).unwrap_or("");
        let (indent, mark) = self.mark(line);
        format!("{margin} |\n{number} | {line}\n{margin} | {indent}{red}{mark}{plain}")
    }

    /// What stands below a line: blanks as wide as what comes before the place, and a mark as wide as the word there.
    fn mark(&self, line: &str) -> (String, String) {
        let blank = |c: char| if c == '\t' { '\t' } else { ' ' };
        let indent = line.chars().take(self.column - 1).map(blank).collect();
        let is_word = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '.');
        let rest = line.chars().skip(self.column - 1);
        (indent, "^".repeat(rest.take_while(is_word).count().max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_as_wide_as_the_word() {
        let excerpt = |text: &str, at| TextError::new(&"f", text.into(), at, &"wrong").excerpt();
        assert_eq!(excerpt("a\n\tbä.c d", (2, 2)), "  |\n2 | \tbä.c d\n  | \t^^^^");
        assert_eq!(excerpt("a -> b", (1, 3)), "  |\n1 | a -> b\n  |   ^");
        // The end of the text is a place, too.
        assert_eq!(excerpt("", (1, 1)), "  |\n1 | \n  | ^");
        assert_eq!(excerpt("a\n", (2, 1)), "  |\n2 | \n  | ^");
    }
}
