//! One stream: reads seeks and answers each with its blocks and one status.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{Stream, StreamExt};
use grapevine_channels::deliver::{Access, Refusal, Request, check_health, range};
use grapevine_channels::proto::common::{Envelope, Status};
use grapevine_channels::proto::orderer::{SeekBehavior, SeekContentType, SeekInfo};
use grapevine_crypto::Digest;
use tokio::sync::watch;

use super::Shared;
use super::blocks::Wanted;
use super::channels::ChannelState;
use super::frame::{Form, Frame};
use super::outlet::{Gone, Outlet};

/// How often a stream looks whether others wait for the memory that its client does not take.
const STALL_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the last status may wait for the client when the service stops.
const LAST_STATUS_TIMEOUT: Duration = Duration::from_millis(500);

/// Which method of `protos.Deliver` was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// `Deliver`.
    Blocks,
    /// `DeliverFiltered`.
    Filtered,
    /// `DeliverWithPrivateData`, which is answered with NOT_IMPLEMENTED: this peer has no private data.
    PrivateData,
}

impl Method {
    /// Name of the resource that the channel's ACLs guard (Fabric: `core/aclmgmt/resources`).
    fn resource(self) -> &'static str {
        match self {
            Self::Blocks | Self::PrivateData => "event/Block",
            Self::Filtered => "event/FilteredBlock",
        }
    }

    fn form(self, seek: &SeekInfo) -> Form {
        match (self, seek.content_type()) {
            (Self::Filtered, _) => Form::Filtered,
            (_, SeekContentType::HeaderWithSig) => Form::Header,
            (_, SeekContentType::Block) => Form::Whole,
        }
    }
}

/// Why a seek ended without success.
enum End {
    Refused(Refusal),
    /// The client is gone; nothing can be answered.
    Gone,
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// See the module. Dropping it ends the stream.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) method: Method,
    /// SHA-256 of the client's TLS certificate, if it showed one.
    pub(super) client_certificate: Option<Digest>,
    pub(super) outlet: Outlet,
}

impl Session {
    /// Serves the stream to its end. Cancel safe: may be dropped at any point.
    pub(super) async fn serve(
        self,
        requests: impl Stream<Item = Result<Envelope, tonic::Status>> + Unpin + Send,
    ) {
        tokio::select! {
            () = self.run(requests) => {}
            () = self.starves_others() => {
                self.shared.counters.streams_cut.fetch_add(1, Ordering::Relaxed);
                tracing::warn!("a delivery stream was cut: its client takes nothing, and others wait for memory");
                self.outlet.cut(tonic::Status::resource_exhausted(
                    "too slow: nothing was taken while others waited; resume at the next block",
                ));
            }
        }
    }

    async fn run(&self, mut requests: impl Stream<Item = Result<Envelope, tonic::Status>> + Unpin + Send) {
        loop {
            let envelope = tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(envelope)) => envelope,
                    Some(Err(status)) => {
                        tracing::debug!(%status, "a delivery stream broke");
                        return;
                    }
                    None => return,
                },
                () = self.outlet.closed() => return,
                () = self.shared.stop.cancelled() => return,
            };
            let status = match self.answer(&envelope).await {
                Ok(()) => Status::Success,
                Err(End::Refused(Refusal { status, info })) => {
                    // Clients ask again and again for channels that are not there yet.
                    if status == Status::NotFound {
                        tracing::debug!(info, "delivery refused");
                    } else {
                        tracing::info!(status = i32::from(status), info, "delivery ended");
                    }
                    status
                }
                Err(End::Gone) => return,
            };
            let last = async {
                self.shared.stop.cancelled().await;
                tokio::time::sleep(LAST_STATUS_TIMEOUT).await;
            };
            tokio::select! {
                sent = self.outlet.send(Frame::status(status)) => {
                    if sent.is_err() || status != Status::Success {
                        return;
                    }
                }
                () = last => return,
            }
        }
    }

    async fn starves_others(&self) {
        loop {
            tokio::time::sleep(STALL_CHECK_INTERVAL.min(self.shared.stall_max)).await;
            if self.shared.blocks.is_contended() && self.outlet.stalled_for() >= self.shared.stall_max {
                return;
            }
        }
    }

    async fn answer(&self, envelope: &Envelope) -> Result<(), End> {
        if self.method == Method::PrivateData {
            let info = "this peer keeps no private data; use Deliver";
            return Err(Refusal::new(Status::NotImplemented, info).into());
        }
        let shared = &self.shared;
        let request = Request::parse(envelope)?;
        request.check_time(unix_seconds(), shared.time_window.as_secs())?;
        if shared.binding_required {
            request.check_binding(self.client_certificate)?;
        }
        let name = &request.channel_header.channel_id;
        let unknown = || Refusal::new(Status::NotFound, format!("channel {name:?} is not joined here"));
        let state = request.channel().and_then(|channel| shared.channels.watch(&channel));
        let state = state.ok_or_else(unknown)?;
        let seek = request.seek()?;
        let now = state.borrow().clone();
        check_health(now.failure.as_deref(), &seek)?;
        let policy = now.config.reader_policy(self.method.resource());
        let access = Access::grant(&now.config, policy, request.signed_data()?, shared.certificate_time())?;
        let numbers = range(&seek, now.height)?;
        let channel = now.config.channel_id();
        tracing::debug!(%channel, first = numbers.start(), last = numbers.end(), "delivering");
        self.deliver(state, &seek, access, numbers).await
    }

    async fn deliver(
        &self,
        mut state: watch::Receiver<ChannelState>,
        seek: &SeekInfo,
        mut access: Access,
        numbers: RangeInclusive<u64>,
    ) -> Result<(), End> {
        let form = self.method.form(seek);
        for number in numbers {
            let now = self.wait(&mut state, seek, number).await?;
            let policy = now.config.reader_policy(self.method.resource());
            access.check_again(&now.config, policy, self.shared.certificate_time())?;
            let wanted = Wanted { channel: now.config.channel_id().clone(), number, form };
            let frame = tokio::select! {
                frame = self.shared.blocks.frame(wanted, now.height) => frame,
                () = self.outlet.closed() => return Err(End::Gone),
                () = self.shared.stop.cancelled() => return Err(stopping().into()),
            };
            let frame = frame.map_err(|error| {
                tracing::error!(%error, "a delivery ends");
                Refusal::new(Status::InternalServerError, "a stored block cannot be read; see the peer's log")
            })?;
            tokio::select! {
                sent = self.outlet.send(frame) => sent?,
                () = self.shared.stop.cancelled() => return Err(stopping().into()),
            }
            self.shared.counters.blocks_sent.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Waits until block `number` is in the ledger.
    async fn wait(
        &self,
        state: &mut watch::Receiver<ChannelState>,
        seek: &SeekInfo,
        number: u64,
    ) -> Result<ChannelState, End> {
        loop {
            let now = state.borrow_and_update().clone();
            check_health(now.failure.as_deref(), seek)?;
            if self.shared.stop.is_cancelled() {
                return Err(stopping().into());
            }
            if number < now.height {
                return Ok(now);
            }
            if seek.behavior() == SeekBehavior::FailIfNotReady {
                let info = format!("block {number} does not exist yet");
                return Err(Refusal::new(Status::NotFound, info).into());
            }
            tokio::select! {
                changed = state.changed() => changed.map_err(|_| stopping())?,
                () = self.outlet.closed() => return Err(End::Gone),
                () = self.shared.stop.cancelled() => return Err(stopping().into()),
            }
        }
    }
}

fn stopping() -> Refusal {
    Refusal::new(Status::ServiceUnavailable, "the peer is stopping; ask another one")
}

fn unix_seconds() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}
