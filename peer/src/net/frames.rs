//! The frames on the two streams, read and written with every bound checked.
//!
//! - control: u32 length ‖ frame. Length 0 is a keep-alive and never reported.
//! - bulk: u32 header length ‖ header ‖ u32 body length ‖ body.
//!
//! Integers are big-endian. A length is compared with its limit before a byte is allocated for it, and
//! buffers grow with what has arrived, not with what was announced. Bodies that the owner does not want
//! are read past with a small buffer and counted: a peer that lags behind with its configuration must
//! not lose its connection over a block it cannot judge yet. Above the absolute limit the connection
//! ends. A reader or writer in the middle of a frame that moves no byte for the progress timeout ends
//! the connection too.

use std::{io, time::Duration};

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bodies are written in pieces of at most this size.
const CHUNK_BYTES: usize = 128 * 1024;
/// First allocation for a body, and the buffer for reading past one.
const STEP_BYTES: usize = 64 * 1024;

/// Why a stream, and with it the connection, has to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("closed by the other side")]
    Closed,
    #[error("connection lost: {0}")]
    Io(io::Error),
    #[error("a frame of {length} bytes where {limit} are allowed")]
    TooLarge { length: usize, limit: usize },
    #[error("no byte moved for {} s", .0.as_secs_f32())]
    Stalled(Duration),
    #[error("nothing heard for {} s", .0.as_secs_f32())]
    Silent(Duration),
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::WriteZero => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// Sizes and times a reader holds a peer to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameLimits {
    pub(crate) control_bytes_max: usize,
    pub(crate) header_bytes_max: usize,
    pub(crate) body_bytes_max: usize,
    pub(crate) progress_timeout: Duration,
    pub(crate) silence_timeout: Duration,
}

/// How far a body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) length: usize,
    pub(crate) arrived: usize,
}

/// A bulk message as it came in.
#[derive(Debug)]
pub(crate) enum BulkFrame {
    /// Header and body, the body within the owner's limit.
    Wanted { header: Bytes, body: Bytes },
    /// The body was read past.
    Refused { header: Bytes, length: usize },
}

/// Reads one control frame; empty for a keep-alive.
pub(crate) async fn read_control<S: AsyncRead + Unpin>(
    stream: &mut S,
    limits: &FrameLimits,
) -> Result<Bytes, FrameError> {
    let silence = limits.silence_timeout;
    let length = tokio::time::timeout(silence, read_length(stream, limits.control_bytes_max));
    let length = length.await.map_err(|_| FrameError::Silent(silence))??;
    read_part(stream, length, limits.progress_timeout).await
}

/// Reads one bulk message, waiting for its first byte without limit. `body_limit` is asked with the
/// header before anything is allocated for the body; `news` hears how a wanted body comes in.
pub(crate) async fn read_bulk<S: AsyncRead + Unpin>(
    stream: &mut S,
    limits: &FrameLimits,
    body_limit: impl FnOnce(&[u8]) -> Option<usize>,
    mut news: impl FnMut(&Bytes, Arrival),
) -> Result<BulkFrame, FrameError> {
    let header_length = read_length(stream, limits.header_bytes_max).await?;
    let progress = limits.progress_timeout;
    let header = read_part(stream, header_length, progress).await?;
    let length = tokio::time::timeout(progress, read_length(stream, limits.body_bytes_max));
    let length = length.await.map_err(|_| FrameError::Stalled(progress))??;
    if body_limit(&header).is_some_and(|limit| length <= limit) {
        news(&header, Arrival { length, arrived: 0 });
        let body = read_part_with(stream, length, progress, |arrived| {
            news(&header, Arrival { length, arrived });
        });
        let body = body.await?;
        return Ok(BulkFrame::Wanted { header, body });
    }
    read_past(stream, length, progress).await?;
    Ok(BulkFrame::Refused { header, length })
}

async fn read_length<S: AsyncRead + Unpin>(stream: &mut S, limit: usize) -> Result<usize, FrameError> {
    let mut length = [0_u8; 4];
    stream.read_exact(&mut length).await?;
    // A length that does not fit a usize is too large on any machine.
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > limit {
        return Err(FrameError::TooLarge { length, limit });
    }
    Ok(length)
}

async fn read_part<S: AsyncRead + Unpin>(
    stream: &mut S,
    length: usize,
    progress: Duration,
) -> Result<Bytes, FrameError> {
    read_part_with(stream, length, progress, |_| {}).await
}

/// Reads a part and says after every step how much of it is here.
async fn read_part_with<S: AsyncRead + Unpin>(
    stream: &mut S,
    length: usize,
    progress: Duration,
    mut arrived: impl FnMut(usize),
) -> Result<Bytes, FrameError> {
    let mut part = Vec::new();
    while part.len() < length {
        let filled = part.len();
        let step = length.saturating_sub(filled).min(STEP_BYTES.max(filled));
        // A block stays in this memory for as long as it lives.
        part.reserve_exact(step);
        part.resize(filled.saturating_add(step), 0);
        let room = part.get_mut(filled..).unwrap_or_default();
        fill(stream, room, progress).await?;
        arrived(part.len());
    }
    Ok(Bytes::from(part))
}

async fn read_past<S: AsyncRead + Unpin>(
    stream: &mut S,
    length: usize,
    progress: Duration,
) -> Result<(), FrameError> {
    let mut buffer = vec![0; STEP_BYTES.min(length)];
    let mut left = length;
    while left > 0 {
        let step = buffer.len().min(left);
        let room = buffer.get_mut(..step).unwrap_or_default();
        fill(stream, room, progress).await?;
        left = left.saturating_sub(step);
    }
    Ok(())
}

async fn fill<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut room: &mut [u8],
    progress: Duration,
) -> Result<(), FrameError> {
    while !room.is_empty() {
        let count = tokio::time::timeout(progress, stream.read(room))
            .await
            .map_err(|_| FrameError::Stalled(progress))??;
        if count == 0 {
            return Err(FrameError::Closed);
        }
        room = room.get_mut(count..).unwrap_or_default();
    }
    Ok(())
}

/// Writes one control frame; an empty one is a keep-alive.
pub(crate) async fn write_control<S: AsyncWrite + Unpin>(
    stream: &mut S,
    frame: &[u8],
    progress: Duration,
) -> Result<(), FrameError> {
    let length = wire_length(frame.len())?.to_be_bytes();
    let mut message = Vec::with_capacity(length.len().saturating_add(frame.len()));
    message.extend_from_slice(&length);
    message.extend_from_slice(frame);
    write_all(stream, &message, progress).await?;
    flush(stream, progress).await
}

/// Writes one bulk message.
pub(crate) async fn write_bulk<S: AsyncWrite + Unpin>(
    stream: &mut S,
    header: &[u8],
    body: &[u8],
    progress: Duration,
) -> Result<(), FrameError> {
    let mut front = Vec::with_capacity(header.len().saturating_add(8));
    front.extend_from_slice(&wire_length(header.len())?.to_be_bytes());
    front.extend_from_slice(header);
    front.extend_from_slice(&wire_length(body.len())?.to_be_bytes());
    write_all(stream, &front, progress).await?;
    for chunk in body.chunks(CHUNK_BYTES) {
        write_all(stream, chunk, progress).await?;
    }
    flush(stream, progress).await
}

fn wire_length(length: usize) -> Result<u32, FrameError> {
    let limit = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
    u32::try_from(length).map_err(|_| FrameError::TooLarge { length, limit })
}

async fn write_all<S: AsyncWrite + Unpin>(
    stream: &mut S,
    mut bytes: &[u8],
    progress: Duration,
) -> Result<(), FrameError> {
    while !bytes.is_empty() {
        let count = tokio::time::timeout(progress, stream.write(bytes))
            .await
            .map_err(|_| FrameError::Stalled(progress))??;
        if count == 0 {
            return Err(FrameError::Closed);
        }
        bytes = bytes.get(count..).unwrap_or_default();
    }
    Ok(())
}

async fn flush<S: AsyncWrite + Unpin>(stream: &mut S, progress: Duration) -> Result<(), FrameError> {
    tokio::time::timeout(progress, stream.flush())
        .await
        .map_err(|_| FrameError::Stalled(progress))?
        .map_err(FrameError::from)
}
