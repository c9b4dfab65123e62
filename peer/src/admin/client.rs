//! The side of the admin socket in the command line: blocking, one request a connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64;

use super::protocol::{AdminResponse, Status, WireRequest};
use super::{ANSWER_BYTES_MAX, ANSWER_TIMEOUT_MS, REQUEST_TIMEOUT_MS, SOCKET_NAME};

/// Asks the peer that runs on a data directory.
#[derive(Clone, Debug)]
pub struct AdminClient {
    path: PathBuf,
}

/// Why a request got no good answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminClientError {
    /// No peer runs on this data directory.
    #[error("no peer runs on {}; start it with: grapevine run --config FILE", directory.display())]
    NotRunning {
        /// The data directory.
        directory: PathBuf,
    },
    /// The socket belongs to somebody else.
    #[error("no permission for {}; run as the user the peer runs as", path.display())]
    Permission {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The peer is there but does not answer.
    #[error("the peer on {} does not answer ({source}); look into its log", path.display())]
    NoAnswer {
        /// Path of the socket.
        path: PathBuf,
        /// Message of the operating system.
        source: io::Error,
    },
    /// The answer makes no sense.
    #[error("the peer's answer is not understood ({0}); use the same grapevine version for both")]
    NotUnderstood(String),
    /// The peer says no.
    #[error("{0}")]
    Refused(String),
}

impl AdminClient {
    /// A client for the peer whose data directory is `file_system_path`.
    #[must_use]
    pub fn new(file_system_path: &Path) -> Self {
        Self { path: file_system_path.join(SOCKET_NAME) }
    }

    /// How the peer is doing.
    ///
    /// # Errors
    /// See [`AdminClientError`].
    pub fn status(&self) -> Result<Status, AdminClientError> {
        match self.ask(&WireRequest::Status)? {
            AdminResponse::Status(status) => Ok(*status),
            other => Err(AdminClientError::NotUnderstood(format!("{other:?}"))),
        }
    }

    /// Joins the channel of an encoded genesis block and returns its name.
    ///
    /// # Errors
    /// See [`AdminClientError`].
    pub fn join(&self, block: &[u8]) -> Result<String, AdminClientError> {
        match self.ask(&WireRequest::Join { block: BASE64.encode(block) })? {
            AdminResponse::Joined { joined } => Ok(joined),
            other => Err(AdminClientError::NotUnderstood(format!("{other:?}"))),
        }
    }

    /// Joins a channel whose genesis block the peer at an endpoint has, and returns its name.
    ///
    /// # Errors
    /// See [`AdminClientError`].
    pub fn join_by_anchor(
        &self,
        channel: &str,
        anchor: &str,
        genesis_hash: &str,
    ) -> Result<String, AdminClientError> {
        let (channel, anchor, genesis_hash) =
            (channel.to_owned(), anchor.to_owned(), genesis_hash.to_owned());
        match self.ask(&WireRequest::JoinByAnchor { channel, anchor, genesis_hash })? {
            AdminResponse::Joined { joined } => Ok(joined),
            other => Err(AdminClientError::NotUnderstood(format!("{other:?}"))),
        }
    }

    /// Has blocks of a channel looked at and mended; says how many those are. [`Status`] tells how far it is.
    ///
    /// # Errors
    /// See [`AdminClientError`].
    pub fn repair(&self, channel: &str, ranges: Vec<(u64, u64)>) -> Result<u64, AdminClientError> {
        match self.ask(&WireRequest::Repair { channel: channel.to_owned(), ranges })? {
            AdminResponse::Repairing { repairing } => Ok(repairing),
            other => Err(AdminClientError::NotUnderstood(format!("{other:?}"))),
        }
    }

    /// Sends one request; an error answer becomes [`AdminClientError::Refused`].
    ///
    /// # Errors
    /// See [`AdminClientError`].
    pub fn ask(&self, request: &WireRequest) -> Result<AdminResponse, AdminClientError> {
        let line = self.exchange(request).map_err(|source| self.explain(source))?;
        match serde_json::from_slice(&line) {
            Ok(AdminResponse::Error { error }) => Err(AdminClientError::Refused(error)),
            Ok(response) => Ok(response),
            Err(error) => Err(AdminClientError::NotUnderstood(error.to_string())),
        }
    }

    fn exchange(&self, request: &WireRequest) -> io::Result<Vec<u8>> {
        let mut stream = grapevine_private_socket::connect(&self.path)?;
        stream.set_write_timeout(Some(Duration::from_millis(REQUEST_TIMEOUT_MS)))?;
        // A little more than the peer takes at most, so that its own words arrive.
        let patience_ms = ANSWER_TIMEOUT_MS.saturating_add(REQUEST_TIMEOUT_MS);
        stream.set_read_timeout(Some(Duration::from_millis(patience_ms)))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        // A peer that refuses before it has read everything closes its side: its words are there to be read nevertheless.
        let written = stream.write_all(&line);
        let mut answer = Vec::new();
        let limit = u64::try_from(ANSWER_BYTES_MAX).unwrap_or(u64::MAX);
        let read = BufReader::new(stream).take(limit).read_until(b'\n', &mut answer);
        if answer.ends_with(b"\n") {
            return Ok(answer);
        }
        written.and(read)?;
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn explain(&self, source: io::Error) -> AdminClientError {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
                AdminClientError::NotRunning { directory: path.parent().unwrap_or(&path).to_owned() }
            }
            io::ErrorKind::PermissionDenied => AdminClientError::Permission { path },
            _ => AdminClientError::NoAnswer { path, source },
        }
    }
}
