//! One connection to an admitted peer: four streams, a task for each, and one that watches them.
//!
//! The watching task reports `Connected`, starts a reader or writer for every stream the driver hands
//! it, and ends the connection at the first error of any of them, when it is told to, or when the
//! streams are not all there in time. It reports `Disconnected` last, after its readers have stopped,
//! and begins only when the connection it replaces has reported its own.

use std::{
    sync::{Arc, OnceLock, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use grapevine_crypto::{Identity, PkiId};
use libp2p::{PeerId, Stream, swarm::ConnectionId};
use tokio::{
    sync::{Notify, mpsc},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    BodyLimit, NetEvent, SendError,
    bulk::{
        CREDIT_MAX, CREDIT_STANDING,
        incoming::{Arrival, Arrived, Incoming, Purse},
    },
    counters::count,
    driver::Command,
    frames::{self, ControlBatch, ControlFrame, FrameError, FrameLimits},
    gate::{LinkStream, StreamKind},
    handle::Shared,
    queue::SendQueue,
    tcp::KillSwitch,
};

/// Time for all four streams to be there.
const STREAMS_TIMEOUT: Duration = Duration::from_secs(15);
const STREAMS: usize = 4;
/// A smaller body is here as soon as its header: its beginning is not worth an event.
const HINT_BYTES_MIN: usize = 64 * 1024;
/// Control frames are written together up to this size: as much as fits one message of Noise with room to spare.
const CONTROL_BATCH_BYTES: usize = 32 * 1024;
/// How often it is said that a body goes on coming. Half of the shortest time after which dissemination gives one up.
const HINT_INTERVAL: Duration = Duration::from_millis(50);

/// The part of a connection that senders and the driver share.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: PkiId,
    pub(crate) peer_id: PeerId,
    pub(crate) connection: u64,
    pub(crate) kill: KillSwitch,
    control: SendQueue<Bytes>,
    /// Something waits in the outgoing bulk messages, or there is new credit for it.
    bulk_ready: Notify,
    /// What the peer may send.
    purse: Arc<Purse>,
    reason: OnceLock<String>,
    cancelled: CancellationToken,
    done: CancellationToken,
}

/// Bounds of the send queues.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    pub(crate) control_frames_max: usize,
    pub(crate) control_bytes_max: usize,
}

impl Link {
    pub(crate) fn new(
        peer: PkiId,
        peer_id: PeerId,
        connection: u64,
        kill: KillSwitch,
        limits: QueueLimits,
    ) -> Self {
        Self {
            peer,
            peer_id,
            connection,
            kill,
            control: SendQueue::new(limits.control_frames_max, limits.control_bytes_max),
            bulk_ready: Notify::new(),
            purse: Arc::new(Purse::new()),
            reason: OnceLock::new(),
            cancelled: CancellationToken::new(),
            done: CancellationToken::new(),
        }
    }

    /// Ends the connection; the first reason given is the one reported.
    pub(crate) fn close(&self, reason: &str) {
        // A second reason is dropped on purpose.
        let _ = self.reason.set(reason.to_owned());
        self.cancelled.cancel();
    }

    pub(crate) fn send_control(&self, frame: Bytes) -> Result<(), SendError> {
        let bytes = frame.len();
        self.control.push(frame, bytes).then_some(()).ok_or(SendError::QueueFull)
    }

    /// There is something new to be sent on the bulk stream.
    pub(crate) fn wake_bulk(&self) {
        self.bulk_ready.notify_one();
    }
}

/// What the task of a connection works with.
pub(crate) struct LinkTask {
    pub(crate) link: Arc<Link>,
    pub(crate) id: ConnectionId,
    pub(crate) replaces: Option<Arc<Link>>,
    pub(crate) streams: mpsc::Receiver<LinkStream>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) body_limit: Arc<dyn BodyLimit>,
    pub(crate) limits: FrameLimits,
    pub(crate) keep_alive_interval: Duration,
}

/// What `Connected` tells besides peer and connection.
pub(crate) struct Greeting {
    pub(crate) identity: Identity,
    pub(crate) session: [u8; 32],
    pub(crate) dialer: bool,
    pub(crate) remote_address: String,
}

impl LinkTask {
    /// Runs the connection until its end.
    pub(crate) async fn run(mut self, greeting: Greeting) {
        let hard_stop = self.shared.hard_stop.clone();
        tokio::select! {
            () = hard_stop.cancelled() => {}
            () = self.live(greeting) => {}
        }
        self.withdraw();
        self.link.done.cancel();
        // Fails only when the driver has ended and needs to know nothing more.
        let _ = self.shared.commands.send(Command::Ended(self.id));
    }

    /// Nothing can be sent any more, and the swarm closes the connection.
    fn withdraw(&self) {
        self.shared.links.remove(&self.link);
        self.shared.outgoing().close(self.link.connection);
        self.shared.registry.disconnected(&self.link.peer_id, self.link.connection);
        let _ = self.shared.commands.send(Command::Closing(self.id));
    }

    async fn live(&mut self, greeting: Greeting) {
        if let Some(replaced) = self.replaces.take() {
            replaced.done.cancelled().await;
        }
        let Greeting { identity, session, dialer, remote_address } = greeting;
        if self.link.cancelled.is_cancelled() {
            // Never reported as connected, but a dial is always answered.
            if dialer {
                let reason = self.link.reason.get().cloned().unwrap_or_default();
                self.shared.dial_failed(remote_address, reason);
            }
            return;
        }
        let (peer, connection) = (self.link.peer, self.link.connection);
        let remote_peer_id = self.link.peer_id.to_bytes();
        // Before the event: who hears of the connection may send at once.
        self.shared.outgoing().open(connection, CREDIT_STANDING);
        self.shared.links.insert(&self.link);
        let event = NetEvent::Connected {
            peer,
            connection,
            identity,
            session,
            dialer,
            remote_address,
            remote_peer_id,
        };
        if self.shared.lanes.control(event).await.is_err() {
            return;
        }
        let ended = self.serve().await;
        self.withdraw();
        self.link.close(&ended);
        let reason = self.link.reason.get().cloned().unwrap_or(ended);
        // The owner may be gone; then nobody is left to be told.
        let _ = self.shared.lanes.last(NetEvent::Disconnected { peer, connection, reason }).await;
    }

    /// Serves the streams; returns why that ended.
    async fn serve(&mut self) -> String {
        let mut tasks: JoinSet<Result<(), FrameError>> = JoinSet::new();
        let all_there = tokio::time::sleep(STREAMS_TIMEOUT);
        tokio::pin!(all_there);
        let cancelled = self.link.cancelled.clone();
        let mut started = 0_usize;
        let reason = loop {
            tokio::select! {
                () = cancelled.cancelled() => break "closed".to_owned(),
                () = &mut all_there, if started < STREAMS => break "streams missing".to_owned(),
                Some(ended) = tasks.join_next() => break reason_of(ended),
                stream = self.streams.recv() => match stream {
                    Some(LinkStream::Inbound(kind, stream)) => {
                        started = started.saturating_add(1);
                        self.read(kind, stream, &mut tasks);
                    }
                    Some(LinkStream::Outbound(kind, stream)) => {
                        started = started.saturating_add(1);
                        self.write(kind, stream, &mut tasks);
                    }
                    Some(LinkStream::Failed(reason)) => break reason,
                    None => break "closed".to_owned(),
                },
            }
        };
        tasks.shutdown().await;
        reason
    }

    fn read(&self, kind: StreamKind, mut stream: Stream, tasks: &mut JoinSet<Result<(), FrameError>>) {
        let (link, lanes, limits) = (self.link.clone(), self.shared.lanes.clone(), self.limits);
        let (counters, body_limit) = (self.shared.counters.clone(), self.body_limit.clone());
        let (peer, connection) = (link.peer, link.connection);
        match kind {
            StreamKind::Control => {
                let shared = self.shared.clone();
                tasks.spawn(async move {
                    loop {
                        match frames::read_control(&mut stream, &limits).await? {
                            ControlFrame::Frame(frame) if frame.is_empty() => {}
                            ControlFrame::Frame(frame) => {
                                count(&counters.control_in);
                                let event = NetEvent::Control { peer, connection, frame };
                                lanes.control(event).await.map_err(|_| FrameError::Closed)?;
                            }
                            ControlFrame::Credit(bytes) => {
                                if !shared.outgoing().add_credit(connection, bytes, CREDIT_MAX) {
                                    return Err(FrameError::Protocol("more credit than anybody needs"));
                                }
                                link.wake_bulk();
                            }
                        }
                    }
                })
            }
            StreamKind::Bulk => {
                let mut incoming =
                    Incoming::new(connection, limits, self.shared.budget.clone(), link.purse.clone());
                tasks.spawn(async move {
                    loop {
                        let limit = |header: &[u8]| body_limit.body_limit(peer, header);
                        let mut reported = Instant::now();
                        let news = |header: &Bytes, Arrival { length, arrived }: Arrival| {
                            let header = header.clone();
                            if arrived == 0 && length > HINT_BYTES_MIN {
                                lanes.try_control(NetEvent::BulkStarted { peer, connection, header });
                            } else if arrived < length && reported.elapsed() >= HINT_INTERVAL {
                                reported = Instant::now();
                                lanes.try_control(NetEvent::BulkProgress { peer, connection, header });
                            }
                        };
                        match incoming.next(&mut stream, limit, news).await? {
                            Arrived::Wanted { header, body, held } => {
                                count(&counters.bulk_in);
                                let event = NetEvent::Bulk { peer, connection, header, body };
                                lanes.bulk(event, held).await.map_err(|_| FrameError::Closed)?;
                            }
                            Arrived::Refused { header, length } => {
                                count(&counters.bulk_refused);
                                let header = header.len();
                                tracing::debug!(peer = %peer, header, length, "bulk message not wanted");
                            }
                        }
                    }
                })
            }
        };
    }

    fn write(&self, kind: StreamKind, stream: Stream, tasks: &mut JoinSet<Result<(), FrameError>>) {
        let (link, shared) = (self.link.clone(), self.shared.clone());
        let (progress, keep_alive) = (self.limits.progress_timeout, self.keep_alive_interval);
        match kind {
            StreamKind::Control => tasks.spawn(write_control(link, shared, stream, progress, keep_alive)),
            StreamKind::Bulk => tasks.spawn(write_bulk(link, shared, stream, progress)),
        };
    }
}

/// Writes what waits, all of it at once: one message of Noise and one write for many frames.
async fn write_control(
    link: Arc<Link>,
    shared: Arc<Shared>,
    mut stream: Stream,
    progress: Duration,
    keep_alive: Duration,
) -> Result<(), FrameError> {
    loop {
        let mut batch = ControlBatch::default();
        let (mut frames, mut bytes) = (0_u64, 0_usize);
        let mut next = tokio::select! {
            next = link.control.pop() => Some(next),
            () = link.purse.is_due() => None,
            () = tokio::time::sleep(keep_alive) => {
                batch.frame(&[])?;
                None
            }
        };
        while let Some((frame, size)) = next {
            batch.frame(&frame)?;
            (frames, bytes) = (frames.saturating_add(1), bytes.saturating_add(size));
            next = if bytes < CONTROL_BATCH_BYTES { link.control.try_pop() } else { None };
        }
        if let Some(credit) = link.purse.take_due() {
            batch.credit(credit);
        }
        batch.write(&mut stream, progress).await?;
        shared.counters.control_out.fetch_add(frames, Ordering::Relaxed);
        link.control.written(frames, bytes);
    }
}

async fn write_bulk(
    link: Arc<Link>,
    shared: Arc<Shared>,
    mut stream: Stream,
    progress: Duration,
) -> Result<(), FrameError> {
    let connection = link.connection;
    loop {
        let next = shared.outgoing().next(connection);
        let Some(piece) = next else {
            frames::flush(&mut stream, progress).await?;
            if !shared.outgoing().waits_for_credit(connection) {
                link.bulk_ready.notified().await;
            } else if tokio::time::timeout(progress, link.bulk_ready.notified()).await.is_err() {
                return Err(FrameError::Stalled(progress));
            }
            continue;
        };
        frames::write_piece(&mut stream, &piece, progress).await?;
        if piece.ends {
            shared.outgoing().written(connection);
            count(&shared.counters.bulk_out);
        }
    }
}

fn reason_of(ended: Result<Result<(), FrameError>, JoinError>) -> String {
    match ended {
        Ok(Ok(())) => "closed".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => format!("a stream's task failed: {error}"),
    }
}
