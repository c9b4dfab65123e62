//! The control socket `control.sock` in the directory of the blocks: one request a connection, a line of JSON, answered by a
//! line of JSON.
//!
//! `{"fault": "delay", "milliseconds": 200, "channel": "trade"}` is answered by `{"done": true}` or `{"error": "..."}`. What
//! can be asked for says [`Fault`]; without `channel` all channels are meant. `{"report": "traffic"}` is answered by
//! `{"bytes_in": 5, "bytes_out": 7}`: what crossed the sockets of all its clients since its start.
//!
//! The socket is readable and writable by its owner alone from the first moment. It also keeps two services out of one
//! directory: a second one that finds the socket answering does not start. A path longer than a socket address holds is
//! reached through its directory's descriptor.
//!
//! Bounds: [`CONNECTIONS_MAX`] at a time, a request of [`REQUEST_BYTES_MAX`] within [`REQUEST_TIMEOUT`].

use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use grapevine_private_socket::{ListenError, PrivateListener, SocketFile, connect};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::connections::Traffic;
use crate::faults::{Fault, Faults};

/// Name of the socket in the directory of the blocks.
pub const SOCKET_NAME: &str = "control.sock";

/// Most connections at a time.
pub const CONNECTIONS_MAX: usize = 8;

/// Most bytes of a request or an answer.
pub const REQUEST_BYTES_MAX: usize = 4096;

/// Longest wait for a request, and for an answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a service waits for another one to leave its directory: one that was just stopped.
const IN_USE_TIMEOUT: Duration = Duration::from_secs(2);

const IN_USE_INTERVAL: Duration = Duration::from_millis(20);

/// Why the socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another service answers.
    #[error(
        "another ordering service runs on {}; stop it, or give this one another FileLedger.Location",
        directory.display()
    )]
    InUse {
        /// The directory of both.
        directory: PathBuf,
    },
    /// The operating system refused.
    #[error("the control socket {} cannot be opened: {source}; check that its directory is writable and that no other file has its name", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Nobody answers.
    #[error("no ordering service runs on {}; start it with: orderer-mock run --config FILE", directory.display())]
    NotRunning {
        /// The directory.
        directory: PathBuf,
    },
    /// No answer, or none that makes sense.
    #[error("the ordering service on {} does not answer ({reason}); look into its log", directory.display())]
    NoAnswer {
        /// The directory.
        directory: PathBuf,
        /// What happened.
        reason: String,
    },
    /// The service says no.
    #[error("{0}")]
    Refused(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    #[serde(flatten)]
    fault: Fault,
}

/// A question that changes nothing.
#[derive(Debug, Deserialize)]
struct Question {
    report: Report,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Report {
    Traffic,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Answer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    done: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes_in: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes_out: Option<u64>,
}

/// The listening side.
#[derive(Debug)]
pub struct ControlServer {
    /// Goes before the listener: a file whose socket answers is not replaced by a service that comes next.
    _file: SocketFile,
    listener: UnixListener,
}

impl ControlServer {
    /// Listens in `directory`, which is made if it is not there. Waits a moment for a service that is about to leave it.
    pub async fn bind(directory: &Path) -> Result<Self, ControlError> {
        let path = directory.join(SOCKET_NAME);
        let failed = |source| ControlError::Io { path: path.clone(), source };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let deadline = tokio::time::Instant::now() + IN_USE_TIMEOUT;
        let listener = loop {
            match PrivateListener::bind(&path) {
                Ok(listener) => break listener,
                Err(ListenError::InUse) => {
                    if tokio::time::Instant::now() >= deadline {
                        return Err(ControlError::InUse { directory: directory.to_owned() });
                    }
                    tokio::time::sleep(IN_USE_INTERVAL).await;
                }
                Err(ListenError::NotASocket) => return Err(failed(io::ErrorKind::AlreadyExists.into())),
                Err(ListenError::Io(source)) => return Err(failed(source)),
            }
        };
        let (listener, _file) = listener.into_parts().map_err(failed)?;
        Ok(Self { _file, listener: UnixListener::from_std(listener).map_err(failed)? })
    }

    /// Serves until `stop` is cancelled.
    pub(crate) async fn serve(self, faults: Arc<Faults>, traffic: Arc<Traffic>, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of file descriptors, most likely: accepting again at once would spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (faults, traffic) = (faults.clone(), traffic.clone());
            tokio::spawn(async move {
                // A client that has gone away or does not read is its own problem.
                let _unanswered = timeout(REQUEST_TIMEOUT, serve_one(stream, &faults, &traffic)).await;
                drop(place);
            });
        }
    }
}

async fn serve_one(stream: UnixStream, faults: &Faults, traffic: &Traffic) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    let limit = u64::try_from(REQUEST_BYTES_MAX).unwrap_or(u64::MAX);
    (&mut reader).take(limit).read_until(b'\n', &mut line).await?;
    let answer = answer(&line, faults, traffic)
        .unwrap_or_else(|error| Answer { error: Some(error), ..Answer::default() });
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    let mut stream = reader.into_inner();
    stream.write_all(&text).await?;
    stream.shutdown().await
}

fn answer(line: &[u8], faults: &Faults, traffic: &Traffic) -> Result<Answer, String> {
    if let Ok(Question { report: Report::Traffic }) = serde_json::from_slice(line) {
        let (bytes_in, bytes_out) = (&traffic.bytes_in, &traffic.bytes_out);
        return Ok(Answer {
            bytes_in: Some(bytes_in.load(Ordering::Relaxed)),
            bytes_out: Some(bytes_out.load(Ordering::Relaxed)),
            ..Answer::default()
        });
    }
    let Request { channel, fault } =
        serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))?;
    faults.switch(channel.as_deref(), fault).map_err(|error| error.to_string())?;
    Ok(Answer { done: Some(true), ..Answer::default() })
}

/// Asks the service that keeps its blocks in `directory` to switch a fault, on one channel or on all. Blocks.
pub fn switch_fault(directory: &Path, channel: Option<&str>, fault: Fault) -> Result<(), ControlError> {
    let directory = directory.to_owned();
    let line = match exchange(&directory, &Request { channel: channel.map(str::to_owned), fault }) {
        Ok(line) => line,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
                return Err(ControlError::NotRunning { directory });
            }
            _ => return Err(ControlError::NoAnswer { directory, reason: error.to_string() }),
        },
    };
    match serde_json::from_slice::<Answer>(&line) {
        Ok(Answer { error: Some(error), .. }) => Err(ControlError::Refused(error)),
        Ok(_) => Ok(()),
        Err(error) => Err(ControlError::NoAnswer { directory, reason: error.to_string() }),
    }
}

fn exchange(directory: &Path, request: &Request) -> io::Result<Vec<u8>> {
    let mut stream = connect(&directory.join(SOCKET_NAME))?;
    stream.set_write_timeout(Some(REQUEST_TIMEOUT))?;
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    let limit = u64::try_from(REQUEST_BYTES_MAX).unwrap_or(u64::MAX);
    io::BufReader::new(stream).take(limit).read_until(b'\n', &mut answer)?;
    Ok(answer)
}
