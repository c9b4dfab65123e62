//! Reading frames from hostile bytes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncRead, io::Cursor};
use rand::{RngExt as _, SeedableRng as _, rngs::ChaCha8Rng};

use crate::net::frames::{self, ControlBatch, ControlFrame, FrameError, FrameLimits};

pub(super) const LIMITS: FrameLimits = FrameLimits {
    control_bytes_max: 256 << 10,
    header_bytes_max: 64 << 10,
    body_bytes_max: 128 << 20,
    progress_timeout: Duration::from_millis(200),
    silence_timeout: Duration::from_millis(200),
};

#[tokio::test]
async fn random_bytes_never_panic() {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    for round in 0..4000_usize {
        let mut bytes: Vec<u8> = (0..round % 300).map(|_| random.random()).collect();
        if round % 2 == 0 {
            // Small lengths, so that the parts behind them are reached.
            for byte in bytes.iter_mut().take(3) {
                *byte = 0;
            }
        }
        let mut stream = Cursor::new(bytes);
        while frames::read_control(&mut stream, &LIMITS).await.is_ok() {}
    }
}

#[tokio::test]
async fn a_length_beyond_the_limit_is_refused_before_anything_is_read() {
    let mut stream = Cursor::new((u32::MAX >> 1).to_be_bytes());
    let error = frames::read_control(&mut stream, &LIMITS).await.unwrap_err();
    assert!(matches!(error, FrameError::TooLarge { .. }));
}

#[tokio::test]
async fn a_frame_that_stops_in_the_middle_is_given_up() {
    let (mut near, far) = tokio::io::duplex(64);
    tokio::io::AsyncWriteExt::write_all(&mut near, &[0, 0, 0, 9, 1]).await.unwrap();
    let error = frames::read_control(&mut Duplex(far), &LIMITS).await.unwrap_err();
    assert!(matches!(error, FrameError::Stalled(_)), "{error}");
}

struct Duplex(tokio::io::DuplexStream);

impl AsyncRead for Duplex {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut room = tokio::io::ReadBuf::new(room);
        std::task::ready!(tokio::io::AsyncRead::poll_read(Pin::new(&mut self.0), cx, &mut room))?;
        Poll::Ready(Ok(room.filled().len()))
    }
}

#[tokio::test]
async fn what_is_written_is_read() {
    let mut batch = ControlBatch::default();
    batch.frame(b"frame").unwrap();
    batch.credit(70_000);
    batch.frame(b"").unwrap();
    let mut bytes = Cursor::new(Vec::new());
    batch.write(&mut bytes, LIMITS.progress_timeout).await.unwrap();
    let mut stream = Cursor::new(bytes.into_inner());
    let mut read = Vec::new();
    while let Ok(frame) = frames::read_control(&mut stream, &LIMITS).await {
        read.push(frame);
    }
    let frame = |bytes: &'static [u8]| ControlFrame::Frame(bytes.into());
    assert_eq!(read, [frame(b"frame"), ControlFrame::Credit(70_000), frame(b"")]);
}
