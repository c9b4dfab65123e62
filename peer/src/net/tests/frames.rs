//! Reading frames from hostile bytes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncRead, io::Cursor};
use rand::{RngExt as _, SeedableRng as _, rngs::ChaCha8Rng};

use crate::net::frames::{self, BulkFrame, FrameError, FrameLimits};

const LIMITS: FrameLimits = FrameLimits {
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
        let mut stream = Cursor::new(bytes.clone());
        while frames::read_control(&mut stream, &LIMITS).await.is_ok() {}
        let mut stream = Cursor::new(bytes);
        while frames::read_bulk(&mut stream, &LIMITS, |header| Some(header.len()), |_, _| {}).await.is_ok() {}
    }
}

#[tokio::test]
async fn lengths_beyond_the_limits_are_refused_before_anything_is_read() {
    let mut stream = Cursor::new(u32::MAX.to_be_bytes());
    let error = frames::read_control(&mut stream, &LIMITS).await.unwrap_err();
    assert!(matches!(error, FrameError::TooLarge { .. }));
    let mut stream = Cursor::new((65_u32 << 10).to_be_bytes());
    let error = frames::read_bulk(&mut stream, &LIMITS, |_| panic!("not asked"), |_, _| {}).await.unwrap_err();
    assert!(matches!(error, FrameError::TooLarge { .. }));
    let mut bytes = vec![0, 0, 0, 1, b'h'];
    bytes.extend_from_slice(&(129_u32 << 20).to_be_bytes());
    let error =
        frames::read_bulk(&mut Cursor::new(bytes), &LIMITS, |_| panic!("not asked"), |_, _| {}).await.unwrap_err();
    assert!(matches!(error, FrameError::TooLarge { .. }));
}

/// Gives some bytes, then nothing, and records the largest buffer it was asked to fill.
struct Meagre {
    bytes: Cursor<Vec<u8>>,
    room_max: usize,
}

impl AsyncRead for Meagre {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        self.room_max = self.room_max.max(room.len());
        Pin::new(&mut self.bytes).poll_read(cx, room)
    }
}

fn announces(length: u32, arrives: usize) -> Meagre {
    let mut bytes = vec![0, 0, 0, 1, b'h'];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.resize(bytes.len() + arrives, 0);
    Meagre { bytes: Cursor::new(bytes), room_max: 0 }
}

#[tokio::test]
async fn buffers_grow_with_what_arrives() {
    let mut stream = announces(100 << 20, 100_000);
    let error = frames::read_bulk(&mut stream, &LIMITS, |_| Some(usize::MAX), |_, _| {}).await.unwrap_err();
    assert!(matches!(error, FrameError::Closed));
    assert!(stream.room_max <= 128 << 10, "{} bytes allocated for 100000", stream.room_max);
}

#[tokio::test]
async fn a_body_that_is_not_wanted_is_read_past_in_small_steps() {
    let mut stream = announces(4 << 20, 4 << 20);
    let frame = frames::read_bulk(&mut stream, &LIMITS, |_| Some((4 << 20) - 1), |_, _| {}).await.unwrap();
    assert!(matches!(frame, BulkFrame::Refused { length: 4_194_304, .. }));
    assert!(stream.room_max <= 64 << 10, "{}", stream.room_max);
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
    let mut bytes = Cursor::new(Vec::new());
    frames::write_control(&mut bytes, b"frame", LIMITS.progress_timeout).await.unwrap();
    frames::write_control(&mut bytes, b"", LIMITS.progress_timeout).await.unwrap();
    let mut stream = Cursor::new(bytes.into_inner());
    assert_eq!(frames::read_control(&mut stream, &LIMITS).await.unwrap(), b"frame".as_slice());
    assert_eq!(frames::read_control(&mut stream, &LIMITS).await.unwrap(), b"".as_slice());

    let body = vec![3; 300_000];
    let mut bytes = Cursor::new(Vec::new());
    frames::write_bulk(&mut bytes, b"header", &body, LIMITS.progress_timeout).await.unwrap();
    let mut stream = Cursor::new(bytes.into_inner());
    let mut arrivals = Vec::new();
    let news = |header: &bytes::Bytes, arrival: frames::Arrival| {
        assert_eq!(header, b"header".as_slice());
        arrivals.push(arrival.arrived);
    };
    let frame = frames::read_bulk(&mut stream, &LIMITS, |_| Some(300_000), news).await.unwrap();
    assert_eq!(arrivals.first(), Some(&0), "told before the body");
    assert_eq!(arrivals.last(), Some(&300_000));
    let BulkFrame::Wanted { header, body: read } = frame else { panic!("wanted") };
    assert_eq!(header, b"header".as_slice());
    assert!(read == body);
}
