//! What a restart finds on disk.

use std::fs;

use grapevine_channels::proto::orderer::SeekPosition;
use grapevine_orderer_mock::chain::ChainError;
use grapevine_orderer_mock::registry::RegistryError;
use grapevine_orderer_mock::server::{RunningServer, ServerError};
use grapevine_orderer_mock::store::StoreError;
use grapevine_orderer_mock::testing::SINGLE;

use crate::client::{Fixture, channel, payloads, range, within};

#[tokio::test]
async fn a_restart_continues_the_chain() {
    let fixture = Fixture::start().await;
    fixture.submit(&[b"one", b"two"], 3).await;
    let fixture = fixture.restart().await;
    fixture.submit(&[b"three"], 4).await;
    let mut deliver = fixture.deliver().await;
    deliver.seek(&range(SeekPosition::oldest(), SeekPosition::newest())).await;
    let mut previous = deliver.block().await.header_hash();
    for payload in ["one", "two", "three"] {
        let block = deliver.block().await;
        assert_eq!(block.header().previous_hash, previous.as_ref());
        assert_eq!(payloads(&block), [payload]);
        previous = block.header_hash();
    }
}

#[tokio::test]
async fn a_torn_last_block_is_cut_at_every_length() {
    let mut fixture = Fixture::start().await;
    fixture.submit(&[b"one", b"two"], 3).await;
    let last = fixture.ledger().join("002.block");
    let whole = fs::read(&last).unwrap();
    let step = whole.len() / 7;
    let mut torn: Vec<Vec<u8>> =
        (0..whole.len()).step_by(step).map(|length| whole[..length].to_vec()).collect();
    // The file got its length but not its data.
    torn.push(vec![0; whole.len()]);
    for bytes in torn {
        fs::write(&last, bytes).unwrap();
        fs::write(fixture.ledger().join("003.partial"), b"half").unwrap();
        fixture = fixture.restart().await;
        assert_eq!(fixture.server.registry().chain(&channel()).unwrap().state().borrow().height, 2);
        assert!(!last.exists() && !fixture.ledger().join("003.partial").exists());
    }
    fixture.submit(&[b"two again"], 3).await;
    let mut deliver = fixture.deliver().await;
    deliver.seek(&range(SeekPosition::newest(), SeekPosition::newest())).await;
    assert_eq!(payloads(&deliver.block().await), ["two again"]);
}

/// The error that a restart ends with.
async fn restart_error(fixture: Fixture) -> StoreError {
    let Fixture { directory: _directory, network, genesis, server } = fixture;
    within(server.stop()).await;
    match RunningServer::start(network.options(vec![genesis])).await {
        Err(ServerError::Registry(RegistryError::Chain { source, .. })) => match *source {
            ChainError::Store(error) => error,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn damage_before_the_last_block_is_an_error() {
    let fixture = Fixture::start().await;
    fixture.submit(&[b"one", b"two", b"three"], 4).await;
    fs::remove_file(fixture.ledger().join("001.block")).unwrap();
    let error = restart_error(fixture).await;
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");

    let fixture = Fixture::start().await;
    fixture.submit(&[b"one", b"two"], 3).await;
    for name in ["001.block", "002.block"] {
        fs::write(fixture.ledger().join(name), b"").unwrap();
    }
    let error = restart_error(fixture).await;
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn another_genesis_block_is_refused() {
    let fixture = Fixture::start().await;
    fixture.network.genesis("trade", SINGLE, 60).unwrap();
    let error = restart_error(fixture).await;
    assert!(matches!(error, StoreError::OtherGenesis { .. }), "{error}");
}
