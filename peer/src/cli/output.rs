//! Standard output that may be closed at any time, and errors of one line.

use std::io::{self, Write};

use grapevine_configs::ConfigError;

/// Writes `text` to standard output.
///
/// # Errors
/// That of the operating system; a closed pipe is recognised by [`is_closed_pipe`].
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Whether `error` only says that the reader of standard output has gone away.
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Prints `error` with its causes as one line to standard error. A configuration's problems get a line each.
pub(super) fn complain(error: &anyhow::Error) {
    let text = match error.downcast_ref::<ConfigError>() {
        Some(problems @ ConfigError::Invalid(_)) => problems.to_string().replace('\n', "\ngrapevine: "),
        Some(ConfigError::Syntax(text)) => text.trim_end().to_owned(),
        _ => one_line(error),
    };
    // If nobody reads standard error either, the exit code has to do.
    let _closed = writeln!(io::stderr().lock(), "grapevine: {text}");
}

/// Causes joined by colons; a cause that its parent already quotes is not repeated.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if line.contains(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    let words: Vec<&str> = line.lines().map(str::trim).filter(|part| !part.is_empty()).collect();
    words.join("; ")
}

/// Rows of cells as aligned columns, two spaces apart.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(column) {
                Some(known) => *known = width.max(*known),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn errors_become_one_line_without_repetition() {
        let error = anyhow::anyhow!("disk on fire\n  call the fire brigade").context("cannot write");
        assert_eq!(one_line(&error), "cannot write: disk on fire; call the fire brigade");
        let quoted = anyhow::anyhow!("full").context("the disk is full");
        assert_eq!(one_line(&quoted), "the disk is full");
    }

    #[test]
    fn a_closed_pipe_is_recognised_under_context() {
        let closed: anyhow::Result<()> =
            Err(io::Error::from(io::ErrorKind::BrokenPipe)).context("writing the list");
        assert!(is_closed_pipe(&closed.unwrap_err()));
        assert!(!is_closed_pipe(&anyhow::anyhow!("broken pipe")));
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [["a", "bcd", "e"], ["abc", "d", ""]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "a    bcd  e\nabc  d\n");
    }
}
