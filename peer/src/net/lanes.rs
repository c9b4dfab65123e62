//! The way of events to the owner: two lanes, control before bulk.
//!
//! `Connected`, control frames and the beginnings of bodies take the control lane; bulk messages and `Disconnected` take
//! the bulk lane, so that `Disconnected` comes after everything else of its connection. A full lane stops the readers of
//! the sockets, it drops nothing but what is said to be droppable. The owner reads both lanes itself: a task in between
//! would cost every frame a switch. The control lane is always emptied first.

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{NetEvent, bulk::budget::Held};

/// The sending ends.
#[derive(Debug, Clone)]
pub(crate) struct Lanes {
    control: mpsc::Sender<NetEvent>,
    bulk: mpsc::Sender<Item>,
}

/// An event of the bulk lane and what ends when the owner takes it.
#[derive(Debug)]
struct Item {
    event: NetEvent,
    /// Accounts for the body.
    held: Option<Held>,
    delivered: Option<oneshot::Sender<()>>,
}

impl Item {
    fn hand_over(self) -> NetEvent {
        drop(self.held);
        // Nobody waits for it when the connection's task was cut.
        let _ = self.delivered.map(|delivered| delivered.send(()));
        self.event
    }
}

/// The owner no longer takes events.
#[derive(Debug)]
pub(crate) struct OwnerGone;

/// What the transport reports, in order. Dropping it stops the transport.
#[derive(Debug)]
pub struct NetEvents {
    control: mpsc::Receiver<NetEvent>,
    bulk: mpsc::Receiver<Item>,
    stopped: CancellationToken,
    _owner_gone: DropGuard,
}

impl NetEvents {
    /// The next event; `None` once the transport has stopped and all has been read. Nothing is lost when the future is dropped.
    pub async fn recv(&mut self) -> Option<NetEvent> {
        tokio::select! {
            biased;
            Some(event) = self.control.recv() => Some(event),
            Some(item) = self.bulk.recv() => Some(item.hand_over()),
            () = self.stopped.cancelled() => None,
        }
    }

    /// The next event, if one is there.
    pub fn try_recv(&mut self) -> Option<NetEvent> {
        if let Ok(event) = self.control.try_recv() {
            return Some(event);
        }
        self.bulk.try_recv().ok().map(Item::hand_over)
    }
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

    /// Passes on a body with what accounts for it.
    pub(crate) async fn bulk(&self, event: NetEvent, held: Held) -> Result<(), OwnerGone> {
        self.bulk.send(Item { event, held: Some(held), delivered: None }).await.map_err(|_| OwnerGone)
    }

    /// Passes on the last event of a connection and waits until the owner has it.
    pub(crate) async fn last(&self, event: NetEvent) -> Result<(), OwnerGone> {
        let (delivered, done) = oneshot::channel();
        self.bulk
            .send(Item { event, held: None, delivered: Some(delivered) })
            .await
            .map_err(|_| OwnerGone)?;
        done.await.map_err(|_| OwnerGone)
    }
}
