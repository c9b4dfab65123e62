//! What `Broadcast` takes and refuses, and how batches become blocks.

use std::time::{Duration, Instant};

use grapevine_channels::config::BatchSize;
use grapevine_channels::proto::common::{Envelope, HeaderType, Status};
use grapevine_channels::proto::orderer::SeekPosition;
use grapevine_channels::transaction::{EnvelopeHeader, endorser_transaction, signed_envelope};
use grapevine_crypto::Signer;
use prost::Message;

use crate::client::{Broadcast, Fixture, channel, now, payloads, range, transaction};

/// The answer to one envelope on a fresh stream, which a refusal must end.
async fn answer(fixture: &Fixture, envelope: Envelope) -> (i32, String) {
    let mut broadcast = Broadcast::open(&fixture.options()).await;
    let response = broadcast.send(envelope).await.unwrap();
    if response.status != 200 {
        let member = fixture.network.member().unwrap();
        assert!(broadcast.send(transaction(&member, b"after")).await.is_none(), "the stream goes on");
    }
    (response.status, response.info)
}

fn typed(signer: &Signer, header_type: HeaderType) -> Envelope {
    let channel = channel();
    let header = EnvelopeHeader {
        header_type,
        channel: &channel,
        nonce: rand::random(),
        timestamp_seconds: now(),
        tls_cert_hash: None,
    };
    Envelope::decode(signed_envelope(signer, header, b"data".as_slice().into())).unwrap()
}

#[tokio::test]
async fn the_table_of_answers() {
    let fixture = Fixture::start().await;
    let member = fixture.network.member().unwrap();
    let foreigner = fixture.network.foreigner().unwrap();
    let expired = fixture.network.expired_member().unwrap();
    let elsewhere = endorser_transaction(&member, &"audit".parse().unwrap(), b"x", rand::random(), now());
    let mut forged = transaction(&member, b"x");
    forged.signature = vec![3; 64].into();
    let table = [
        ("good", transaction(&member, b"x"), 200),
        ("other types are taken too", typed(&member, HeaderType::Message), 200),
        ("empty", Envelope::default(), 400),
        ("junk", Envelope { payload: b"junk".as_slice().into(), signature: vec![].into() }, 400),
        ("config", typed(&member, HeaderType::Config), 400),
        ("junk as a config update", typed(&member, HeaderType::ConfigUpdate), 400),
        ("unknown channel", Envelope::decode(elsewhere).unwrap(), 404),
        ("foreign signer", transaction(&foreigner, b"x"), 403),
        ("expired signer", transaction(&expired, b"x"), 403),
        ("forged", forged, 403),
        ("too large", transaction(&member, &vec![0; 1 << 20]), 413),
    ];
    for (name, envelope, want) in table {
        let (status, info) = answer(&fixture, envelope).await;
        assert_eq!(status, want, "{name}: {info}");
        assert_eq!(info.is_empty(), want == 200, "{name}: {info}");
    }
}

#[tokio::test]
async fn count_bytes_and_timeout_cut_blocks() {
    let batch = BatchSize { max_message_count: 3, absolute_max_bytes: 100_000, preferred_max_bytes: 20_000 };
    let fixture = Fixture::with_batch(batch, 300).await;
    let large = vec![9; 30_000];
    let started = Instant::now();
    fixture.submit(&[b"1", b"2", b"3", b"4", &large, b"5"], 5).await;
    // Block 4 can only come by the timeout.
    assert!(started.elapsed() >= Duration::from_millis(300));
    let mut deliver = fixture.deliver().await;
    deliver.seek(&range(SeekPosition::specified(1), SeekPosition::specified(4))).await;
    let sizes = |payloads: Vec<bytes::Bytes>| payloads.iter().map(bytes::Bytes::len).collect::<Vec<_>>();
    assert_eq!(payloads(&deliver.block().await), ["1", "2", "3"]);
    assert_eq!(payloads(&deliver.block().await), ["4"]);
    assert_eq!(sizes(payloads(&deliver.block().await)), [30_000]);
    assert_eq!(payloads(&deliver.block().await), ["5"]);
    assert_eq!(deliver.status().await, Status::Success);
}

#[tokio::test]
async fn stopping_writes_what_was_accepted() {
    let batch =
        BatchSize { max_message_count: 100, absolute_max_bytes: 100_000, preferred_max_bytes: 50_000 };
    // A timeout that never comes in this test.
    let fixture = Fixture::with_batch(batch, 3_600_000).await;
    fixture.submit(&[b"1", b"2"], 1).await;
    let fixture = fixture.restart().await;
    let mut deliver = fixture.deliver().await;
    deliver.seek(&range(SeekPosition::newest(), SeekPosition::newest())).await;
    let block = deliver.block().await;
    assert_eq!((block.header().number, payloads(&block)), (1, vec!["1".into(), "2".into()]));
}
