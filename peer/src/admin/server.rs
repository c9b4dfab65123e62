//! The side of the admin socket inside the running peer.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use grapevine_private_socket::{ListenError, PrivateListener, SocketFile};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::protocol::{AdminCall, AdminRequest, AdminResponse, WireRequest};
use super::{
    ANSWER_TIMEOUT_MS, BLOCK_BYTES_MAX, CONNECTIONS_MAX, RANGES_MAX, REQUEST_BYTES_MAX, REQUEST_TIMEOUT_MS,
    SOCKET_NAME,
};

/// Why the admin socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AdminSocketError {
    /// Another peer answers on this socket.
    #[error(
        "another peer already runs on {}; stop it, or give this one its own peer.fileSystemPath",
        directory.display()
    )]
    InUse {
        /// Data directory of both.
        directory: PathBuf,
    },
    /// Something else has the socket's name.
    #[error("{} is not a socket; move that file away", path.display())]
    NotASocket {
        /// The offending path.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("the admin socket {} could not be opened: {source}; check that its directory is writable", path.display())]
    Io {
        /// Path of the socket.
        path: PathBuf,
        /// Message of the operating system.
        source: io::Error,
    },
}

/// The listening admin socket. The file is removed when this is dropped.
#[derive(Debug)]
pub struct AdminServer {
    listener: UnixListener,
    file: SocketFile,
}

impl AdminServer {
    /// Listens in the data directory `file_system_path`. Must be called inside a tokio runtime, and after the ledger was
    /// opened: the ledger's lock is what keeps two peers apart.
    ///
    /// # Errors
    /// [`AdminSocketError::InUse`] if a peer answers there, and whatever the operating system says.
    pub fn bind(file_system_path: &Path) -> Result<Self, AdminSocketError> {
        let path = file_system_path.join(SOCKET_NAME);
        let failed = |source| AdminSocketError::Io { path: path.clone(), source };
        let bound = PrivateListener::bind(&path).map_err(|error| match error {
            ListenError::InUse => AdminSocketError::InUse { directory: file_system_path.to_owned() },
            ListenError::NotASocket => AdminSocketError::NotASocket { path: path.clone() },
            ListenError::Io(source) => failed(source),
        })?;
        let (listener, file) = bound.into_parts().map_err(failed)?;
        Ok(Self { listener: UnixListener::from_std(listener).map_err(failed)?, file })
    }

    /// Path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Serves until `stop` is cancelled. Requests go to `calls`; if that queue is full the caller waits within its time.
    pub async fn serve(self, calls: mpsc::Sender<AdminCall>, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the admin socket could not accept a connection");
                    // Out of file descriptors, most likely: accepting again at once would spin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let place = Arc::clone(&places).try_acquire_owned();
            let (calls, stop) = (calls.clone(), stop.clone());
            tokio::spawn(async move {
                let serving = async {
                    match place {
                        Ok(_place) => serve_one(stream, &calls).await,
                        Err(_) => {
                            answer(stream, &refused("the peer answers too many others, try again")).await
                        }
                    }
                };
                tokio::select! { () = stop.cancelled() => {}, () = serving => {} }
            });
        }
    }
}

async fn serve_one(stream: UnixStream, calls: &mpsc::Sender<AdminCall>) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    let limit = u64::try_from(REQUEST_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut limited = (&mut reader).take(limit);
    let reading = limited.read_until(b'\n', &mut line);
    match timeout(Duration::from_millis(REQUEST_TIMEOUT_MS), reading).await {
        Ok(Ok(read)) if read > 0 => {}
        // Silence or a closed connection: there is nobody to answer.
        _ => return,
    }
    let response = if line.len() > REQUEST_BYTES_MAX {
        refused("the request is too long; give the path of the block instead")
    } else {
        match parse(&line).await {
            Ok(request) => forward(request, calls).await,
            Err(error) => AdminResponse::Error { error },
        }
    };
    answer(reader.into_inner(), &response).await;
}

async fn parse(line: &[u8]) -> Result<AdminRequest, String> {
    let request = serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))?;
    match request {
        WireRequest::Status => Ok(AdminRequest::Status),
        WireRequest::Repair { ranges, .. } if ranges.len() > RANGES_MAX => {
            Err(format!("more than {RANGES_MAX} ranges; name fewer at a time"))
        }
        WireRequest::Repair { channel, ranges } => Ok(AdminRequest::Repair { channel, ranges }),
        WireRequest::JoinByAnchor { channel, anchor, genesis_hash } => {
            Ok(AdminRequest::JoinByAnchor { channel, anchor, genesis_hash })
        }
        WireRequest::Join { block } if block.starts_with('/') => {
            let path = PathBuf::from(block);
            let block = read_block(&path).await.map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(AdminRequest::Join { block })
        }
        WireRequest::Join { block } => {
            let block = BASE64
                .decode(block.as_bytes())
                .map_err(|error| format!("the block is neither base64 nor an absolute path: {error}"))?;
            Ok(AdminRequest::Join { block: Bytes::from(block) })
        }
    }
}

async fn read_block(path: &Path) -> std::io::Result<Bytes> {
    let mut bytes = Vec::new();
    tokio::fs::File::open(path)
        .await?
        .take(BLOCK_BYTES_MAX.saturating_add(1))
        .read_to_end(&mut bytes)
        .await?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > BLOCK_BYTES_MAX {
        return Err(std::io::Error::other("the file is larger than any block"));
    }
    Ok(Bytes::from(bytes))
}

async fn forward(request: AdminRequest, calls: &mpsc::Sender<AdminCall>) -> AdminResponse {
    let (sender, receiver) = oneshot::channel();
    let asking = async {
        calls.send(AdminCall { request, answer: sender }).await.ok()?;
        receiver.await.ok()
    };
    match timeout(Duration::from_millis(ANSWER_TIMEOUT_MS), asking).await {
        Ok(Some(response)) => response,
        Ok(None) => refused("the peer is shutting down; start it again first"),
        Err(_) => refused("the peer did not answer in time; look into its log"),
    }
}

async fn answer(mut stream: UnixStream, response: &AdminResponse) {
    let Ok(mut line) = serde_json::to_vec(response) else { return };
    line.push(b'\n');
    let writing = async {
        stream.write_all(&line).await?;
        stream.shutdown().await
    };
    // A client that has gone away or does not read is its own problem.
    let _unread = timeout(Duration::from_millis(ANSWER_TIMEOUT_MS), writing).await;
}

fn refused(why: &str) -> AdminResponse {
    AdminResponse::Error { error: why.to_owned() }
}
