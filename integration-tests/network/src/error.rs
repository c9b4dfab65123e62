//! The one error of the harness: what went wrong, what to do, and the last log lines of the processes concerned.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// Lines of every relevant log shown with an error.
pub const LOG_LINES_SHOWN_MAX: usize = 25;

/// Bytes read from the end of a log to find those lines; a longer line is shown from its middle.
const LOG_TAIL_BYTES_MAX: u64 = 64 * 1024;

/// Why a network could not be started, driven or checked.
///
/// `Debug` prints the same text as `Display`, so that a test that returns `Result<(), NetworkError>` fails readably.
#[derive(thiserror::Error)]
pub enum NetworkError {
    /// The description of the network cannot be used; the text names the key and what to write there.
    #[error("network description: {0}")]
    Description(String),
    /// The binaries under test could not be built or found.
    #[error("{0}")]
    Binaries(String),
    /// A file, socket or process operation failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A name that the network does not have.
    #[error("no {kind} is called `{name}`; there are: {known}")]
    Unknown {
        /// "peer", "orderer", "channel", ...
        kind: &'static str,
        /// The name as it was given.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The request does not fit the state of a process, for example starting one that runs.
    #[error("{0}")]
    State(String),
    /// A process ended by itself.
    #[error("{process} ended by itself ({status}){logs}")]
    Ended {
        /// Name of the process.
        process: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        logs: LogTails,
    },
    /// What was waited for did not happen in time.
    #[error("waited {within:?} for {what}, but {seen}{logs}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// The deadline that passed.
        within: Duration,
        /// What was seen last instead.
        seen: String,
        /// The last log lines of the processes concerned.
        logs: LogTails,
    },
    /// A command of the tools under test failed.
    #[error("`{command}` failed ({status}):\n{output}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to standard output and standard error.
        output: String,
    },
    /// An answer of a tool or a peer could not be understood.
    #[error("cannot read the answer of {from}: {reason}")]
    Answer {
        /// Who answered.
        from: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// Ledgers that should be identical are not.
    #[error("ledgers of channel `{channel}` differ: {difference}{logs}")]
    LedgersDiffer {
        /// The channel.
        channel: String,
        /// Which peers differ, and where.
        difference: String,
        /// The last log lines of the peers that differ.
        logs: LogTails,
    },
    /// A peer holds something of a channel it must not know.
    #[error("{peer} holds something of channel `{channel}`: {found}")]
    Leak {
        /// The peer.
        peer: String,
        /// The channel.
        channel: String,
        /// What was found, and where.
        found: String,
    },
    /// The caller asked to stop waiting (see `NetworkBuilder::interrupted_by`).
    #[error("interrupted")]
    Interrupted,
}

impl NetworkError {
    /// Shorthand for [`NetworkError::Io`], to be used in `map_err`.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// True if what was waited for did not happen in time.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }
}

impl fmt::Debug for NetworkError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// The last lines of some logs, ready to be appended to an error.
#[derive(Debug, Clone, Default)]
pub struct LogTails(Vec<(String, PathBuf, String)>);

impl LogTails {
    /// Reads the ends of the logs of the named processes; a log that cannot be read is shown as empty.
    pub fn read<'a>(logs: impl IntoIterator<Item = (&'a str, &'a Path)>) -> Self {
        Self(
            logs.into_iter()
                .map(|(name, path)| (name.to_owned(), path.to_owned(), last_lines(path)))
                .collect(),
        )
    }
}

impl fmt::Display for LogTails {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, path, text) in &self.0 {
            write!(formatter, "\n--- last lines of {name} ({}):\n{}", path.display(), text.trim_end())?;
            if text.trim().is_empty() {
                formatter.write_str("(empty)")?;
            }
        }
        Ok(())
    }
}

/// The last [`LOG_LINES_SHOWN_MAX`] lines of a file.
fn last_lines(path: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(LOG_TAIL_BYTES_MAX);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(LOG_LINES_SHOWN_MAX);
    lines.iter().skip(first).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_the_last_lines_of_the_log_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peer0.log");
        let text: String = (0..200).map(|line| format!("line {line}\n")).collect();
        std::fs::write(&path, text).unwrap();
        let error = NetworkError::Timeout {
            what: "height 5".to_owned(),
            within: Duration::from_secs(1),
            seen: "it is at 4".to_owned(),
            logs: LogTails::read([("peer0", path.as_path())]),
        };
        let shown = format!("{error:?}");
        assert!(shown.contains("waited 1s for height 5, but it is at 4"), "{shown}");
        assert!(shown.contains("line 199") && shown.contains("line 175\n"), "{shown}");
        assert!(!shown.contains("line 174\n"), "{shown}");
    }

    #[test]
    fn a_missing_log_is_shown_as_empty() {
        let tails = LogTails::read([("peer0", Path::new("/nonexistent/peer0.log"))]);
        assert!(tails.to_string().contains("(empty)"));
    }
}
