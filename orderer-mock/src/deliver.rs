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
//! | the signer satisfies `/Channel/Readers`, in maintenance `/Channel/Orderer/Readers`, its certificate has not expired; both again before each block | 403 |
//! | start and stop present and in order | 400 |
//! | start is at most the next block; a block that is not there yet, with FAIL_IF_NOT_READY | 404 |
//! | the service is not stopping | 503 |
//! | the range is finished | 200 |
//!
//! Which config says who may read: a seek is judged by the config in force when it comes. Then the policy is evaluated again
//! behind each later config block of the range, under that block's config. So an organisation that is removed gets, on a
//! stream that it has, all blocks up to and including the config block that removes it, and 403 instead of the next; a
//! new seek of it gets 403 at once. Fabric evaluates before each block under whatever config is the newest, which may
//! withhold from a slow reader even the block that says why.
//!
//! Every block passes [`crate::faults`] on its way out, which see for how delivery can be made to misbehave.
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
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::deliver::{self, Access, Refusal, Request};
use grapevine_channels::proto::common::{Envelope, Status};
use grapevine_channels::proto::orderer::{DeliverResponse, SeekBehavior, SeekContentType, SeekInfo};
use grapevine_crypto::{Digest, Signer};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::chain::{Chain, ChainState};
use crate::clock::unix_seconds;
use crate::faults::{ChannelFaults, Faults, Fork, altered};
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
    /// How the service misbehaves, if it does.
    pub faults: Arc<Faults>,
    /// Signs what a dishonest service makes up.
    pub signer: Arc<Signer>,
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
        let (state, faults) = (chain.state(), self.rules.faults.of(chain.channel()));
        let now = *state.borrow();
        deliver::check_health(failure(now), &seek)?;
        let (height, status) = {
            let faults = faults.borrow();
            (faults.visible(now.height), faults.status)
        };
        commanded(status)?;
        let config = chain.config();
        let access =
            Access::grant(&config, config.orderer_reader_policy(), request.signed_data()?, unix_seconds())?;
        let range = deliver::range(&seek, height)?;
        tracing::debug!(channel = %chain.channel(), first = range.start(), last = range.end(), "delivering");
        let delivery = Delivery { session: self, chain, seek: &seek, state, faults, forked: None };
        delivery.run(access, config, range).await
    }

    async fn send(&self, block: Bytes) -> Result<(), End> {
        tokio::select! {
            sent = self.responses.send(Ok(DeliverResponse::block(block))) => sent.map_err(|_| End::Gone),
            () = self.rules.stop.cancelled() => Err(End::Gone),
        }
    }
}

/// One range on its way.
struct Delivery<'a> {
    session: &'a DeliverSession,
    chain: &'a Arc<Chain>,
    seek: &'a SeekInfo,
    state: watch::Receiver<ChainState>,
    faults: watch::Receiver<ChannelFaults>,
    /// The second history that was last in force, by its address, and whether this stream gets it.
    forked: Option<(Arc<Fork>, bool)>,
}

impl Delivery<'_> {
    /// `config` is the one under which `access` was granted.
    async fn run(
        mut self,
        mut access: Access,
        mut config: Arc<ChannelConfig>,
        range: RangeInclusive<u64>,
    ) -> Result<(), End> {
        for number in range {
            // Before waiting, so that a removed organisation is not left waiting for what it will not get.
            access.check_again(&config, config.orderer_reader_policy(), unix_seconds())?;
            self.wait(number).await?;
            let newest = self.chain.config();
            if number > newest.config_block_number() {
                config = newest.clone();
            }
            access.check_again(&config, config.orderer_reader_policy(), unix_seconds())?;
            let block = read(self.chain, number).await?;
            if newest.sequence() > config.sequence() {
                config = config_behind(config, &block)?;
            }
            let block = self.misbehave(number, block).await?;
            self.session.send(outgoing(self.seek, block)?).await?;
        }
        Ok(())
    }

    /// Waits until block `number` exists, as far as clients may know.
    async fn wait(&mut self, number: u64) -> Result<(), End> {
        let stopping = || Refusal::new(Status::ServiceUnavailable, "the orderer is stopping");
        let rules = &self.session.rules;
        loop {
            let now = *self.state.borrow_and_update();
            deliver::check_health(failure(now), self.seek)?;
            if rules.stop.is_cancelled() {
                return Err(stopping().into());
            }
            let (height, status) = {
                let faults = self.faults.borrow_and_update();
                (faults.visible(now.height), faults.status)
            };
            commanded(status)?;
            if number < height {
                return Ok(());
            }
            if self.seek.behavior() == SeekBehavior::FailIfNotReady {
                return Err(
                    Refusal::new(Status::NotFound, format!("block {number} does not exist yet")).into()
                );
            }
            tokio::select! {
                changed = self.state.changed() => changed.map_err(|_| stopping())?,
                changed = self.faults.changed() => changed.map_err(|_| stopping())?,
                () = self.session.responses.closed() => return Err(End::Gone),
                () = rules.stop.cancelled() => return Err(stopping().into()),
            }
        }
    }

    /// Delays and alters a stored block as the faults of the moment say.
    async fn misbehave(&mut self, number: u64, block: Bytes) -> Result<Bytes, End> {
        let faults = self.faults.borrow().clone();
        if let Some(delay) = faults.delay {
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.session.responses.closed() => return Err(End::Gone),
                () = self.session.rules.stop.cancelled() => return Err(End::Gone),
            }
        }
        let forked = self.is_forked(&faults, number);
        if !(forked || faults.bad_signature || faults.wrong_previous_hash) {
            return Ok(block);
        }
        let (reader, signer) = (self.chain.reader().clone(), self.session.rules.signer.clone());
        let altering = move || altered(&faults, &reader, &signer, forked, number, block);
        match tokio::task::spawn_blocking(altering).await {
            Ok(Ok(block)) => Ok(block),
            Ok(Err(error)) => Err(unreadable(self.chain, number, &error.to_string()).into()),
            Err(error) => Err(unreadable(self.chain, number, &error.to_string()).into()),
        }
    }

    /// Whether this stream gets block `number` of the second history. Decided once for each such history.
    fn is_forked(&mut self, faults: &ChannelFaults, number: u64) -> bool {
        let Some(fork) = faults.fork.as_ref().filter(|fork| number >= fork.first()) else { return false };
        match &self.forked {
            Some((known, forked)) if Arc::ptr_eq(known, fork) => *forked,
            _ => {
                let forked = fork.next_stream_is_forked();
                self.forked = Some((fork.clone(), forked));
                forked
            }
        }
    }
}

/// The config in force behind a block: that of the block if it brings a later one than `config`.
fn config_behind(config: Arc<ChannelConfig>, block: &Bytes) -> Result<Arc<ChannelConfig>, Refusal> {
    let damaged = |error: String| Refusal::new(Status::InternalServerError, error);
    let block =
        Block::decode(block.clone(), MESSAGE_BYTES_MAX).map_err(|error| damaged(error.to_string()))?;
    if !block.is_config() {
        return Ok(config);
    }
    let next = ChannelConfig::from_block(&block).map_err(|error| damaged(error.to_string()))?;
    Ok(if next.sequence() > config.sequence() { next.into() } else { config })
}

/// The status that a fault commands.
fn commanded(status: Option<Status>) -> Result<(), Refusal> {
    status.map_or(Ok(()), |status| Err(Refusal::new(status, "a fault is switched on")))
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
    Err(unreadable(chain, number, &error))
}

fn unreadable(chain: &Chain, number: u64, error: &str) -> Refusal {
    tracing::error!(channel = %chain.channel(), number, error, "cannot read a stored block");
    Refusal::new(Status::InternalServerError, "a stored block cannot be read; see the orderer's log")
}

/// What a client gets for a block, whole or without its data.
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
