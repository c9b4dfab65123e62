//! Each fault as clients see it, that the stored chain never changes, and the control socket.

use std::time::{Duration, Instant};

use grapevine_channels::block::Block;
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::proto::common::Status;
use grapevine_channels::proto::orderer::{SeekBehavior, SeekInfo, SeekPosition};
use grapevine_channels::verify::{BlockVerifier, VerifyError};
use grapevine_orderer_mock::client::{ConnectError, connect};
use grapevine_orderer_mock::control::{ControlError, SOCKET_NAME, switch_fault};
use grapevine_orderer_mock::faults::{Fault, FaultError};

use crate::client::{DEADLINE, Deliver, Fixture, channel, range, within};

fn switch(fixture: &Fixture, fault: Fault) {
    fixture.server.faults().switch(Some("trade"), fault).unwrap();
}

fn verifier(fixture: &Fixture) -> BlockVerifier {
    let bytes = std::fs::read(&fixture.genesis).unwrap();
    let genesis = Block::decode(bytes.into(), 1 << 20).unwrap();
    BlockVerifier::new(ChannelConfig::from_block(&genesis).unwrap().into())
}

fn stored(fixture: &Fixture, number: u64) -> Block {
    let bytes = std::fs::read(fixture.ledger().join(format!("{number:03}.block"))).unwrap();
    Block::decode(bytes.into(), 100 << 20).unwrap()
}

async fn follow(fixture: &Fixture, from: u64) -> Deliver {
    let deliver = fixture.deliver().await;
    deliver.seek(&SeekInfo::from_number(from)).await;
    deliver
}

/// After a fault is cleared everybody gets the stored chain.
async fn assert_honest(fixture: &Fixture, height: u64) {
    fixture.server.faults().switch(None, Fault::Clear).unwrap();
    let mut deliver = follow(fixture, 0).await;
    for number in 0..height {
        assert_eq!(deliver.block().await, stored(fixture, number), "block {number}");
    }
}

#[tokio::test]
async fn status_ends_waiting_streams_and_new_seeks() {
    let fixture = Fixture::start().await;
    let mut waiting = follow(&fixture, 1).await;
    let mut genesis = follow(&fixture, 0).await;
    assert_eq!(genesis.block().await.number(), 0);
    switch(&fixture, Fault::Status { code: 503 });
    assert_eq!(waiting.last_status().await, Status::ServiceUnavailable);
    assert_eq!(genesis.last_status().await, Status::ServiceUnavailable);
    switch(&fixture, Fault::Status { code: 500 });
    assert_eq!(follow(&fixture, 0).await.last_status().await, Status::InternalServerError);
    // Transactions are taken all the same.
    fixture.submit(&[b"x"], 2).await;
    assert_honest(&fixture, 2).await;
}

#[tokio::test]
async fn withheld_blocks_do_not_exist_until_clear() {
    let fixture = Fixture::start().await;
    fixture.submit(&[b"1", b"2"], 3).await;
    switch(&fixture, Fault::Withhold { above: Some(1) });
    let mut waiting = follow(&fixture, 0).await;
    assert_eq!(waiting.block().await.number(), 0);
    assert_eq!(waiting.block().await.number(), 1);
    let mut impatient = fixture.deliver().await;
    let mut seek = range(SeekPosition::specified(2), SeekPosition::specified(2));
    seek.behavior = SeekBehavior::FailIfNotReady.into();
    impatient.seek(&seek).await;
    assert_eq!(impatient.last_status().await, Status::NotFound);
    let mut newest = fixture.deliver().await;
    newest.seek(&range(SeekPosition::newest(), SeekPosition::newest())).await;
    assert_eq!(newest.block().await.number(), 1);
    switch(&fixture, Fault::Clear);
    assert_eq!(waiting.block().await.number(), 2);
    // Without a number: what is there stays visible.
    switch(&fixture, Fault::Withhold { above: None });
    fixture.submit(&[b"3"], 4).await;
    newest.seek(&range(SeekPosition::newest(), SeekPosition::newest())).await;
    assert_eq!(newest.status().await, Status::Success);
    assert_eq!(newest.block().await.number(), 2);
    assert_honest(&fixture, 4).await;
}

#[tokio::test]
async fn bad_signatures_do_not_verify() {
    let fixture = Fixture::start().await;
    fixture.submit(&[b"1"], 2).await;
    switch(&fixture, Fault::BadSignature);
    let mut deliver = follow(&fixture, 0).await;
    assert_eq!(deliver.block().await, stored(&fixture, 0));
    let block = deliver.block().await;
    assert_eq!(block.header_hash(), stored(&fixture, 1).header_hash());
    let refused = verifier(&fixture).verify(block);
    assert!(matches!(refused, Err(VerifyError::Policy { .. })), "{refused:?}");
    assert_honest(&fixture, 2).await;
}

#[tokio::test]
async fn wrong_previous_hashes_are_signed() {
    let fixture = Fixture::start().await;
    fixture.submit(&[b"1"], 2).await;
    switch(&fixture, Fault::WrongPreviousHash);
    let mut deliver = follow(&fixture, 1).await;
    let authentic = verifier(&fixture).verify(deliver.block().await).unwrap();
    assert_ne!(authentic.previous_hash(), Some(stored(&fixture, 0).header_hash()));
    assert_eq!(authentic.block().transactions(), stored(&fixture, 1).transactions());
    assert_honest(&fixture, 2).await;
}

#[tokio::test]
async fn every_second_stream_gets_another_whole_chain() {
    let fixture = Fixture::start().await;
    fixture.submit(&[b"1"], 2).await;
    let (mut first, mut second) = (follow(&fixture, 0).await, follow(&fixture, 0).await);
    for number in 0..2 {
        assert_eq!(first.block().await, stored(&fixture, number));
        assert_eq!(second.block().await, stored(&fixture, number));
    }
    switch(&fixture, Fault::Equivocate { from: None });
    fixture.submit(&[b"2", b"3", b"4"], 5).await;
    let verifier = verifier(&fixture);
    let mut tips = [stored(&fixture, 1).header_hash(); 2];
    for number in 2..5 {
        let blocks = [first.block().await, second.block().await];
        let authentic = blocks.map(|block| verifier.verify(block).unwrap());
        for (tip, block) in tips.iter_mut().zip(&authentic) {
            assert_eq!((block.number(), block.previous_hash()), (number, Some(*tip)));
            *tip = block.hash();
        }
        assert_ne!(tips[0], tips[1], "block {number}");
        assert!(tips.contains(&stored(&fixture, number).header_hash()));
    }
    // The third has the stored history, the fourth the same other one, also when it begins in the middle.
    let mut third = follow(&fixture, 4).await;
    let mut others = vec![third.block().await.header_hash()];
    let mut fourth = follow(&fixture, 4).await;
    others.push(fourth.block().await.header_hash());
    assert_eq!(others[0], stored(&fixture, 4).header_hash());
    assert_ne!(others[0], others[1]);
    assert!(tips.contains(&others[1]));
    assert_honest(&fixture, 5).await;
}

#[tokio::test]
async fn delayed_blocks_come_late() {
    let fixture = Fixture::start().await;
    switch(&fixture, Fault::Delay { milliseconds: 150 });
    let started = Instant::now();
    let mut deliver = follow(&fixture, 0).await;
    assert_eq!(deliver.block().await.number(), 0);
    assert!(started.elapsed() >= Duration::from_millis(150));
    assert_honest(&fixture, 1).await;
}

#[tokio::test]
async fn dropped_connections_break_and_new_ones_are_taken() {
    let fixture = Fixture::start().await;
    let mut waiting = follow(&fixture, 0).await;
    assert_eq!(waiting.block().await.number(), 0);
    fixture.server.faults().switch(None, Fault::Drop).unwrap();
    waiting.broken().await;
    fixture.submit(&[b"1"], 2).await;
    assert_honest(&fixture, 2).await;
}

#[tokio::test]
async fn a_stopped_service_refuses_until_clear() {
    let fixture = Fixture::start().await;
    let mut waiting = follow(&fixture, 0).await;
    assert_eq!(waiting.block().await.number(), 0);
    fixture.server.faults().switch(None, Fault::Stop).unwrap();
    waiting.broken().await;
    let deadline = Instant::now() + DEADLINE;
    loop {
        let refused = within(connect(&fixture.options())).await;
        if let Err(ConnectError::Unreachable { .. }) = refused {
            break;
        }
        assert!(Instant::now() < deadline, "still taking connections");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    fixture.server.faults().switch(None, Fault::Clear).unwrap();
    while within(connect(&fixture.options())).await.is_err() {
        assert!(Instant::now() < deadline, "takes no connections");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    fixture.submit(&[b"1"], 2).await;
    assert_honest(&fixture, 2).await;
}

#[tokio::test]
async fn switches_say_what_is_wrong() {
    let fixture = Fixture::start().await;
    let faults = fixture.server.faults();
    assert_eq!(
        faults.switch(Some("audit"), Fault::BadSignature),
        Err(FaultError::UnknownChannel("audit".into()))
    );
    assert_eq!(faults.switch(Some("trade"), Fault::Stop), Err(FaultError::NotOfAChannel));
    assert_eq!(faults.switch(None, Fault::Status { code: 200 }), Err(FaultError::Status(200)));
    assert_honest(&fixture, 1).await;
}

#[tokio::test]
async fn the_control_socket_switches_and_ends_with_the_service() {
    let fixture = Fixture::start().await;
    let location = fixture.directory.path().join("ledger");
    let ask = |channel: Option<&'static str>, fault| {
        let location = location.clone();
        tokio::task::spawn_blocking(move || switch_fault(&location, channel, fault))
    };
    within(ask(Some("trade"), Fault::Status { code: 403 })).await.unwrap().unwrap();
    assert_eq!(follow(&fixture, 0).await.last_status().await, Status::Forbidden);
    within(ask(None, Fault::Clear)).await.unwrap().unwrap();
    assert_eq!(follow(&fixture, 0).await.block().await.number(), 0);
    let refused = within(ask(Some("audit"), Fault::Clear)).await.unwrap();
    assert!(matches!(refused, Err(ControlError::Refused(text)) if text.contains("audit")));
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(location.join(SOCKET_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    // Nonsense is answered, and does no harm.
    for line in ["junk\n", "{\"fault\":\"explode\"}\n", "{\"fault\":\"status\"}\n", "\n"] {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::UnixStream::connect(location.join(SOCKET_NAME)).await.unwrap();
        stream.write_all(line.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("{\"error\":"), "{line}: {answer}");
    }
    // A second service keeps out.
    let second = within(grapevine_orderer_mock::control::ControlServer::bind(&location)).await;
    assert!(matches!(second, Err(ControlError::InUse { .. })));
    let fixture = fixture.restart().await;
    assert_eq!(fixture.server.registry().chain(&channel()).unwrap().state().borrow().height, 1);
    within(ask(None, Fault::Clear)).await.unwrap().unwrap();
    within(fixture.server.stop()).await;
    let gone = within(ask(None, Fault::Clear)).await.unwrap();
    assert!(matches!(gone, Err(ControlError::NotRunning { .. } | ControlError::NoAnswer { .. })), "{gone:?}");
}
