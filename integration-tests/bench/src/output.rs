//! Where results go.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

/// Writes a result as JSON, with a line end; `-` is standard output.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn write_json(path: &Path, result: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(result)?;
    text.push('\n');
    if path == Path::new("-") {
        std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
    } else {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Rounds to a figure that a person reads and a script compares: three digits behind the point.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// A number of bytes in the largest decimal unit that shows it whole or nearly so.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{} KB", count / 1_000),
        _ => format!("{} MB", count / 1_000_000),
    }
}
