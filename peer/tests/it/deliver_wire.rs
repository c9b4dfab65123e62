//! Sizes and silences on the wire, towards orderers and towards clients: messages of 100 MB, connections that die quietly.

use std::net::SocketAddr;
use std::time::Duration;

use grapevine_channels::ChannelId;
use grapevine_channels::block::BLOCK_SIZE_MAX;
use grapevine_channels::config::BatchSize;
use grapevine_channels::proto::orderer::SeekInfo;
use grapevine_orderer_mock::pieces::Cutting;
use grapevine_orderer_mock::server::RunningServer;
use grapevine_orderer_mock::submit::{SubmitOptions, submit};
use grapevine_orderer_mock::testing::{SINGLE, TestNetwork};
use grapevine_peer::deliver::{DeliverClient, DeliverConfig, DeliverEndpoint, DeliverEvent};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::deliver_server::fixture::{Answer, Client, DELIVER, Fixture, connect, within};

fn channel() -> ChannelId {
    "trade".parse().unwrap()
}

fn config(address: SocketAddr, block_bytes_max: usize) -> DeliverConfig {
    let endpoint = DeliverEndpoint { address: address.to_string(), tls_roots: Vec::new() };
    let mut config = DeliverConfig::new(channel(), vec![endpoint], block_bytes_max);
    config.backoff_min = Duration::from_millis(10);
    config
}

/// The next event other than that a stream stands.
async fn event(events: &mut mpsc::Receiver<DeliverEvent>) -> DeliverEvent {
    loop {
        match within(events.recv()).await.expect("the client ended") {
            DeliverEvent::Connected { .. } => {}
            event => return event,
        }
    }
}

async fn block_bytes(events: &mut mpsc::Receiver<DeliverEvent>) -> usize {
    match event(events).await {
        DeliverEvent::Block { bytes, .. } => bytes.len(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_block_of_nearly_100_mb_is_pulled_and_a_larger_one_than_the_channel_allows_is_not() {
    const BYTES: u32 = 98 << 20;
    let directory = tempfile::tempdir().unwrap();
    let network = TestNetwork::new(directory.path()).unwrap();
    let batch =
        BatchSize { max_message_count: 1, absolute_max_bytes: 99 << 20, preferred_max_bytes: 1 << 20 };
    let genesis = network.genesis("trade", batch, 50).unwrap();
    let server = RunningServer::start(network.options(vec![genesis])).await.unwrap();
    let file = directory.path().join("input");
    std::fs::write(&file, vec![1; BYTES as usize]).unwrap();
    let options = SubmitOptions {
        orderer: TestNetwork::client_options(server.address(), None),
        channel: channel(),
        file,
        cutting: Cutting::Pieces(BYTES as usize),
        rate: None,
        wait: Duration::ZERO,
    };
    let member = network.member().unwrap();
    within(submit(options, member.clone())).await.unwrap();

    let (sink, mut events) = mpsc::channel(1);
    let client = DeliverClient::spawn(config(server.address(), BLOCK_SIZE_MAX), member.clone(), 1, sink);
    assert!(block_bytes(&mut events).await > BYTES as usize);
    drop(client);
    let (sink, mut events) = mpsc::channel(1);
    let _client = DeliverClient::spawn(config(server.address(), BYTES as usize), member, 1, sink);
    let refused = event(&mut events).await;
    assert!(matches!(refused, DeliverEvent::Failed { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_block_of_nearly_100_mb_is_served() {
    let fixture = Fixture::start().await;
    let payload = vec![1; 98 << 20];
    let block = fixture.commit(&[&payload]);
    let mut client = fixture.seek(&SeekInfo::from_number(1)).await;
    assert_eq!(client.block().await.header_hash(), block.header_hash());
}

async fn told(silent: &mut watch::Receiver<bool>, to_be: bool) {
    // An error means that the test is over.
    let _over = silent.wait_for(|silent| *silent == to_be).await;
}

/// Passes bytes on until it is told to fall silent: then both ends have a connection that nobody answers on. Tells when the
/// server closes one all the same.
async fn proxy(to: SocketAddr, silent: watch::Receiver<bool>) -> (SocketAddr, mpsc::Receiver<()>) {
    let (closed, closings) = mpsc::channel(16);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(to).await.unwrap();
            let (mut silent, closed) = (silent.clone(), closed.clone());
            tokio::spawn(async move {
                let ended = tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => true,
                    () = told(&mut silent, true) => false,
                };
                if ended {
                    return;
                }
                // It holds the connections, and breaks them when it may speak again.
                let mut sink = tokio::io::sink();
                tokio::select! {
                    _ = tokio::io::copy(&mut far, &mut sink) => {
                        let _nobody_waits = closed.send(()).await;
                        told(&mut silent, false).await;
                    }
                    () = told(&mut silent, false) => {}
                }
            });
        }
    });
    (address, closings)
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_left_and_an_idle_one_kept() {
    let directory = tempfile::tempdir().unwrap();
    let network = TestNetwork::new(directory.path()).unwrap();
    let genesis = network.genesis("trade", SINGLE, 50).unwrap();
    let server = RunningServer::start(network.options(vec![genesis])).await.unwrap();
    let (silence, silent) = watch::channel(false);
    let (address, _closings) = proxy(server.address(), silent).await;
    let mut config = config(address, 2 << 20);
    config.keepalive_interval = Duration::from_millis(50);
    config.keepalive_timeout = Duration::from_secs(5);
    let (sink, mut events) = mpsc::channel(1);
    let _client = DeliverClient::spawn(config, network.member().unwrap(), 0, sink);
    block_bytes(&mut events).await;
    // Pings are answered, so nothing happens in the time of twenty of them.
    let idle = tokio::time::timeout(Duration::from_secs(1), events.recv()).await;
    assert!(matches!(idle, Err(_) | Ok(Some(DeliverEvent::Connected { .. }))), "{idle:?}");
    silence.send(true).unwrap();
    let left = event(&mut events).await;
    assert!(matches!(left, DeliverEvent::Failed { .. }), "{left:?}");
}

/// The place of a client that vanished without a word is free again.
#[tokio::test]
async fn servers_close_connections_that_answer_no_pings() {
    let fixture = Fixture::with(|_, options| {
        options.keepalive_interval = Duration::from_millis(50);
        options.keepalive_timeout = Duration::from_millis(200);
    })
    .await;
    let (silence, silent) = watch::channel(false);
    let (address, mut closings) = proxy(fixture.server.address(), silent).await;
    let mut client = Client::open(connect(address, None).await, DELIVER, fixture.member()).await.unwrap();
    client.seek(&SeekInfo::from_number(0)).await;
    assert_eq!(client.number().await, 0);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(fixture.server.counters().streams, 1, "it answers, so it stays");
    silence.send(true).unwrap();
    within(closings.recv()).await.unwrap();
    within(async {
        while fixture.server.counters().streams > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    silence.send(false).unwrap();
    assert!(matches!(client.answer().await, Answer::Failed(_)));
}

#[tokio::test]
async fn orderers_close_connections_that_answer_no_pings() {
    let directory = tempfile::tempdir().unwrap();
    let network = TestNetwork::new(directory.path()).unwrap();
    let genesis = network.genesis("trade", SINGLE, 50).unwrap();
    let mut options = network.options(vec![genesis]);
    options.keepalive_interval = Duration::from_millis(50);
    options.keepalive_timeout = Duration::from_millis(200);
    let server = RunningServer::start(options).await.unwrap();
    let (silence, silent) = watch::channel(false);
    let (address, mut closings) = proxy(server.address(), silent).await;
    let (sink, mut events) = mpsc::channel(1);
    // The client is content to wait for a minute.
    let _client = DeliverClient::spawn(config(address, 2 << 20), network.member().unwrap(), 0, sink);
    block_bytes(&mut events).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(closings.try_recv().is_err(), "it answers, so it stays");
    silence.send(true).unwrap();
    within(closings.recv()).await.unwrap();
}
