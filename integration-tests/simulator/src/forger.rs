//! A member that lies: genuine identity, forged blocks, tampered records of others, invented heights.

use bytes::Bytes;
use grapevine_channels::block::AuthenticBlock;
use grapevine_channels::wire::{
    Alive, BulkHeader, ChannelBody, ChannelFrame, Frame, FrameBody, SignedAlive, View,
};
use grapevine_crypto::Digest;
use prost::Message as _;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

/// Replaces a block by one that no orderer signed, sometimes under its true name.
pub(crate) fn forge_block(rng: &mut ChaCha8Rng, header: Bytes, size: usize) -> (Bytes, Bytes) {
    let Ok(mut claim) = BulkHeader::parse(header.clone()) else { return (header, Bytes::new()) };
    let forged = AuthenticBlock::simulated(claim.number, Digest(rng.random()), size);
    if rng.random_bool(0.5) {
        claim.hash = forged.hash().0.to_vec();
    }
    (claim.encode_to_vec().into(), forged.encoded().clone())
}

/// Tampers with some frames: records of members lose their truth, heights are invented.
pub(crate) fn tamper(rng: &mut ChaCha8Rng, frame: Bytes) -> Bytes {
    if rng.random_bool(0.5) {
        return frame;
    }
    let body = match Frame::parse(frame.clone()) {
        Ok(FrameBody::Alive(record)) => FrameBody::Alive(tamper_record(rng, record)),
        Ok(FrameBody::View(view)) => {
            let records = view.records.into_iter().map(|record| tamper_record(rng, record)).collect();
            FrameBody::View(View { records })
        }
        Ok(FrameBody::Channel(ChannelFrame { tag, body: Some(ChannelBody::State(mut state)) })) => {
            state.height = if rng.random_bool(0.5) { u64::MAX } else { state.height.saturating_add(1_000) };
            FrameBody::Channel(ChannelFrame { tag, body: Some(ChannelBody::State(state)) })
        }
        _ => return frame,
    };
    Frame { body: Some(body) }.encode_to_vec().into()
}

/// Each change would be believed if signatures were not checked.
fn tamper_record(rng: &mut ChaCha8Rng, mut record: SignedAlive) -> SignedAlive {
    let Ok(mut alive) = Alive::decode(record.payload.clone()) else { return record };
    match rng.random_range(0..4) {
        0 => alive.sequence = alive.sequence.saturating_add(1_000_000),
        1 => alive.incarnation = alive.incarnation.saturating_add(1),
        2 => alive.external_endpoint = "elsewhere.example.com:1".into(),
        _ => {
            if let Some(internal) = &mut record.internal {
                internal.endpoint = "elsewhere.org1:1".into();
            }
        }
    }
    record.payload = alive.encode_to_vec().into();
    record
}
