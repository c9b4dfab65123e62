//! yamux for the swarm, with a bound on what a connection may buffer.
//!
//! libp2p's own adapter leaves yamux's receive windows at up to 1 GiB a connection, and they do grow on a
//! loaded machine: the round trip that yamux measures includes the time its pings queue behind data, so
//! a fast sender and a slow owner end with tens of megabytes waiting unseen below every other bound. This
//! adapter sets the bound; the rest is what libp2p's does.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};

/// Streams of one connection: each side opens two, the rest is room for streams still being closed.
const STREAMS_MAX: usize = 8;
/// What yamux grants every stream from the beginning.
const STREAM_WINDOW_BYTES: usize = 256 * 1024;
/// Body of a yamux frame: with its header it fills one message of Noise as libp2p cuts them. yamux's own default of 16 KiB
/// costs four times the messages, writes and switches between tasks.
pub(crate) const FRAME_BODY_BYTES: usize = 65_535 - 1_024 - 12;

/// A multiplexed connection.
#[derive(Debug)]
pub(crate) struct Multiplexed<S> {
    connection: yamux::Connection<S>,
    /// yamux only makes progress by taking inbound streams; they wait here until the swarm wants them.
    inbound: VecDeque<yamux::Stream>,
    inbound_waker: Option<Waker>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Multiplexed<S> {
    /// Multiplexes over `stream`. Received bytes that no reader has taken stay below `window_bytes_max`,
    /// or below the windows all streams start with, whichever is more.
    pub(crate) fn new(stream: S, dialer: bool, window_bytes_max: usize) -> Self {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(STREAMS_MAX);
        config.set_split_send_size(FRAME_BODY_BYTES);
        let least = STREAMS_MAX.saturating_mul(STREAM_WINDOW_BYTES);
        config.set_max_connection_receive_window(Some(window_bytes_max.max(least)));
        let mode = if dialer { yamux::Mode::Client } else { yamux::Mode::Server };
        let connection = yamux::Connection::new(stream, config, mode);
        Self { connection, inbound: VecDeque::new(), inbound_waker: None }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<yamux::Stream>> {
        match ready!(self.connection.poll_next_inbound(cx)) {
            Some(stream) => Poll::Ready(stream.map_err(to_io)),
            None => Poll::Ready(Err(to_io(yamux::ConnectionError::Closed))),
        }
    }
}

fn to_io(error: yamux::ConnectionError) -> io::Error {
    match error {
        yamux::ConnectionError::Io(error) => error,
        error => io::Error::other(error),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Multiplexed<S> {
    type Substream = yamux::Stream;
    type Error = io::Error;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<yamux::Stream>> {
        let this = self.get_mut();
        if let Some(stream) = this.inbound.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let next = this.poll_next(cx);
        if next.is_pending() {
            this.inbound_waker = Some(cx.waker().clone());
        }
        next
    }

    fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<yamux::Stream>> {
        self.get_mut().connection.poll_new_outbound(cx).map_err(to_io)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().connection.poll_close(cx).map_err(to_io)
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        let this = self.get_mut();
        let stream = ready!(this.poll_next(cx))?;
        // More than this cannot be open; a stream that is dropped here is reset.
        if this.inbound.len() < STREAMS_MAX {
            this.inbound.push_back(stream);
            if let Some(waker) = this.inbound_waker.take() {
                waker.wake();
            }
        }
        // Polled again at once, but others come first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
