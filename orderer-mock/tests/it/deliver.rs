//! Seeks, their statuses, and what is in a block.

use grapevine_channels::block::Block;
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::proto::common::{ChannelHeader, Envelope, Header, HeaderType, Payload, Status};
use grapevine_channels::proto::orderer::{SeekBehavior, SeekContentType, SeekInfo, SeekPosition};
use grapevine_channels::transaction::{EnvelopeHeader, seek_envelope, signed_envelope};
use grapevine_channels::verify::BlockVerifier;
use prost::Message;

use crate::client::{Answer, Deliver, Fixture, channel, now, payloads, range};

#[tokio::test]
async fn oldest_newest_a_number_and_config_on_one_stream() {
    let fixture = Fixture::start().await;
    fixture.submit(&[b"one", b"two", b"three"], 4).await;
    let mut deliver = fixture.deliver().await;
    deliver.seek(&range(SeekPosition::oldest(), SeekPosition::oldest())).await;
    let genesis = deliver.block().await;
    assert_eq!(genesis.header().number, 0);
    assert_eq!(deliver.status().await, Status::Success);
    deliver.seek(&range(SeekPosition::newest(), SeekPosition::newest())).await;
    let newest = deliver.block().await;
    assert_eq!(newest.header().number, 3);
    assert_eq!(payloads(&newest), [&b"three"[..]]);
    assert_eq!(deliver.status().await, Status::Success);
    let config = newest.last_config_index().unwrap();
    deliver.seek(&range(SeekPosition::specified(config), SeekPosition::specified(config))).await;
    assert!(deliver.block().await.is_config());
    assert_eq!(deliver.status().await, Status::Success);
    deliver.seek(&range(SeekPosition::oldest(), SeekPosition::newest())).await;
    for number in 0..4 {
        assert_eq!(deliver.block().await.header().number, number);
    }
    assert_eq!(deliver.status().await, Status::Success);
}

#[tokio::test]
async fn blocks_are_authentic_and_linked() {
    let fixture = Fixture::start().await;
    fixture.submit(&[b"one", b"two"], 3).await;
    let mut deliver = fixture.deliver().await;
    deliver.seek(&range(SeekPosition::oldest(), SeekPosition::newest())).await;
    let genesis = deliver.block().await;
    let config = ChannelConfig::from_block(&genesis).unwrap();
    let verifier = BlockVerifier::new(std::sync::Arc::new(config));
    let mut previous = genesis.header_hash();
    for number in 1..3 {
        let block = deliver.block().await;
        let authentic = verifier.verify(block).unwrap();
        assert_eq!(authentic.number(), number);
        assert_eq!(authentic.previous_hash(), Some(previous));
        previous = authentic.hash();
    }
}

#[tokio::test]
async fn a_waiting_stream_gets_blocks_as_they_are_made() {
    let fixture = Fixture::start().await;
    let mut deliver = fixture.deliver().await;
    deliver.seek(&SeekInfo::from_number(1)).await;
    for (number, payload) in [(1, b"a"), (2, b"b"), (3, b"c")] {
        fixture.submit(&[payload], number + 1).await;
        let block = deliver.block().await;
        assert_eq!((block.header().number, payloads(&block)), (number, vec![payload[..].into()]));
    }
    fixture.server.stop().await;
    assert_eq!(deliver.last_status().await, Status::ServiceUnavailable);
}

#[tokio::test]
async fn headers_come_without_data_except_of_config_blocks() {
    let fixture = Fixture::start().await;
    fixture.submit(&[b"payload"], 2).await;
    let mut deliver = fixture.deliver().await;
    let mut seek = range(SeekPosition::oldest(), SeekPosition::newest());
    seek.content_type = SeekContentType::HeaderWithSig.into();
    deliver.seek(&seek).await;
    assert_eq!(deliver.block().await.transactions().len(), 1, "config block");
    let Answer::Block(header, encoded) = deliver.answer().await else { panic!("no block") };
    assert!(header.transactions().is_empty());
    assert!(!header.signatures_metadata().is_empty());
    assert_eq!(deliver.status().await, Status::Success);
    deliver.seek(&range(SeekPosition::newest(), SeekPosition::newest())).await;
    let Answer::Block(whole, whole_encoded) = deliver.answer().await else { panic!("no block") };
    assert_eq!(whole.header_hash(), header.header_hash());
    assert_eq!(payloads(&whole), [&b"payload"[..]]);
    assert!(whole_encoded.len() > encoded.len());
}

#[tokio::test]
async fn every_metadata_slot_is_there() {
    let fixture = Fixture::start().await;
    fixture.submit(&[b"payload"], 2).await;
    let mut deliver = fixture.deliver().await;
    deliver.seek(&range(SeekPosition::newest(), SeekPosition::newest())).await;
    let Answer::Block(_, encoded) = deliver.answer().await else { panic!("no block") };
    let block = grapevine_channels::proto::common::Block::decode(encoded).unwrap();
    assert_eq!(block.metadata.unwrap().metadata.len(), 5);
}

async fn refused(fixture: &Fixture, seek: &SeekInfo) -> Status {
    let mut deliver = fixture.deliver().await;
    deliver.seek(seek).await;
    deliver.last_status().await
}

#[tokio::test]
async fn ranges_that_cannot_be_served() {
    let fixture = Fixture::start().await;
    let at = SeekPosition::specified;
    assert_eq!(refused(&fixture, &range(at(2), at(2))).await, Status::NotFound);
    assert_eq!(refused(&fixture, &range(at(1), at(0))).await, Status::BadRequest);
    assert_eq!(
        refused(&fixture, &SeekInfo { start: Some(at(0)), ..SeekInfo::default() }).await,
        Status::BadRequest
    );
    assert_eq!(refused(&fixture, &SeekInfo::default()).await, Status::BadRequest);
    let mut impatient = range(at(1), at(1));
    impatient.behavior = SeekBehavior::FailIfNotReady.into();
    assert_eq!(refused(&fixture, &impatient).await, Status::NotFound);
    // What exists is served before the failure.
    let mut deliver = fixture.deliver().await;
    let mut partly = range(at(0), at(9));
    partly.behavior = SeekBehavior::FailIfNotReady.into();
    deliver.seek(&partly).await;
    assert_eq!(deliver.block().await.header().number, 0);
    assert_eq!(deliver.last_status().await, Status::NotFound);
}

#[tokio::test]
async fn signers_without_the_right_get_forbidden() {
    let fixture = Fixture::start().await;
    let everything = range(SeekPosition::oldest(), SeekPosition::newest());
    for signer in [fixture.network.foreigner().unwrap(), fixture.network.expired_member().unwrap()] {
        let mut deliver = Deliver::open(&fixture.options(), signer).await;
        deliver.seek(&everything).await;
        assert_eq!(deliver.last_status().await, Status::Forbidden);
    }
    // A member's request with another signature.
    let member = fixture.network.member().unwrap();
    let encoded = seek_envelope(&member, &channel(), &everything, rand::random(), now(), None);
    let mut envelope = Envelope::decode(encoded).unwrap();
    envelope.signature = vec![7; 64].into();
    let mut deliver = fixture.deliver().await;
    deliver.send(envelope).await;
    assert_eq!(deliver.last_status().await, Status::Forbidden);
}

#[tokio::test]
async fn unknown_channels_and_wrong_clocks() {
    let fixture = Fixture::start().await;
    let seek = range(SeekPosition::oldest(), SeekPosition::oldest());
    let deliver = || fixture.deliver();
    let mut unknown = deliver().await;
    unknown.seek_with(&seek, &"audit".parse().unwrap(), now(), None).await;
    assert_eq!(unknown.last_status().await, Status::NotFound);
    // An unknown channel is answered before the signer is looked at.
    let mut foreign = Deliver::open(&fixture.options(), fixture.network.foreigner().unwrap()).await;
    foreign.seek_with(&seek, &"audit".parse().unwrap(), now(), None).await;
    assert_eq!(foreign.last_status().await, Status::NotFound);
    for time in [now() - 1000, now() + 1000] {
        let mut late = deliver().await;
        late.seek_with(&seek, &channel(), time, None).await;
        assert_eq!(late.last_status().await, Status::BadRequest, "time {time}");
    }
    let mut close = deliver().await;
    close.seek_with(&seek, &channel(), now() - 800, None).await;
    assert_eq!(close.block().await.header().number, 0);
}

fn envelope_of(payload: &Payload) -> Envelope {
    Envelope { payload: payload.encode_to_vec().into(), signature: vec![1].into() }
}

#[tokio::test]
async fn malformed_requests_get_bad_request() {
    let fixture = Fixture::start().await;
    let member = fixture.network.member().unwrap();
    let header = |channel_header: ChannelHeader| {
        Some(Header {
            channel_header: channel_header.encode_to_vec().into(),
            signature_header: vec![].into(),
        })
    };
    let timed = ChannelHeader {
        channel_id: "trade".into(),
        timestamp: Some(prost_types::Timestamp { seconds: now(), nanos: 0 }),
        ..ChannelHeader::default()
    };
    let whole = range(SeekPosition::oldest(), SeekPosition::oldest()).encode_to_vec();
    let junk_seek = signed_envelope(
        &member,
        EnvelopeHeader {
            header_type: HeaderType::DeliverSeekInfo,
            channel: &channel(),
            nonce: rand::random(),
            timestamp_seconds: now(),
            tls_cert_hash: None,
        },
        b"junk".as_slice().into(),
    );
    let table = [
        ("empty", Envelope::default()),
        ("junk", Envelope { payload: b"junk".as_slice().into(), signature: vec![].into() }),
        ("no header", envelope_of(&Payload::default())),
        ("empty header", envelope_of(&Payload { header: Some(Header::default()), ..Payload::default() })),
        (
            "no timestamp",
            envelope_of(&Payload {
                header: header(ChannelHeader { timestamp: None, ..timed.clone() }),
                data: whole.clone().into(),
            }),
        ),
        ("no signature header", envelope_of(&Payload { header: header(timed), data: whole.into() })),
        ("junk seek", Envelope::decode(junk_seek).unwrap()),
    ];
    for (name, envelope) in table {
        let mut deliver = fixture.deliver().await;
        deliver.send(envelope).await;
        assert_eq!(deliver.last_status().await, Status::BadRequest, "{name}");
    }
}

#[tokio::test]
async fn a_slow_reader_still_gets_every_block_from_disk() {
    let fixture = Fixture::start().await;
    let mut deliver = fixture.deliver().await;
    deliver.seek(&SeekInfo::from_number(0)).await;
    // More than the cache of recent blocks holds, while nobody reads.
    let payloads: Vec<Vec<u8>> = (0..100_u8).map(|index| vec![index; 1000]).collect();
    let slices: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
    fixture.submit(&slices, 101).await;
    for number in 0..101 {
        let block: Block = deliver.block().await;
        assert_eq!(block.header().number, number);
    }
}
