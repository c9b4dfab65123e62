//! The binaries under test: found, and built first if they are missing or older than their sources.
//!
//! Cargo decides what is stale, so the build is asked for once in every process that uses the harness; it takes a moment when nothing has changed.
//! `GRAPEVINE_BIN_DIR` names a directory with ready binaries instead, for example to test an installed release; then nothing is built.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::error::NetworkError;

/// Lines of a failed build shown with the error.
const BUILD_LINES_SHOWN_MAX: usize = 40;

/// Variable that names a directory with ready binaries.
pub const BIN_DIR_VARIABLE: &str = "GRAPEVINE_BIN_DIR";

/// Where the binaries under test are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The peer and its command line tool, `grapevine`.
    pub grapevine: PathBuf,
    /// The stand-in ordering service, `orderer-mock`.
    pub orderer_mock: PathBuf,
}

impl Binaries {
    /// Finds the binaries, building them if necessary. The work is done once per process; a failure is remembered as well.
    ///
    /// # Errors
    /// If the build fails; the text holds the compiler's last lines and, if libclang is missing, what to do about it.
    pub fn ready() -> Result<Self, NetworkError> {
        static READY: OnceLock<Result<Binaries, String>> = OnceLock::new();
        READY
            .get_or_init(|| match std::env::var_os(BIN_DIR_VARIABLE) {
                Some(directory) => Self::inside(Path::new(&directory)),
                None => build(),
            })
            .clone()
            .map_err(NetworkError::Binaries)
    }

    /// The binaries inside a directory.
    fn inside(directory: &Path) -> Result<Self, String> {
        let find = |name: &str| {
            let path = directory.join(name);
            if path.is_file() { Ok(path) } else { Err(format!("{} is missing", path.display())) }
        };
        Ok(Self { grapevine: find("grapevine")?, orderer_mock: find("orderer-mock")? })
    }
}

/// The root of the workspace this harness belongs to.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A cargo command that decides as one typed at a prompt would: what an outer `cargo test` or `cargo run`
/// tells its child about the package it runs must not look like a change of the environment of the build.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let of_the_outer_cargo =
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| of_the_outer_cargo.iter().any(|prefix| name.starts_with(prefix)))
        {
            command.env_remove(name);
        }
    }
    command.current_dir(workspace());
    command
}

fn build() -> Result<Binaries, String> {
    let mut child = cargo()
        // The whole workspace, as in the Makefile: asked for fewer packages, cargo would choose other features of shared
        // dependencies and build most of them a second time.
        .args(["build", "--release", "--locked", "--workspace", "--bins"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run cargo: {error}; install Rust, or set {BIN_DIR_VARIABLE}"))?;
    let mut last = VecDeque::new();
    for line in child
        .stderr
        .take()
        .into_iter()
        .flat_map(|stderr| BufReader::new(stderr).lines())
        .map_while(Result::ok)
    {
        // The build can take many minutes: what cargo does is shown, its all-is-well is not.
        if !line.trim_start().starts_with("Finished") {
            eprintln!("{line}");
        }
        if last.len() == BUILD_LINES_SHOWN_MAX {
            last.pop_front();
        }
        last.push_back(line);
    }
    let status = child.wait().map_err(|error| format!("cannot wait for cargo: {error}"))?;
    if !status.success() {
        return Err(explain_failure(&Vec::from(last).join("\n")));
    }
    Binaries::inside(&target_directory()?.join("release"))
}

fn explain_failure(output: &str) -> String {
    if output.contains("Unable to find libclang")
        || output.contains("couldn't find any valid shared libraries")
    {
        return "building the peer needs libclang (for RocksDB), which is not installed; run `make deps`"
            .to_owned();
    }
    format!("the binaries under test cannot be built; cargo says:\n{output}")
}

/// Where cargo puts what it builds.
fn target_directory() -> Result<PathBuf, String> {
    let output = cargo()
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo metadata: {error}"))?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo metadata answers something unknown: {error}"))?;
    let directory = metadata.get("target_directory").and_then(serde_json::Value::as_str);
    directory.map(PathBuf::from).ok_or_else(|| "cargo metadata names no target directory".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_libclang_is_told_in_one_line() {
        let text = explain_failure(
            "thread 'main' panicked: Unable to find libclang: \"couldn't find any valid shared libraries\"",
        );
        assert!(text.contains("make deps") && !text.contains('\n'), "{text}");
        assert!(explain_failure("error[E0425]: nothing").contains("E0425"));
    }

    #[test]
    fn ready_binaries_are_taken_from_a_directory_and_missing_ones_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = Binaries::inside(directory.path()).unwrap_err();
        assert!(error.contains("grapevine is missing"), "{error}");
        for name in ["grapevine", "orderer-mock"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        assert!(Binaries::inside(directory.path()).is_ok());
    }

    #[test]
    fn cargo_tells_the_target_directory() {
        assert!(target_directory().unwrap().is_absolute());
    }
}
