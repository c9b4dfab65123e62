//! Reading and writing with every bound checked: control frames whole, and the parts of bulk frames.
//!
//! - control: `u32 length ‖ frame`. Length 0 is a keep-alive and never reported. With its top bit set the word is no length but
//!   credit: the other bits say how many more body bytes may be sent on the bulk stream ([`bulk`](super::bulk)).
//!
//! Integers are big-endian. A length is compared with its limit before a byte is allocated for it, and
//! buffers grow with what has arrived, not with what was announced. A reader or writer in the middle of a
//! frame that moves no byte for the progress timeout ends the connection.

use std::{io, time::Duration};

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::bulk::{CHUNK_HEAD_BYTES, kind, outgoing::Piece};

/// First allocation for a part, and the buffer for reading past one.
const STEP_BYTES: usize = 64 * 1024;
/// Marks credit.
const CREDIT_BIT: u32 = 1 << 31;
/// Most credit that one word tells of.
pub(crate) const CREDIT_FRAME_MAX: u32 = CREDIT_BIT - 1;

/// Why a stream, and with it the connection, has to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("closed by the other side")]
    Closed,
    #[error("connection lost: {0}")]
    Io(io::Error),
    #[error("a frame of {length} bytes where {limit} are allowed")]
    TooLarge { length: usize, limit: usize },
    #[error("against the protocol: {0}")]
    Protocol(&'static str),
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

/// What comes on the control stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ControlFrame {
    /// A frame; empty for a keep-alive.
    Frame(Bytes),
    /// So many more body bytes may be sent.
    Credit(usize),
}

/// Reads one control frame.
pub(crate) async fn read_control<S: AsyncRead + Unpin>(
    stream: &mut S,
    limits: &FrameLimits,
) -> Result<ControlFrame, FrameError> {
    let silence = limits.silence_timeout;
    let word = tokio::time::timeout(silence, read_array_unlimited(stream));
    let word = u32::from_be_bytes(word.await.map_err(|_| FrameError::Silent(silence))??);
    if word & CREDIT_BIT != 0 {
        return Ok(ControlFrame::Credit(to_length(word & !CREDIT_BIT)));
    }
    let length = bounded(to_length(word), limits.control_bytes_max)?;
    Ok(ControlFrame::Frame(read_part(stream, length, limits.progress_timeout).await?))
}

/// Reads so many bytes, waiting without limit.
pub(crate) async fn read_array_unlimited<S: AsyncRead + Unpin, const N: usize>(
    stream: &mut S,
) -> Result<[u8; N], FrameError> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Reads so many bytes.
pub(crate) async fn read_array<S: AsyncRead + Unpin, const N: usize>(
    stream: &mut S,
    progress: Duration,
) -> Result<[u8; N], FrameError> {
    let bytes = tokio::time::timeout(progress, read_array_unlimited(stream));
    bytes.await.map_err(|_| FrameError::Stalled(progress))?
}

/// Reads a length within its limit.
pub(crate) async fn read_length<S: AsyncRead + Unpin>(
    stream: &mut S,
    limit: usize,
    progress: Duration,
) -> Result<usize, FrameError> {
    bounded(to_length(u32::from_be_bytes(read_array(stream, progress).await?)), limit)
}

/// A length that does not fit a usize is too large on any machine.
fn to_length(word: u32) -> usize {
    usize::try_from(word).unwrap_or(usize::MAX)
}

fn bounded(length: usize, limit: usize) -> Result<usize, FrameError> {
    if length > limit { Err(FrameError::TooLarge { length, limit }) } else { Ok(length) }
}

/// Reads so many bytes into memory that grows with them.
pub(crate) async fn read_part<S: AsyncRead + Unpin>(
    stream: &mut S,
    length: usize,
    progress: Duration,
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
    }
    Ok(Bytes::from(part))
}

/// Reads so many bytes and keeps none.
pub(crate) async fn read_past<S: AsyncRead + Unpin>(
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

/// Fills a buffer.
pub(crate) async fn fill<S: AsyncRead + Unpin>(
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

/// What is to be written on the control stream at once.
#[derive(Debug, Default)]
pub(crate) struct ControlBatch(Vec<u8>);

impl ControlBatch {
    /// Adds a frame; an empty one is a keep-alive.
    pub(crate) fn frame(&mut self, frame: &[u8]) -> Result<(), FrameError> {
        let length = wire_length(frame.len()).and_then(|length| {
            let limit = to_length(CREDIT_FRAME_MAX);
            if length > CREDIT_FRAME_MAX {
                return Err(FrameError::TooLarge { length: frame.len(), limit });
            }
            Ok(length)
        })?;
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(frame);
        Ok(())
    }

    /// Adds credit.
    pub(crate) fn credit(&mut self, bytes: u32) {
        self.0.extend_from_slice(&(CREDIT_BIT | bytes.min(CREDIT_FRAME_MAX)).to_be_bytes());
    }

    /// Writes all of it.
    pub(crate) async fn write<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        progress: Duration,
    ) -> Result<(), FrameError> {
        write_all(stream, &self.0, progress).await?;
        flush(stream, progress).await
    }
}

/// Writes one piece of a bulk message; it is not flushed.
pub(crate) async fn write_piece<S: AsyncWrite + Unpin>(
    stream: &mut S,
    piece: &Piece,
    progress: Duration,
) -> Result<(), FrameError> {
    let header = piece.start.as_ref().map_or(0, |(header, _)| header.len());
    let mut bytes =
        Vec::with_capacity(header.saturating_add(piece.chunk.len()).saturating_add(4 * CHUNK_HEAD_BYTES));
    if let Some((header, length)) = &piece.start {
        bytes.extend_from_slice(&[kind::START, piece.slot]);
        bytes.extend_from_slice(&wire_length(header.len())?.to_be_bytes());
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(&wire_length(*length)?.to_be_bytes());
    }
    if !piece.chunk.is_empty() {
        bytes.extend_from_slice(&[kind::CHUNK, piece.slot]);
        bytes.extend_from_slice(&wire_length(piece.chunk.len())?.to_be_bytes());
        // Once more copied: two writes would be two frames.
        bytes.extend_from_slice(&piece.chunk);
    }
    write_all(stream, &bytes, progress).await
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

/// Sees to it that all that was written is on its way.
pub(crate) async fn flush<S: AsyncWrite + Unpin>(
    stream: &mut S,
    progress: Duration,
) -> Result<(), FrameError> {
    tokio::time::timeout(progress, stream.flush())
        .await
        .map_err(|_| FrameError::Stalled(progress))?
        .map_err(FrameError::from)
}
