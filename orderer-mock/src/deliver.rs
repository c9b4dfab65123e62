//! Delivers blocks: Fabric's `Deliver`, any number of seeks on one stream.
//!
//! Each seek is answered with its blocks and then one status. After 200 the next seek of the stream is read; any other
//! status ends the stream. Checks, in Fabric's order (`common/deliver/deliver.go`), first failure answers:
//!
//! | check | status |
//! |---|---|
//! | payload, header, channel header parse | 400 |
//! | timestamp present and within the time window of our clock | 400 |
//! | with client authentication required: `tls_cert_hash` is that of the connection's client certificate | 400 |
//! | the channel exists | 404 |
//! | the seek parses | 400 |
//! | the channel's disk is healthy, or the seek asks for best effort; also while waiting | 503 |
//! | signature header parses | 400 |
//! | the signer satisfies `/Channel/Readers`, its certificate has not expired; the latter again before each block | 403 |
//! | start and stop present and in order | 400 |
//! | start is at most the next block; a block that is not there yet, with FAIL_IF_NOT_READY | 404 |
//! | the service is not stopping | 503 |
//! | the range is finished | 200 |
//!
//! Bounds: a stream holds one block while the client reads the one before ([`RESPONSES_QUEUED_MAX`]); blocks come from
//! disk by number, the newest from a shared cache. So a slow client costs two blocks of memory, whatever it is behind.
//! Seeks of a stream are served one after another; requests that wait stay in the flow control window of the connection.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use grapevine_channels::block::Block;
use grapevine_channels::config::CHANNEL_READERS;
use grapevine_channels::deliver::{self, Access, Refusal, Request};
use grapevine_channels::proto::common::{Envelope, Status};
use grapevine_channels::proto::orderer::{DeliverResponse, SeekBehavior, SeekContentType, SeekInfo};
use grapevine_crypto::Digest;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::chain::{Chain, ChainState};
use crate::clock::unix_seconds;
use crate::registry::Registry;
use crate::rpc::MESSAGE_BYTES_MAX;

/// Responses of a stream that wait for the client to read.
pub const RESPONSES_QUEUED_MAX: usize = 1;

/// What all delivery streams of a service share.
#[derive(Debug, Clone)]
pub struct DeliverRules {
    /// The channels.
    pub registry: Arc<Registry>,
    /// How far a request's timestamp may be from our clock, either way.
    pub time_window: Duration,
    /// Whether requests must name the client certificate of their connection.
    pub binding_required: bool,
    /// Cancelled when the service stops.
    pub stop: CancellationToken,
}

/// One delivery stream.
#[derive(Debug)]
pub struct DeliverSession {
    /// What applies to all streams.
    pub rules: DeliverRules,
    /// SHA-256 of the client's TLS certificate, if it showed one.
    pub client_certificate: Option<Digest>,
    /// Where responses go.
    pub responses: mpsc::Sender<Result<DeliverResponse, tonic::Status>>,
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

impl DeliverSession {
    /// Serves the stream to its end. Cancel safe: may be dropped at any point.
    pub async fn serve(
        self,
        mut requests: impl Stream<Item = Result<Envelope, tonic::Status>> + Unpin + Send,
    ) {
        loop {
            let envelope = tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(envelope)) => envelope,
                    Some(Err(_)) | None => return,
                },
                () = self.responses.closed() => return,
                () = self.rules.stop.cancelled() => return,
            };
            let status = match self.answer(&envelope).await {
                Ok(()) => Status::Success,
                Err(End::Refused(Refusal { status, info })) => {
                    tracing::info!(status = i32::from(status), info, "delivery ended");
                    status
                }
                Err(End::Gone) => return,
            };
            let sent = self.responses.send_timeout(Ok(DeliverResponse::status(status)), STATUS_TIMEOUT).await;
            if sent.is_err() || status != Status::Success {
                return;
            }
        }
    }

    async fn answer(&self, envelope: &Envelope) -> Result<(), End> {
        let request = Request::parse(envelope)?;
        request.check_time(unix_seconds(), self.rules.time_window.as_secs())?;
        if self.rules.binding_required {
            request.check_binding(self.client_certificate)?;
        }
        let name = &request.channel_header.channel_id;
        let unknown = || Refusal::new(Status::NotFound, format!("there is no channel {name:?} here"));
        let chain =
            request.channel().and_then(|channel| self.rules.registry.chain(&channel)).ok_or_else(unknown)?;
        let seek = request.seek()?;
        let state = chain.state();
        let now = *state.borrow();
        deliver::check_health(failure(now), &seek)?;
        let access = Access::grant(&chain.config(), CHANNEL_READERS, request.signed_data()?, unix_seconds())?;
        let range = deliver::range(&seek, now.height)?;
        tracing::debug!(channel = %chain.channel(), first = range.start(), last = range.end(), "delivering");
        self.deliver(chain, state, &seek, access, range).await
    }

    async fn deliver(
        &self,
        chain: &Arc<Chain>,
        mut state: watch::Receiver<ChainState>,
        seek: &SeekInfo,
        mut access: Access,
        range: RangeInclusive<u64>,
    ) -> Result<(), End> {
        for number in range {
            self.wait(&mut state, seek, number).await?;
            access.check_again(&chain.config(), CHANNEL_READERS, unix_seconds())?;
            let block = read(chain, number).await?;
            self.send(outgoing(seek, block)?).await?;
        }
        Ok(())
    }

    /// Waits until block `number` exists.
    async fn wait(
        &self,
        state: &mut watch::Receiver<ChainState>,
        seek: &SeekInfo,
        number: u64,
    ) -> Result<(), End> {
        let stopping = || Refusal::new(Status::ServiceUnavailable, "the orderer is stopping");
        loop {
            let now = *state.borrow_and_update();
            deliver::check_health(failure(now), seek)?;
            if self.rules.stop.is_cancelled() {
                return Err(stopping().into());
            }
            if number < now.height {
                return Ok(());
            }
            if seek.behavior() == SeekBehavior::FailIfNotReady {
                return Err(
                    Refusal::new(Status::NotFound, format!("block {number} does not exist yet")).into()
                );
            }
            tokio::select! {
                changed = state.changed() => changed.map_err(|_| stopping())?,
                () = self.responses.closed() => return Err(End::Gone),
                () = self.rules.stop.cancelled() => return Err(stopping().into()),
            }
        }
    }

    async fn send(&self, block: Bytes) -> Result<(), End> {
        tokio::select! {
            sent = self.responses.send(Ok(DeliverResponse::block(block))) => sent.map_err(|_| End::Gone),
            () = self.rules.stop.cancelled() => Err(End::Gone),
        }
    }
}

/// How long the final status of a range may wait for the client to read; longer ends the stream.
const STATUS_TIMEOUT: Duration = Duration::from_secs(60);

/// A disk failure stops strict readers, as Fabric's consenter errors do.
fn failure(state: ChainState) -> Option<&'static str> {
    state.failed.then_some("the channel's disk failed; see the orderer's log")
}

/// A stored block; files are read where blocking is allowed.
async fn read(chain: &Arc<Chain>, number: u64) -> Result<Bytes, Refusal> {
    if let Some(block) = chain.reader().cached(number) {
        return Ok(block);
    }
    let reader = chain.reader().clone();
    let result = tokio::task::spawn_blocking(move || reader.read(number)).await;
    let error = match result {
        Ok(Ok(block)) => return Ok(block),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::error!(channel = %chain.channel(), number, error, "cannot read a stored block");
    Err(Refusal::new(Status::InternalServerError, "a stored block cannot be read; see the orderer's log"))
}

/// What a client gets for a stored block: the one place every delivered block passes on its way out.
fn outgoing(seek: &SeekInfo, block: Bytes) -> Result<Bytes, Refusal> {
    match seek.content_type() {
        SeekContentType::Block => Ok(block),
        SeekContentType::HeaderWithSig => without_data(block),
    }
}

/// A `common.Block` whose parts are kept as they are encoded.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct HeaderAndMetadata {
    #[prost(bytes = "bytes", tag = "1")]
    header: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    metadata: Bytes,
}

/// Removes the data of a block, except of a config block, whose data a header reader needs to follow the orderer set.
fn without_data(block: Bytes) -> Result<Bytes, Refusal> {
    let damaged =
        |error: String| Refusal::new(Status::InternalServerError, format!("damaged block: {error}"));
    let parsed =
        Block::decode(block.clone(), MESSAGE_BYTES_MAX).map_err(|error| damaged(error.to_string()))?;
    if parsed.is_config() {
        return Ok(block);
    }
    let parts = HeaderAndMetadata::decode(block).map_err(|error| damaged(error.to_string()))?;
    Ok(parts.encode_to_vec().into())
}
