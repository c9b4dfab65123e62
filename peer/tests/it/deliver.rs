//! The deliver client against the stand-in ordering service, and against an orderer that misbehaves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use grapevine_channels::ChannelId;
use grapevine_channels::block::Block;
use grapevine_channels::proto::common::{self, Envelope, Status};
use grapevine_channels::proto::orderer::{BroadcastResponse, DeliverResponse};
use grapevine_channels::transaction::transaction_payload;
use grapevine_crypto::Signer;
use grapevine_orderer_mock::pieces::Cutting;
use grapevine_orderer_mock::rpc::{AtomicBroadcast, AtomicBroadcastServer};
use grapevine_orderer_mock::server::{RunningServer, ServerOptions};
use grapevine_orderer_mock::submit::{SubmitOptions, submit};
use grapevine_orderer_mock::testing::{SINGLE, TestNetwork};
use grapevine_peer::deliver::{
    AddressOverride, ClientCertificate, DeliverClient, DeliverConfig, DeliverEndpoint, DeliverEvent,
    DeliverTls, newest_header,
};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Streaming};

const DEADLINE: Duration = Duration::from_secs(30);
const BLOCK_BYTES_MAX: usize = 2 << 20;

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("deadline passed")
}

fn channel() -> ChannelId {
    "trade".parse().unwrap()
}

fn endpoint(address: SocketAddr) -> DeliverEndpoint {
    DeliverEndpoint { address: address.to_string(), tls_roots: Vec::new() }
}

/// A client that tries again quickly.
fn config(endpoints: Vec<DeliverEndpoint>) -> DeliverConfig {
    let mut config = DeliverConfig::new(channel(), endpoints, BLOCK_BYTES_MAX);
    config.backoff_min = Duration::from_millis(10);
    config.backoff_max = Duration::from_millis(100);
    config
}

/// A network with channel `trade`, one transaction a block.
struct Fixture {
    directory: tempfile::TempDir,
    network: TestNetwork,
    genesis: PathBuf,
    server: RunningServer,
}

impl Fixture {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let network = TestNetwork::new(directory.path()).unwrap();
        let genesis = network.genesis("trade", SINGLE, 50).unwrap();
        let server = RunningServer::start(network.options(vec![genesis.clone()])).await.unwrap();
        Self { directory, network, genesis, server }
    }

    fn options(&self) -> ServerOptions {
        self.network.options(vec![self.genesis.clone()])
    }

    fn member(&self) -> Arc<Signer> {
        self.network.member().unwrap()
    }

    /// Submits one transaction, and so makes one block, per byte; waits for the blocks.
    async fn submit(&self, bytes: &[u8]) {
        let file = self.directory.path().join("input");
        std::fs::write(&file, bytes).unwrap();
        let options = SubmitOptions {
            orderer: TestNetwork::client_options(self.server.address(), None),
            channel: channel(),
            file,
            cutting: Cutting::Pieces(1),
            rate: None,
            wait: Duration::ZERO,
        };
        let mut state = self.server.registry().chain(&channel()).unwrap().state();
        let height = state.borrow().height + bytes.len() as u64;
        within(submit(options, self.member())).await.unwrap();
        within(state.wait_for(|state| state.height >= height)).await.unwrap();
    }

    fn stored(&self, number: u64) -> Vec<u8> {
        std::fs::read(self.directory.path().join(format!("ledger/trade/{number:03}.block"))).unwrap()
    }
}

/// A running client and what it reports.
struct Pull {
    client: DeliverClient,
    events: mpsc::Receiver<DeliverEvent>,
}

impl Pull {
    fn start(config: DeliverConfig, signer: Arc<Signer>, start_number: u64) -> Self {
        let (sink, events) = mpsc::channel(1);
        Self { client: DeliverClient::spawn(config, signer, start_number, sink), events }
    }

    async fn event(&mut self) -> DeliverEvent {
        within(self.events.recv()).await.expect("the client ended")
    }

    /// The next block, whatever comes before it.
    async fn block(&mut self) -> Bytes {
        loop {
            if let DeliverEvent::Block { bytes, .. } = self.event().await {
                return bytes;
            }
        }
    }

    async fn number(&mut self) -> u64 {
        common::Block::decode(self.block().await).unwrap().header.unwrap().number
    }

    /// The next failure, whatever comes before it: endpoint and reason.
    async fn failure(&mut self) -> (String, String) {
        loop {
            if let DeliverEvent::Failed { endpoint, reason, .. } = self.event().await {
                return (endpoint, reason);
            }
        }
    }
}

#[tokio::test]
async fn blocks_come_in_order_as_the_orderer_stored_them() {
    let fixture = Fixture::start().await;
    fixture.submit(b"abc").await;
    let address = fixture.server.address();
    let mut pull = Pull::start(config(vec![endpoint(address)]), fixture.member(), 2);
    let connected = DeliverEvent::Connected { channel: channel(), endpoint: address.to_string() };
    assert_eq!(pull.event().await, connected);
    for number in 2..4 {
        assert_eq!(pull.block().await, fixture.stored(number));
    }
    fixture.submit(b"d").await;
    let block = Block::decode(pull.block().await, BLOCK_BYTES_MAX).unwrap();
    assert_eq!(block.header().number, 4);
    assert_eq!(transaction_payload(&block.transactions()[0]).unwrap().payload, &b"d"[..]);
}

#[tokio::test]
async fn an_idle_channel_is_reported_connected() {
    let fixture = Fixture::start().await;
    let mut pull = Pull::start(config(vec![endpoint(fixture.server.address())]), fixture.member(), 1);
    assert!(matches!(pull.event().await, DeliverEvent::Connected { .. }));
}

#[tokio::test]
async fn a_restarted_orderer_is_found_again_and_the_stream_resumed() {
    let mut fixture = Fixture::start().await;
    fixture.submit(b"ab").await;
    let address = fixture.server.address();
    let mut pull = Pull::start(config(vec![endpoint(address)]), fixture.member(), 0);
    for number in 0..3 {
        assert_eq!(pull.number().await, number);
    }
    let mut options = fixture.options();
    options.listen = address;
    within(fixture.server.stop()).await;
    let (failed, reason) = pull.failure().await;
    assert_eq!(failed, address.to_string());
    assert!(reason.contains("SERVICE_UNAVAILABLE"), "{reason}");
    assert!(pull.failure().await.1.contains("cannot connect"));
    fixture.server = RunningServer::start(options).await.unwrap();
    fixture.submit(b"cd").await;
    assert_eq!(pull.number().await, 3);
    assert_eq!(pull.number().await, 4);
}

#[tokio::test]
async fn a_dead_orderer_is_passed_over() {
    let fixture = Fixture::start().await;
    fixture.submit(b"a").await;
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let live = fixture.server.address();
    // Whichever comes first, the dead one is tried at most once before the live one.
    for _ in 0..4 {
        let mut pull = Pull::start(config(vec![endpoint(unused), endpoint(live)]), fixture.member(), 0);
        let mut failures = 0;
        loop {
            match pull.event().await {
                DeliverEvent::Failed { endpoint, .. } => {
                    assert_eq!(endpoint, unused.to_string());
                    failures += 1;
                }
                DeliverEvent::Connected { endpoint, .. } => assert_eq!(endpoint, live.to_string()),
                DeliverEvent::Block { .. } => break,
            }
        }
        assert!(failures <= 1, "{failures}");
    }
}

#[tokio::test]
async fn refusals_are_reported_again_and_again_and_never_as_a_connection() {
    let fixture = Fixture::start().await;
    let endpoints = vec![endpoint(fixture.server.address())];
    let foreigner = fixture.network.foreigner().unwrap();
    let audit = DeliverConfig { channel: "audit".parse().unwrap(), ..config(endpoints.clone()) };
    let mut table = [
        (Pull::start(config(endpoints.clone()), foreigner, 0), "FORBIDDEN"),
        (Pull::start(config(endpoints), fixture.member(), 7), "NOT_FOUND"),
        (Pull::start(audit, fixture.member(), 0), "NOT_FOUND"),
    ];
    for (pull, want) in &mut table {
        for _ in 0..4 {
            match pull.event().await {
                DeliverEvent::Failed { reason, .. } => assert!(reason.contains(*want), "{reason}"),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn tls_with_client_authentication_and_an_address_override() {
    let fixture = Fixture::start().await;
    let mut options = fixture.options();
    options.tls = Some(fixture.network.server_tls(true).unwrap());
    options.location = fixture.directory.path().join("other ledger");
    let server = RunningServer::start(options).await.unwrap();
    let tls = fixture.network.client_tls().unwrap();
    let (certificate, key) = tls.identity.unwrap();
    let named = DeliverEndpoint {
        address: "orderer.example.com:7050".into(),
        tls_roots: vec![b"none here".to_vec()],
    };
    let mut config = config(vec![named.clone()]);
    config.overrides = vec![AddressOverride {
        from: named.address.clone(),
        to: format!("localhost:{}", server.address().port()),
        tls_roots: tls.roots,
    }];
    let client = Some(ClientCertificate { certificate, key });
    config.tls = Some(DeliverTls { roots: Vec::new(), client });
    let mut pull = Pull::start(config.clone(), fixture.member(), 0);
    assert_eq!(pull.event().await, DeliverEvent::Connected { channel: channel(), endpoint: named.address });
    assert_eq!(pull.number().await, 0);
    // Without the override's roots the server is not trusted.
    config.overrides[0].tls_roots.clear();
    let (_, reason) = Pull::start(config, fixture.member(), 0).failure().await;
    assert!(reason.contains("TLS") || reason.contains("certificate"), "{reason}");
}

#[tokio::test]
async fn a_full_sink_stops_the_stream_and_loses_nothing() {
    let fixture = Fixture::start().await;
    fixture.submit(&[b'x'; 80]).await;
    let mut pull = Pull::start(config(vec![endpoint(fixture.server.address())]), fixture.member(), 0);
    // Nothing is read from the sink while more blocks are made.
    fixture.submit(&[b'y'; 80]).await;
    for number in 0..161 {
        assert_eq!(pull.number().await, number);
    }
}

#[tokio::test]
async fn an_orderer_that_says_nothing_is_left() {
    // The system accepts connections, nobody serves them.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoints = vec![endpoint(listener.local_addr().unwrap())];
    let directory = tempfile::tempdir().unwrap();
    let signer = TestNetwork::new(directory.path()).unwrap().member().unwrap();
    let mut config = config(endpoints);
    config.keepalive_interval = Duration::from_millis(100);
    config.keepalive_timeout = Duration::from_millis(100);
    let (_, reason) = Pull::start(config.clone(), signer.clone(), 0).failure().await;
    assert!(reason.contains("stream broke"), "{reason}");
    config.tls = Some(DeliverTls::default());
    config.connect_timeout = Duration::from_millis(200);
    let (_, reason) = Pull::start(config, signer, 0).failure().await;
    assert!(reason.contains("connect"), "{reason}");
}

#[tokio::test]
async fn dropping_the_client_ends_it() {
    let fixture = Fixture::start().await;
    let mut pull = Pull::start(config(vec![endpoint(fixture.server.address())]), fixture.member(), 1);
    assert!(matches!(pull.event().await, DeliverEvent::Connected { .. }));
    drop(pull.client);
    assert_eq!(within(pull.events.recv()).await, None);
}

#[tokio::test]
async fn new_orderers_are_taken_over_at_once() {
    let fixture = Fixture::start().await;
    fixture.submit(b"a").await;
    let mut slow = config(Vec::new());
    slow.backoff_min = Duration::from_secs(3600);
    slow.backoff_max = Duration::from_secs(3600);
    let mut pull = Pull::start(slow, fixture.member(), 0);
    let (failed, reason) = pull.failure().await;
    assert!(failed.is_empty() && reason.contains("no orderer"), "{reason}");
    pull.client.reconfigure(vec![endpoint(fixture.server.address())], BLOCK_BYTES_MAX);
    assert_eq!(pull.number().await, 0);
    assert_eq!(pull.number().await, 1);
    // A second orderer with the same chain so far.
    let mut options = fixture.options();
    options.location = fixture.directory.path().join("copy");
    let copy = options.location.join("trade");
    std::fs::create_dir_all(&copy).unwrap();
    for number in 0..2 {
        std::fs::write(copy.join(format!("{number:03}.block")), fixture.stored(number)).unwrap();
    }
    let second = RunningServer::start(options).await.unwrap();
    pull.client.reconfigure(vec![endpoint(second.address())], BLOCK_BYTES_MAX);
    let connected = DeliverEvent::Connected { channel: channel(), endpoint: second.address().to_string() };
    assert_eq!(pull.event().await, connected);
}

#[tokio::test]
async fn a_probe_gets_the_newest_header_without_the_data() {
    let fixture = Fixture::start().await;
    fixture.submit(b"ab").await;
    let config = config(vec![endpoint(fixture.server.address())]);
    let newest = newest_header(&config, &fixture.member(), DEADLINE).await.unwrap().header;
    let stored = Block::decode(fixture.stored(2).into(), BLOCK_BYTES_MAX).unwrap();
    let (header, signatures) = newest.headers().next().unwrap();
    assert_eq!((header.hash(), &signatures), (stored.header().hash(), stored.signatures_metadata()));
    assert!(newest.entries[0].block_bytes < fixture.stored(2).len() as u64);
}

/// A stream that is merely no longer read would be filled to the end of its window.
#[tokio::test]
async fn who_stops_pulling_or_has_its_answer_closes_the_stream() {
    let (address, orderer) = Scripted::serve(None).await;
    let directory = tempfile::tempdir().unwrap();
    let signer = TestNetwork::new(directory.path()).unwrap().member().unwrap();
    let config = config(vec![endpoint(address)]);
    let streams = || Arc::strong_count(&orderer.open);
    let none = streams();
    let mut pull = Pull::start(config.clone(), signer.clone(), 0);
    assert_eq!(pull.number().await, 0);
    assert_eq!(streams(), none + 1);
    drop(pull);
    newest_header(&config, &signer, DEADLINE).await.unwrap();
    within(async {
        while streams() > none {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// An orderer that answers each stream with the next entry of a script, then ends it; without a script it answers with
/// block 0 and leaves the stream open.
#[derive(Clone)]
struct Scripted {
    script: Option<Arc<Mutex<Vec<Vec<DeliverResponse>>>>>,
    /// Lives as long as any stream without a script.
    open: Arc<()>,
}

impl Scripted {
    async fn serve(script: Option<Vec<Vec<DeliverResponse>>>) -> (SocketAddr, Self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let orderer =
            Self { script: script.map(|script| Arc::new(Mutex::new(script))), open: Arc::default() };
        let service = AtomicBroadcastServer::new(orderer.clone()).max_encoding_message_size(100 << 20);
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (address, orderer)
    }
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, tonic::Status>> + Send>>;

#[tonic::async_trait]
impl AtomicBroadcast for Scripted {
    type BroadcastStream = ResponseStream<BroadcastResponse>;
    type DeliverStream = ResponseStream<DeliverResponse>;

    async fn broadcast(
        &self,
        _: Request<Streaming<Envelope>>,
    ) -> Result<Response<Self::BroadcastStream>, tonic::Status> {
        Err(tonic::Status::unimplemented("not here"))
    }

    async fn deliver(
        &self,
        _: Request<Streaming<Envelope>>,
    ) -> Result<Response<Self::DeliverStream>, tonic::Status> {
        let Some(script) = &self.script else {
            let open = self.open.clone();
            let endless = stream::pending().inspect(move |()| _ = &open).map(|()| block(1, 10));
            return Ok(Response::new(Box::pin(stream::iter([block(0, 10)]).chain(endless).map(Ok))));
        };
        let mut script = script.lock().unwrap();
        if script.is_empty() {
            return Err(tonic::Status::aborted("the script is over"));
        }
        Ok(Response::new(Box::pin(stream::iter(script.remove(0)).map(Ok))))
    }
}

fn block(number: u64, bytes: usize) -> DeliverResponse {
    let header = common::BlockHeader { number, ..common::BlockHeader::default() };
    let data = common::BlockData { data: vec![vec![0; bytes].into()] };
    let metadata = common::BlockMetadata { metadata: vec![Bytes::new()] };
    let block = common::Block { header: Some(header), data: Some(data), metadata: Some(metadata) };
    DeliverResponse::block(block.encode_to_vec().into())
}

#[tokio::test]
async fn an_orderer_that_misbehaves_is_left_and_the_number_kept() {
    let script = vec![
        vec![block(5, 10), block(7, 10)],
        vec![block(5, 10)],
        vec![DeliverResponse::status(Status::Success)],
        vec![block(6, BLOCK_BYTES_MAX)],
        vec![block(6, 3 * BLOCK_BYTES_MAX)],
        vec![DeliverResponse::block(b"junk".as_slice().into())],
        vec![DeliverResponse { r#type: None }],
        vec![],
        vec![block(6, 10)],
    ];
    let (address, _orderer) = Scripted::serve(Some(script)).await;
    let directory = tempfile::tempdir().unwrap();
    let signer = TestNetwork::new(directory.path()).unwrap().member().unwrap();
    let mut pull = Pull::start(config(vec![endpoint(address)]), signer, 5);
    assert_eq!(pull.number().await, 5);
    let reasons = [
        "sent block 7 where block 6 was due",
        "sent block 5 where block 6 was due",
        "SUCCESS",
        "the channel allows",
        "OutOfRange",
        "sent no block",
        "unknown kind",
        "ended the stream",
    ];
    for want in reasons {
        match pull.event().await {
            DeliverEvent::Failed { reason, .. } => assert!(reason.contains(want), "{want}: {reason}"),
            DeliverEvent::Connected { .. } => {}
            other => panic!("{want}: {other:?}"),
        }
    }
    assert_eq!(pull.number().await, 6);
    assert!(pull.failure().await.1.contains("ended the stream"));
    assert!(pull.failure().await.1.contains("the script is over"));
}
