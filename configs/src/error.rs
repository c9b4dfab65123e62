//! What can be wrong with a configuration, told to the operator one line per problem.
//!
//! A file is read to its end before anything is reported, so that one run shows every problem. A line says
//! where (file and line, or the environment variable), which key, what is wrong, and what to do.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// A line of the configuration file, counted from 1.
    Line(u64),
    /// An environment variable of this name.
    Environment(String),
    /// Neither is known: a default, a missing key, or a configuration built in a program.
    #[default]
    Unknown,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Name of the file as the operator gave it; empty for a configuration built in a program.
    pub file: String,
    /// Where the offending value stands.
    pub origin: Origin,
    /// Dotted key, for example `peer.gossip.pullInterval` or `organizations[1].mspId`.
    pub key: String,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.file.is_empty()) {
            (Origin::Line(line), false) => write!(formatter, "{}:{line}: ", self.file)?,
            (Origin::Environment(name), _) => write!(formatter, "environment variable {name}: ")?,
            (_, false) => write!(formatter, "{}: ", self.file)?,
            (_, true) => {}
        }
        if self.key.is_empty() {
            return formatter.write_str(&self.message);
        }
        write!(formatter, "{}: {}", self.key, self.message)
    }
}

/// Something the operator should know although the configuration can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub String);

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not YAML. The text holds the parser's message and the lines around the place.
    #[error("{0}")]
    Syntax(String),
    /// The file is YAML, but not a usable configuration. Never empty.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
    /// A configuration cannot be written as YAML (never seen with the types of this crate).
    #[error("cannot write the configuration as YAML: {0}")]
    Write(String),
}

impl ConfigError {
    /// Every problem of an unusable configuration; empty for the other kinds of error.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid(problems) => problems,
            _ => &[],
        }
    }
}

/// `Ok` if there is no problem.
pub(crate) fn unless_any(problems: Vec<Problem>) -> Result<(), ConfigError> {
    if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems)) }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A problem found by looking at values rather than at their text: (dotted key, message).
pub(crate) type Finding = (String, String);

/// Findings of a configuration that was built in a program, so that no place is known.
pub(crate) fn without_place(findings: Vec<Finding>) -> Vec<Problem> {
    findings
        .into_iter()
        .map(|(key, message)| Problem { file: String::new(), origin: Origin::Unknown, key, message })
        .collect()
}
