//! The way of events to the owner: two lanes, control before bulk.
//!
//! `Connected`, control frames and the beginnings of bodies take the control lane; bulk messages and `Disconnected` take
//! the bulk lane, so that `Disconnected` comes after everything else of its connection. A full lane stops the readers of
//! the sockets, it drops nothing but what is said to be droppable. The owner reads both lanes itself: a task in between
//! would cost every frame a switch. The control lane is always emptied first.

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::NetEvent;

/// The sending ends.
#[derive(Debug, Clone)]
pub(crate) struct Lanes {
    control: mpsc::Sender<NetEvent>,
    bulk: mpsc::Sender<(NetEvent, Option<oneshot::Sender<()>>)>,
}

/// The owner no longer takes events.
#[derive(Debug)]
pub(crate) struct OwnerGone;

/// What the transport reports, in order. Dropping it stops the transport.
#[derive(Debug)]
pub struct NetEvents {
    control: mpsc::Receiver<NetEvent>,
    bulk: mpsc::Receiver<(NetEvent, Option<oneshot::Sender<()>>)>,
    stopped: CancellationToken,
    _owner_gone: DropGuard,
}

impl NetEvents {
    /// The next event; `None` once the transport has stopped and all has been read. Nothing is lost when the future is dropped.
    pub async fn recv(&mut self) -> Option<NetEvent> {
        tokio::select! {
            biased;
            Some(event) = self.control.recv() => Some(event),
            Some((event, delivered)) = self.bulk.recv() => Some(hand_over(event, delivered)),
            () = self.stopped.cancelled() => None,
        }
    }

    /// The next event, if one is there.
    pub fn try_recv(&mut self) -> Option<NetEvent> {
        if let Ok(event) = self.control.try_recv() {
            return Some(event);
        }
        self.bulk.try_recv().ok().map(|(event, delivered)| hand_over(event, delivered))
    }
}

fn hand_over(event: NetEvent, delivered: Option<oneshot::Sender<()>>) -> NetEvent {
    // Nobody waits for it when the connection's task was cut.
    let _ = delivered.map(|delivered| delivered.send(()));
    event
}

impl Lanes {
    /// Both lanes, and the owner's end. It cancels `owner_gone` when it is dropped, and ends with `stopped`.
    pub(crate) fn new(
        control_max: usize,
        bulk_max: usize,
        owner_gone: CancellationToken,
        stopped: CancellationToken,
    ) -> (Self, NetEvents) {
        let (control, control_end) = mpsc::channel(control_max.max(1));
        let (bulk, bulk_end) = mpsc::channel(bulk_max.max(1));
        let _owner_gone = owner_gone.drop_guard();
        let events = NetEvents { control: control_end, bulk: bulk_end, stopped, _owner_gone };
        (Self { control, bulk }, events)
    }

    /// Passes on an event of the control lane.
    pub(crate) async fn control(&self, event: NetEvent) -> Result<(), OwnerGone> {
        self.control.send(event).await.map_err(|_| OwnerGone)
    }

    /// Passes on an event of the control lane once there is room; `before` runs just before.
    pub(crate) async fn control_after(
        &self,
        event: NetEvent,
        before: impl FnOnce() + Send,
    ) -> Result<(), OwnerGone> {
        let place = self.control.reserve().await.map_err(|_| OwnerGone)?;
        before();
        place.send(event);
        Ok(())
    }

    /// Passes on an event of the control lane if there is room right now; for what may be left out.
    pub(crate) fn try_control(&self, event: NetEvent) {
        // Full or closed: the caller has counted the drop, or it was only a hint.
        let _ = self.control.try_send(event);
    }

    /// Passes on an event of the bulk lane.
    pub(crate) async fn bulk(&self, event: NetEvent) -> Result<(), OwnerGone> {
        self.bulk.send((event, None)).await.map_err(|_| OwnerGone)
    }

    /// Passes on the last event of a connection and waits until the owner has it.
    pub(crate) async fn last(&self, event: NetEvent) -> Result<(), OwnerGone> {
        let (delivered, done) = oneshot::channel();
        self.bulk.send((event, Some(delivered))).await.map_err(|_| OwnerGone)?;
        done.await.map_err(|_| OwnerGone)
    }
}
