//! The way of events to the owner: two lanes, control before bulk, one receiver at the end.
//!
//! `Connected` and control frames take the control lane; bulk messages and `Disconnected` take the bulk
//! lane, so that `Disconnected` comes after everything else of its connection. A full lane stops the
//! readers of the sockets, it drops nothing. The control lane is always emptied first; only the
//! [`OUTPUT_EVENTS`] already in the owner's channel are ahead of a control frame.

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::NetEvent;

/// Capacity of the channel the owner reads from.
const OUTPUT_EVENTS: usize = 4;

/// The sending ends.
#[derive(Debug, Clone)]
pub(crate) struct Lanes {
    control: mpsc::Sender<NetEvent>,
    bulk: mpsc::Sender<(NetEvent, Option<oneshot::Sender<()>>)>,
}

/// The owner no longer takes events.
#[derive(Debug)]
pub(crate) struct OwnerGone;

impl Lanes {
    /// Both lanes and the future that moves events on. It cancels `owner_gone` when the owner has
    /// dropped its receiver, and ends with `hard_stop`.
    pub(crate) fn new(
        control_max: usize,
        bulk_max: usize,
        owner_gone: CancellationToken,
        hard_stop: CancellationToken,
    ) -> (Self, mpsc::Receiver<NetEvent>, impl Future<Output = ()> + Send + 'static) {
        let (control, mut control_end) = mpsc::channel(control_max.max(1));
        let (bulk, mut bulk_end) = mpsc::channel::<(NetEvent, Option<oneshot::Sender<()>>)>(bulk_max.max(1));
        let (output, receiver) = mpsc::channel(OUTPUT_EVENTS);
        let forward = async move {
            loop {
                // The place comes first: an event picked before would be ahead of a later control frame.
                let place = tokio::select! {
                    () = hard_stop.cancelled() => return,
                    place = output.reserve() => place,
                };
                let Ok(place) = place else {
                    owner_gone.cancel();
                    return;
                };
                tokio::select! {
                    biased;
                    () = hard_stop.cancelled() => return,
                    Some(event) = control_end.recv() => { place.send(event); }
                    Some((event, delivered)) = bulk_end.recv() => {
                        place.send(event);
                        // Nobody waits for it when the connection's task was cut.
                        let _ = delivered.map(|delivered| delivered.send(()));
                    }
                    () = output.closed() => {
                        owner_gone.cancel();
                        return;
                    }
                }
            }
        };
        (Self { control, bulk }, receiver, forward)
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

    /// Passes on an event of the control lane if there is room right now.
    pub(crate) fn try_control(&self, event: NetEvent) {
        // Full or closed: the caller has counted the drop.
        let _ = self.control.try_send(event);
    }

    /// Passes on an event of the bulk lane.
    pub(crate) async fn bulk(&self, event: NetEvent) -> Result<(), OwnerGone> {
        self.bulk.send((event, None)).await.map_err(|_| OwnerGone)
    }

    /// Passes on the last event of a connection and waits until it is in the owner's channel.
    pub(crate) async fn last(&self, event: NetEvent) -> Result<(), OwnerGone> {
        let (delivered, done) = oneshot::channel();
        self.bulk.send((event, Some(delivered))).await.map_err(|_| OwnerGone)?;
        done.await.map_err(|_| OwnerGone)
    }
}
