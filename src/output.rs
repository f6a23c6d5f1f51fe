//! Where text goes: results to standard output, everything else to standard error.

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;

/// Prints a result.
///
/// # Errors
/// If standard output is closed or full.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Prints one JSON document.
///
/// # Errors
/// If standard output is closed or full.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    print(&(serde_json::to_string(value)? + "\n"))
}

/// Says something beside the result.
pub(crate) fn note(text: &str) {
    // Whoever closed standard error does not want to hear it.
    let _ = writeln!(io::stderr(), "{text}");
}
