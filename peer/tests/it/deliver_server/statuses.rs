//! The status table, row by row.

use grapevine_channels::proto::common::{ChannelHeader, Envelope, Header, HeaderType, Payload, Status};
use grapevine_channels::proto::orderer::{SeekBehavior, SeekErrorResponse, SeekInfo, SeekPosition};
use grapevine_channels::transaction::{EnvelopeHeader, seek_envelope, signed_envelope};
use prost::Message;

use super::fixture::{Answer, Client, DELIVER, FILTERED, Fixture, blocks, channel, now, range};

async fn refused(fixture: &Fixture, seek: &SeekInfo) -> Status {
    fixture.seek(seek).await.last_status().await
}

fn envelope_of(payload: &Payload) -> Envelope {
    Envelope { payload: payload.encode_to_vec().into(), signature: vec![1].into() }
}

#[tokio::test]
async fn malformed_requests_get_bad_request() {
    let fixture = Fixture::start().await;
    let header = |channel_header: Vec<u8>| {
        Some(Header { channel_header: channel_header.into(), signature_header: vec![].into() })
    };
    let timed = ChannelHeader {
        channel_id: "trade".into(),
        timestamp: Some(prost_types::Timestamp { seconds: now(), nanos: 0 }),
        ..ChannelHeader::default()
    };
    let seek = blocks(0, 0).encode_to_vec();
    let with_header = |header| envelope_of(&Payload { header, data: seek.clone().into() });
    let junk_seek = signed_envelope(
        &fixture.member(),
        EnvelopeHeader {
            header_type: HeaderType::DeliverSeekInfo,
            channel: &channel(),
            nonce: rand::random(),
            timestamp_seconds: now(),
            tls_cert_hash: None,
        },
        b"junk".as_slice().into(),
    );
    let junk_signature_header =
        Header { channel_header: timed.encode_to_vec().into(), signature_header: b"\xff".as_slice().into() };
    let table = [
        ("empty", Envelope::default()),
        ("junk", Envelope { payload: b"junk".as_slice().into(), signature: vec![].into() }),
        ("no header", with_header(None)),
        ("empty header", with_header(Some(Header::default()))),
        ("junk channel header", with_header(header(b"\xff".to_vec()))),
        (
            "no timestamp",
            with_header(header(ChannelHeader { timestamp: None, ..timed.clone() }.encode_to_vec())),
        ),
        ("no signature header", with_header(header(timed.encode_to_vec()))),
        ("junk signature header", with_header(Some(junk_signature_header))),
        ("junk seek", Envelope::decode(junk_seek).unwrap()),
    ];
    for (name, envelope) in table {
        for method in [DELIVER, FILTERED] {
            let mut client = fixture.open(method).await;
            client.send(envelope.clone()).await;
            assert_eq!(client.last_status().await, Status::BadRequest, "{name}");
        }
    }
}

#[tokio::test]
async fn clocks_that_are_too_far_off() {
    let fixture = Fixture::start().await;
    for (offset, served) in [(-1000, false), (1000, false), (-800, true), (800, true)] {
        let mut client = fixture.open(DELIVER).await;
        client.seek_with(&blocks(0, 0), &channel(), now() + offset, None).await;
        if served {
            assert_eq!(client.number().await, 0);
        } else {
            assert_eq!(client.last_status().await, Status::BadRequest, "{offset}");
        }
    }
}

#[tokio::test]
async fn unknown_channels_are_answered_before_the_signer_is_looked_at() {
    let fixture = Fixture::start().await;
    for name in ["audit", "trade2"] {
        for signer in [fixture.member(), fixture.network.foreigner().unwrap()] {
            let mut client = Client::open(fixture.connect().await, DELIVER, signer).await.unwrap();
            client.seek_with(&blocks(0, 0), &name.parse().unwrap(), now(), None).await;
            assert_eq!(client.last_status().await, Status::NotFound);
        }
    }
}

#[tokio::test]
async fn ranges_that_cannot_be_served() {
    let fixture = Fixture::start().await;
    let at = SeekPosition::specified;
    assert_eq!(refused(&fixture, &blocks(2, 2)).await, Status::NotFound);
    assert_eq!(refused(&fixture, &blocks(1, 0)).await, Status::BadRequest);
    let no_stop = SeekInfo { start: Some(at(0)), ..SeekInfo::default() };
    let no_start = SeekInfo { stop: Some(at(0)), ..SeekInfo::default() };
    let empty = || SeekPosition { r#type: None };
    for seek in [no_stop, no_start, range(at(0), empty())] {
        assert_eq!(refused(&fixture, &seek).await, Status::BadRequest);
    }
    assert_eq!(refused(&fixture, &range(empty(), at(0))).await, Status::NotFound);
    let impatient =
        |first, last| SeekInfo { behavior: SeekBehavior::FailIfNotReady.into(), ..blocks(first, last) };
    assert_eq!(refused(&fixture, &impatient(1, 1)).await, Status::NotFound);
    // What exists is served before the failure.
    let mut client = fixture.seek(&impatient(0, 9)).await;
    assert_eq!(client.number().await, 0);
    assert_eq!(client.last_status().await, Status::NotFound);
}

#[tokio::test]
async fn signers_without_the_right_get_forbidden() {
    let fixture = Fixture::start().await;
    let strangers = [fixture.network.foreigner().unwrap(), fixture.network.expired_member().unwrap()];
    for signer in strangers {
        for method in [DELIVER, FILTERED] {
            let mut client = Client::open(fixture.connect().await, method, signer.clone()).await.unwrap();
            client.seek(&blocks(0, 0)).await;
            assert_eq!(client.last_status().await, Status::Forbidden);
        }
    }
    // A member's request with another signature.
    let encoded = seek_envelope(&fixture.member(), &channel(), &blocks(0, 0), rand::random(), now(), None);
    for signature in [vec![], vec![7; 64]] {
        let mut envelope = Envelope::decode(encoded.clone()).unwrap();
        envelope.signature = signature.into();
        let mut client = fixture.open(DELIVER).await;
        client.send(envelope).await;
        assert_eq!(client.last_status().await, Status::Forbidden);
    }
}

#[tokio::test]
async fn a_stopped_channel_serves_best_effort_alone() {
    let fixture = Fixture::start().await;
    fixture.commit(&[b"payload"]);
    let best_effort =
        |seek: SeekInfo| SeekInfo { error_response: SeekErrorResponse::BestEffort.into(), ..seek };
    let mut strict = fixture.seek(&SeekInfo::from_number(1)).await;
    let mut lenient = fixture.seek(&best_effort(SeekInfo::from_number(1))).await;
    assert_eq!((strict.number().await, lenient.number().await), (1, 1));
    fixture.channels.halted(&channel(), "the orderers signed two histories");
    assert_eq!(strict.last_status().await, Status::ServiceUnavailable, "while waiting");
    assert_eq!(refused(&fixture, &blocks(0, 1)).await, Status::ServiceUnavailable, "before");
    let mut client = fixture.seek(&best_effort(blocks(0, 1))).await;
    assert_eq!((client.number().await, client.number().await), (0, 1));
    assert_eq!(client.status().await, Status::Success);
    fixture.commit(&[b"in flight"]);
    assert_eq!(lenient.number().await, 2);
}

#[tokio::test]
async fn a_block_that_cannot_be_read_is_an_internal_error() {
    let fixture = Fixture::start().await;
    fixture.channels.committed(&channel(), 2);
    let mut client = fixture.seek(&blocks(0, 1)).await;
    assert_eq!(client.number().await, 0);
    assert_eq!(client.last_status().await, Status::InternalServerError);
}

#[tokio::test]
async fn stopping_tells_the_streams() {
    let fixture = Fixture::start().await;
    let mut waiting = fixture.seek(&SeekInfo::from_number(0)).await;
    assert_eq!(waiting.number().await, 0);
    let idle = fixture.open(DELIVER).await;
    let before = std::time::Instant::now();
    let (status, ()) = tokio::join!(waiting.last_status(), fixture.server.stop());
    assert_eq!(status, Status::ServiceUnavailable);
    assert!(before.elapsed() < std::time::Duration::from_secs(5));
    let mut idle = idle;
    assert!(matches!(idle.answer().await, Answer::End | Answer::Failed(_)));
}
