//! Takes transactions and config updates: Fabric's `Broadcast`, one answer for each envelope, in order.
//!
//! Checks, first failure answers (Fabric: `orderer/common/broadcast`, `orderer/common/msgprocessor`):
//!
//! | check | status |
//! |---|---|
//! | payload, header, channel header parse | 400 |
//! | the channel exists (404 is an answer of `Deliver` alone) | 400 |
//! | the header type is neither CONFIG nor ORDERER_TRANSACTION | 400 |
//! | all but CONFIG_UPDATE: the consensus type is not being changed (MAINTENANCE) | 503 |
//! | payload and signature together are at most `absolute_max_bytes` | 400 |
//! | signature header parses, the signer's certificate has not expired | 400 |
//! | the signer satisfies `/Channel/Writers`, in maintenance `/Channel/Orderer/Writers` | 403 |
//! | CONFIG_UPDATE: it parses, is of this channel, has the right versions and leads to a usable config | 400 |
//! | CONFIG_UPDATE: its signatures satisfy the `mod_policy` of everything it changes | 400 |
//! | CONFIG_UPDATE: the new config is at most `absolute_max_bytes` large | 400 |
//! | the channel takes transactions (not stopping, disk healthy) | 503 |
//!
//! As in Fabric the first refusal ends the stream, so that nothing sent after a refused transaction is ordered before a
//! client notices. `info` says in words what is wrong; it is empty with 200. Success means accepted for ordering, not yet
//! written; for a config update it means that the config block is written (see [`crate::chain`]).
//!
//! One envelope of a stream is processed at a time and the channel's queue is bounded, so a fast client is slowed by flow
//! control and nothing grows.

use bytes::Bytes;
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::deliver::{Refusal, Request, authorise};
use grapevine_channels::proto::common::{Envelope, HeaderType, Status};
use grapevine_channels::proto::orderer::BroadcastResponse;
use prost::Message;

use crate::cutter::BatchLimits;
use crate::registry::Registry;

/// Checks and queues one envelope at time `now` (Unix seconds); waits while the channel's queue is full.
pub async fn process(registry: &Registry, envelope: Envelope, now: i64) -> BroadcastResponse {
    match accept(registry, envelope, now).await {
        Ok(()) => BroadcastResponse { status: Status::Success.into(), info: String::new() },
        Err(Refusal { status, info }) => {
            tracing::warn!(status = i32::from(status), info, "transaction refused");
            BroadcastResponse { status: status.into(), info }
        }
    }
}

async fn accept(registry: &Registry, envelope: Envelope, now: i64) -> Result<(), Refusal> {
    let request = Request::parse(&envelope)?;
    let unknown = || {
        Refusal::new(
            Status::BadRequest,
            format!("the channel does not exist here: {:?}", request.channel_header.channel_id),
        )
    };
    let chain = request.channel().and_then(|channel| registry.chain(&channel)).ok_or_else(unknown)?;
    let header_type = HeaderType::try_from(request.channel_header.r#type);
    if matches!(header_type, Ok(HeaderType::Config | HeaderType::OrdererTransaction)) {
        let info = "only the ordering service makes config transactions";
        return Err(Refusal::new(Status::BadRequest, info));
    }
    let config = chain.config();
    if config.in_maintenance() && header_type != Ok(HeaderType::ConfigUpdate) {
        let info = "the channel is in maintenance mode and takes config updates only";
        return Err(Refusal::new(Status::ServiceUnavailable, info));
    }
    let size_bytes = check(&config, &chain.limits(), &request, &envelope, now)?;
    if header_type == Ok(HeaderType::ConfigUpdate) {
        return chain.configure(envelope).await;
    }
    // Encoding anew makes the transaction canonical: unknown and repeated fields of the request are gone.
    let encoded = envelope.encode_to_vec().into();
    let stopped = |_| {
        Refusal::new(Status::ServiceUnavailable, "the channel takes no transactions now; try again later")
    };
    chain.order(encoded, size_bytes, config.sequence()).await.map_err(stopped)
}

/// Size and sender of a request under a config; returns the bytes of its payload and signature.
fn check(
    config: &ChannelConfig,
    limits: &BatchLimits,
    request: &Request,
    envelope: &Envelope,
    now: i64,
) -> Result<usize, Refusal> {
    let size_bytes = envelope.payload.len().saturating_add(envelope.signature.len());
    let bytes_max = limits.absolute_max_bytes;
    if size_bytes > bytes_max {
        let channel = config.channel_id();
        let info = format!("the transaction has {size_bytes} bytes, channel {channel} allows {bytes_max}");
        return Err(Refusal::new(Status::BadRequest, info));
    }
    let signed = request.signed_data()?;
    if config.identify(&signed.identity).is_ok_and(|identity| identity.expired_at(now)) {
        return Err(Refusal::new(Status::BadRequest, "the signer's certificate has expired; renew it"));
    }
    authorise(config, config.orderer_writer_policy(), &signed, now)?;
    Ok(size_bytes)
}

/// Checks a queued transaction, a marshalled envelope, anew under a later config.
pub(crate) fn check_again(
    config: &ChannelConfig,
    limits: &BatchLimits,
    encoded: &Bytes,
    now: i64,
) -> Result<(), Refusal> {
    let malformed = |error: prost::DecodeError| Refusal::new(Status::BadRequest, error.to_string());
    let envelope = Envelope::decode(encoded.clone()).map_err(malformed)?;
    check(config, limits, &Request::parse(&envelope)?, &envelope, now).map(drop)
}
