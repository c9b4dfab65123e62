//! Takes transactions: Fabric's `Broadcast`, one answer for each envelope, in order.
//!
//! Checks, first failure answers (Fabric: `orderer/common/broadcast`, `orderer/common/msgprocessor`):
//!
//! | check | status |
//! |---|---|
//! | payload, header, channel header, signature header parse | 400 |
//! | the channel exists | 404 |
//! | the header type is no config type (CONFIG_UPDATE: 501) | 400 |
//! | payload and signature together are at most `absolute_max_bytes` | 413 |
//! | the signer satisfies `/Channel/Writers`, its certificate has not expired | 403 |
//! | the channel takes transactions (not stopping, disk healthy) | 503 |
//!
//! As in Fabric the first refusal ends the stream, so that nothing sent after a refused transaction is ordered before a
//! client notices. Fabric answers 400 to an oversized or expired request where this service says 413 and 403.
//! Success means accepted for ordering, not yet written.
//!
//! One envelope of a stream is processed at a time and the channel's queue is bounded, so a fast client is slowed by flow
//! control and nothing grows.

use grapevine_channels::deliver::{Refusal, Request, authorise};
use grapevine_channels::proto::common::{Envelope, HeaderType, Status};
use grapevine_channels::proto::orderer::BroadcastResponse;
use prost::Message;

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
            Status::NotFound,
            format!("there is no channel {:?} here", request.channel_header.channel_id),
        )
    };
    let chain = request.channel().and_then(|channel| registry.chain(&channel)).ok_or_else(unknown)?;
    match HeaderType::try_from(request.channel_header.r#type) {
        Ok(HeaderType::ConfigUpdate) => {
            let info = "config updates are not taken; start a channel with the config it needs";
            return Err(Refusal::new(Status::NotImplemented, info));
        }
        Ok(HeaderType::Config | HeaderType::OrdererTransaction) => {
            return Err(Refusal::new(
                Status::BadRequest,
                "only the ordering service makes config transactions",
            ));
        }
        _ => {}
    }
    let size_bytes = envelope.payload.len().saturating_add(envelope.signature.len());
    let bytes_max = chain.limits().absolute_max_bytes;
    if size_bytes > bytes_max {
        let info =
            format!("the transaction has {size_bytes} bytes, channel {} allows {bytes_max}", chain.channel());
        return Err(Refusal::new(Status::RequestEntityTooLarge, info));
    }
    let signed = request.signed_data()?;
    authorise(&chain.config(), "/Channel/Writers", &signed, now)?;
    // Encoding anew makes the transaction canonical: unknown and repeated fields of the request are gone.
    let encoded = envelope.encode_to_vec().into();
    let stopped = |_| {
        Refusal::new(Status::ServiceUnavailable, "the channel takes no transactions now; try again later")
    };
    chain.order(encoded, size_bytes).await.map_err(stopped)
}
