//! Submitting files.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use grapevine_channels::config::BatchSize;
use grapevine_channels::proto::orderer::SeekPosition;
use grapevine_orderer_mock::client::ClientOptions;
use grapevine_orderer_mock::pieces::Cutting;
use grapevine_orderer_mock::submit::{SubmitError, SubmitOptions, Submitted, submit};

use crate::client::{Fixture, channel, payloads, range, within};

const BATCH: BatchSize =
    BatchSize { max_message_count: 10, absolute_max_bytes: 200_000, preferred_max_bytes: 100_000 };

fn options(orderer: ClientOptions, file: PathBuf, cutting: Cutting) -> SubmitOptions {
    SubmitOptions { orderer, channel: channel(), file, cutting, rate: None, wait: Duration::from_secs(5) }
}

/// Everything in the channel, in order.
async fn stored(fixture: Fixture) -> Vec<u8> {
    let fixture = fixture.restart().await;
    let height = fixture.server.registry().chain(&channel()).unwrap().state().borrow().height;
    let mut deliver = fixture.deliver().await;
    deliver.seek(&range(SeekPosition::oldest(), SeekPosition::newest())).await;
    deliver.block().await;
    let mut bytes = Vec::new();
    for _ in 1..height {
        bytes.extend(payloads(&deliver.block().await).concat());
    }
    bytes
}

#[tokio::test]
async fn lines_and_pieces_come_back_byte_for_byte() {
    let content: Vec<u8> =
        (0..5000_u32).flat_map(|index| format!("line {index}\r\n\n").into_bytes()).collect();
    for (cutting, count) in [(Cutting::Lines, 10_000), (Cutting::Pieces(1000), content.len().div_ceil(1000))]
    {
        let fixture = Fixture::with_batch(BatchSize { max_message_count: 500, ..BATCH }, 20).await;
        let file = fixture.directory.path().join("input");
        std::fs::write(&file, &content).unwrap();
        let signer = fixture.network.member().unwrap();
        let submitted = within(submit(options(fixture.options(), file, cutting), signer)).await.unwrap();
        let want = Submitted { transactions: count as u64, payload_bytes: content.len() as u64 };
        assert_eq!(submitted, want);
        assert!(stored(fixture).await == content, "{cutting:?}");
    }
}

#[tokio::test]
async fn a_rate_is_kept() {
    let fixture = Fixture::with_batch(BATCH, 20).await;
    let file = fixture.directory.path().join("input");
    std::fs::write(&file, [b'x'; 41]).unwrap();
    let options = SubmitOptions { rate: Some(100.0), ..options(fixture.options(), file, Cutting::Pieces(1)) };
    let started = Instant::now();
    within(submit(options, fixture.network.member().unwrap())).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(290), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_refusal_says_which_and_why() {
    let fixture = Fixture::with_batch(BATCH, 20).await;
    let file = fixture.directory.path().join("input");
    std::fs::write(&file, b"a\nb\n").unwrap();
    let foreigner = fixture.network.foreigner().unwrap();
    let error = within(submit(options(fixture.options(), file.clone(), Cutting::Lines), foreigner)).await;
    assert!(
        matches!(error, Err(SubmitError::Refused { number: 1, status: 403, accepted: 0, .. })),
        "{error:?}"
    );

    std::fs::write(&file, [b"fine\n".to_vec(), vec![b'x'; 300_000]].concat()).unwrap();
    let member = fixture.network.member().unwrap();
    let error = within(submit(options(fixture.options(), file, Cutting::Lines), member)).await;
    assert!(
        matches!(error, Err(SubmitError::Refused { number: 2, status: 400, accepted: 1, .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_absent_orderer_is_waited_for_and_then_given_up() {
    let fixture = Fixture::with_batch(BATCH, 20).await;
    let file = fixture.directory.path().join("input");
    std::fs::write(&file, b"late\n").unwrap();
    let address = fixture.server.address();
    let member = fixture.network.member().unwrap();
    let options = options(fixture.options(), file, Cutting::Lines);
    within(fixture.server.stop()).await;
    let short = SubmitOptions { wait: Duration::from_millis(300), ..options.clone() };
    let error = within(submit(short, member.clone())).await;
    assert!(matches!(error, Err(SubmitError::Connect(_))), "{error:?}");

    let submitting = tokio::spawn(submit(options, member));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut server_options = fixture.network.options(vec![fixture.genesis.clone()]);
    server_options.listen = address;
    let _server = grapevine_orderer_mock::server::RunningServer::start(server_options).await.unwrap();
    assert_eq!(within(submitting).await.unwrap().unwrap().transactions, 1);
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let fixture = Fixture::with_batch(BATCH, 20).await;
    let options = options(fixture.options(), "no such file".into(), Cutting::Lines);
    let error = within(submit(options, fixture.network.member().unwrap())).await.unwrap_err();
    assert!(error.to_string().contains("no such file"), "{error}");
}
