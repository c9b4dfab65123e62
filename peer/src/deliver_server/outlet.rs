//! The way out of a stream: hands one frame at a time to the connection.
//!
//! The connection takes a piece of the frame only when flow control lets it send; so a client that does not read
//! stops its stream here, with one frame held.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::Notify;

use super::frame::Frame;

/// The client is gone, or the stream was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

#[derive(Debug, Default)]
struct State {
    /// The frame being sent and the number of its next piece.
    frame: Option<(Frame, usize)>,
    /// Nothing comes after the frame but this.
    end: Option<tonic::Status>,
    /// When the connection last took something, or the frame was put here.
    progress: Option<Instant>,
    waker: Option<Waker>,
    gone: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Tells the stream that a frame was taken or that the client is gone.
    changed: Notify,
}

/// The stream's side. Dropping it ends the response with success.
#[derive(Debug)]
pub(super) struct Outlet {
    shared: Arc<Shared>,
}

/// The connection's side: the body of the response.
#[derive(Debug)]
pub(super) struct ResponseBody {
    shared: Arc<Shared>,
}

/// Both sides.
pub(super) fn outlet() -> (Outlet, ResponseBody) {
    let shared = Arc::<Shared>::default();
    (Outlet { shared: shared.clone() }, ResponseBody { shared })
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn until<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(value) = ready(&mut self.lock()) {
                return value;
            }
            changed.await;
        }
    }

    fn end(&self, status: tonic::Status, discard: bool) {
        let mut state = self.lock();
        if discard {
            state.frame = None;
        }
        state.end.get_or_insert(status);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

impl Outlet {
    /// Hands over a frame as soon as the one before is taken. Cancel safe: the frame is handed over or not.
    pub(super) async fn send(&self, frame: Frame) -> Result<(), Gone> {
        let mut frame = Some(frame);
        let place = |state: &mut State| {
            if state.gone || state.end.is_some() {
                return Some(Err(Gone));
            }
            if state.frame.is_some() {
                return None;
            }
            state.frame = frame.take().map(|frame| (frame, 0));
            state.progress = Some(Instant::now());
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
            Some(Ok(()))
        };
        self.shared.until(place).await
    }

    /// Waits until the client is gone.
    pub(super) async fn closed(&self) {
        self.shared.until(|state| state.gone.then_some(())).await;
    }

    /// For how long the connection has taken nothing of a frame that waits; zero if none does.
    pub(super) fn stalled_for(&self) -> Duration {
        let state = self.shared.lock();
        match (&state.frame, state.progress) {
            (Some(_), Some(progress)) => progress.elapsed(),
            _ => Duration::ZERO,
        }
    }

    /// Ends the response with an error and lets go of the frame that waits.
    pub(super) fn cut(&self, status: tonic::Status) {
        self.shared.end(status, true);
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.shared.end(tonic::Status::ok(""), false);
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, tonic::Status>>> {
        let mut state = self.shared.lock();
        if state.gone {
            return Poll::Ready(None);
        }
        if let Some((frame, next)) = &mut state.frame {
            let piece = frame.chunks.get(*next).cloned();
            *next = next.saturating_add(1);
            let finished = *next >= frame.chunks.len();
            if finished {
                state.frame = None;
            }
            state.progress = Some(Instant::now());
            drop(state);
            if finished {
                self.shared.changed.notify_waiters();
            }
            return Poll::Ready(Some(Ok(http_body::Frame::data(piece.unwrap_or_default()))));
        }
        if let Some(status) = state.end.take() {
            state.gone = true;
            drop(state);
            self.shared.changed.notify_waiters();
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(
                status.add_header(&mut trailers).map(|()| http_body::Frame::trailers(trailers)),
            ));
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.gone = true;
        state.frame = None;
        drop(state);
        self.shared.changed.notify_waiters();
    }
}
