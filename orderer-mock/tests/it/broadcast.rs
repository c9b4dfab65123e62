//! What `Broadcast` takes and refuses, and how batches become blocks.

use std::time::{Duration, Instant};

use grapevine_channels::config::BatchSize;
use grapevine_channels::proto::common::{Envelope, HeaderType, Status};
use grapevine_channels::proto::orderer::SeekPosition;
use grapevine_channels::transaction::{EnvelopeHeader, endorser_transaction, signed_envelope};
use grapevine_crypto::Signer;
use grapevine_orderer_mock::rpc::MESSAGE_BYTES_MAX;
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
        ("unknown channel", Envelope::decode(elsewhere).unwrap(), 400),
        ("foreign signer", transaction(&foreigner, b"x"), 403),
        ("expired signer", transaction(&expired, b"x"), 400),
        ("forged", forged, 403),
        ("too large", transaction(&member, &vec![0; 1 << 20]), 400),
    ];
    for (name, envelope, want) in table {
        let (status, info) = answer(&fixture, envelope).await;
        assert_eq!(status, want, "{name}: {info}");
        assert_eq!(info.is_empty(), want == 200, "{name}: {info}");
    }
}

/// Clients show `info` to people, so it says what is wrong and with which values.
#[tokio::test]
async fn the_info_of_a_refusal_is_for_people() {
    let fixture = Fixture::start().await;
    let member = fixture.network.member().unwrap();
    let expired = fixture.network.expired_member().unwrap();
    let foreigner = fixture.network.foreigner().unwrap();
    let elsewhere = endorser_transaction(&member, &"audit".parse().unwrap(), b"x", rand::random(), now());
    let large = transaction(&member, &vec![0; 1 << 20]);
    let bytes = large.payload.len() + large.signature.len();
    let table = [
        (Envelope::default(), vec!["payload".to_owned()]),
        (typed(&member, HeaderType::Config), vec!["config transactions".into()]),
        (Envelope::decode(elsewhere).unwrap(), vec!["does not exist".into(), "audit".into()]),
        (large, vec![bytes.to_string(), (1 << 20).to_string()]),
        (transaction(&expired, b"x"), vec!["expired".into()]),
        (transaction(&foreigner, b"x"), vec!["/Channel/Writers".into(), "trade".into()]),
    ];
    for (envelope, words) in table {
        let (_, info) = answer(&fixture, envelope).await;
        assert!(words.iter().all(|word| info.contains(word)) && !info.contains('\n'), "{words:?}: {info}");
    }
}

/// As large as Fabric lets a message be (`MaxRecvMsgSize`, `MaxSendMsgSize`), and no larger.
#[tokio::test]
async fn transactions_and_blocks_of_nearly_100_mb_pass() {
    let absolute_max_bytes = 99 << 20;
    let batch =
        BatchSize { max_message_count: 1, absolute_max_bytes, preferred_max_bytes: absolute_max_bytes };
    let fixture = Fixture::with_batch(batch, 50).await;
    let member = fixture.network.member().unwrap();
    let payload = vec![7; (99 << 20) - 10_000];
    let mut deliver = fixture.deliver().await;
    deliver.seek(&range(SeekPosition::specified(1), SeekPosition::specified(1))).await;
    assert_eq!(answer(&fixture, transaction(&member, &payload)).await, (200, String::new()));
    assert_eq!(payloads(&deliver.block().await), [payload]);
    assert_eq!(deliver.status().await, Status::Success);

    let mut broadcast = Broadcast::open(&fixture.options()).await;
    let too_large = broadcast.try_send(transaction(&member, &vec![7; MESSAGE_BYTES_MAX])).await;
    let refused = too_large.unwrap_err();
    // The client may notice that nobody reads before it has read why.
    let codes = [tonic::Code::OutOfRange, tonic::Code::Internal];
    assert!(codes.contains(&refused.code()), "{refused}");
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
