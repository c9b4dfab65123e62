//! A deliver server over a ledger that the test writes, and a client of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::{AuthenticBlock, Block, BlockHeader};
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::proto::common::{Envelope, HeaderType, Status};
use grapevine_channels::proto::configtx::{Config, ConfigEnvelope};
use grapevine_channels::proto::orderer::{SeekInfo, SeekPosition};
use grapevine_channels::proto::peer::deliver_response::Type;
use grapevine_channels::proto::peer::{DeliverResponse, FilteredBlock};
use grapevine_channels::sign::unsigned_metadata;
use grapevine_channels::transaction::{EnvelopeHeader, endorser_transaction, seek_envelope, signed_envelope};
use grapevine_crypto::{Digest, Signer, sha256_of};
use grapevine_orderer_mock::client::ClientTls;
use grapevine_orderer_mock::testing::{SINGLE, TestNetwork};
use grapevine_peer::deliver_server::{DeliverChannels, DeliverServer, DeliverServerOptions, ServerTls};
use grapevine_peer::ledger::Ledger;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_prost::ProstCodec;

pub(crate) const DELIVER: &str = "Deliver";
pub(crate) const FILTERED: &str = "DeliverFiltered";
pub(crate) const PRIVATE: &str = "DeliverWithPrivateData";

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("deadline passed")
}

pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

pub(crate) fn channel() -> ChannelId {
    "trade".parse().unwrap()
}

pub(crate) fn range(start: SeekPosition, stop: SeekPosition) -> SeekInfo {
    SeekInfo { start: Some(start), stop: Some(stop), ..SeekInfo::default() }
}

/// Block `first` to `last`.
pub(crate) fn blocks(first: u64, last: u64) -> SeekInfo {
    range(SeekPosition::specified(first), SeekPosition::specified(last))
}

/// A server of channel `trade`, whose ledger holds the genesis block.
pub(crate) struct Fixture {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) network: TestNetwork,
    pub(crate) ledger: Ledger,
    pub(crate) channels: DeliverChannels,
    pub(crate) server: DeliverServer,
    /// Seconds by which certificate time is ahead of the clock.
    pub(crate) ahead: Arc<AtomicI64>,
    member: Arc<Signer>,
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::with(|_, _| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&TestNetwork, &mut DeliverServerOptions)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let network = TestNetwork::new(directory.path()).unwrap();
        let genesis = std::fs::read(network.genesis("trade", SINGLE, 50).unwrap()).unwrap();
        let genesis = Block::decode(genesis.into(), usize::MAX).unwrap();
        let ledger = Ledger::open(directory.path().join("peer")).unwrap();
        ledger.create_channel(&channel(), &AuthenticBlock::genesis(&genesis).unwrap()).unwrap();
        let channels = DeliverChannels::default();
        channels.set(Arc::new(ChannelConfig::from_block(&genesis).unwrap()), 1);
        let ahead = Arc::new(AtomicI64::new(0));
        let mut options = options(ahead.clone());
        change(&network, &mut options);
        let server = DeliverServer::start(options, ledger.clone(), channels.clone()).await.unwrap();
        let member = network.member().unwrap();
        Self { directory, network, ledger, channels, server, ahead, member }
    }

    pub(crate) fn member(&self) -> Arc<Signer> {
        self.member.clone()
    }

    pub(crate) fn transaction(&self, payload: &[u8]) -> Bytes {
        endorser_transaction(&self.member, &channel(), payload, rand::random(), now())
    }

    /// Appends a block of these transactions without telling the server.
    pub(crate) fn append(&self, transactions: Vec<Bytes>) -> Block {
        let (tip, hash) = self.ledger.tip(&channel()).unwrap();
        let header = BlockHeader {
            number: tip + 1,
            previous_hash: hash.0.to_vec(),
            data_hash: sha256_of(transactions.iter().map(AsRef::as_ref)).0.to_vec(),
        };
        let block = Block::from_parts(header, transactions, unsigned_metadata(0));
        let authentic = AuthenticBlock::stored(block.encode()).unwrap();
        self.ledger.append(&channel(), &[authentic]).unwrap();
        block
    }

    /// Commits a block with one transaction for each payload.
    pub(crate) fn commit(&self, payloads: &[&[u8]]) -> Block {
        let block = self.append(payloads.iter().map(|payload| self.transaction(payload)).collect());
        self.channels.committed(&channel(), block.number() + 1);
        block
    }

    /// Commits a config block that leads from the config of the last one to the changed one.
    pub(crate) fn reconfigure(
        &self,
        from: &ChannelConfig,
        change: impl FnOnce(&mut Config),
    ) -> ChannelConfig {
        let mut config = from.config().clone();
        config.sequence += 1;
        change(&mut config);
        let envelope = ConfigEnvelope { config: Some(config), last_update: None };
        let header = EnvelopeHeader {
            header_type: HeaderType::Config,
            channel: &channel(),
            nonce: rand::random(),
            timestamp_seconds: now(),
            tls_cert_hash: None,
        };
        let block = self.append(vec![signed_envelope(&self.member, header, envelope.encode_to_vec().into())]);
        let config = || ChannelConfig::from_block(&block).unwrap();
        self.channels.set(Arc::new(config()), block.number());
        self.channels.committed(&channel(), block.number() + 1);
        config()
    }

    pub(crate) fn genesis_config(&self) -> ChannelConfig {
        let genesis = self.ledger.block(&channel(), 0).unwrap().unwrap();
        ChannelConfig::from_block(&Block::decode(genesis, usize::MAX).unwrap()).unwrap()
    }

    pub(crate) fn expire(&self) {
        self.ahead.store(20 * 365 * 86_400, Ordering::Relaxed);
    }

    pub(crate) async fn connect(&self) -> Channel {
        connect(self.server.address(), None).await
    }

    pub(crate) async fn open(&self, method: &str) -> Client {
        Client::open(self.connect().await, method, self.member()).await.unwrap()
    }

    /// A client that has asked for these blocks.
    pub(crate) async fn seek(&self, seek: &SeekInfo) -> Client {
        let client = self.open(DELIVER).await;
        client.seek(seek).await;
        client
    }
}

pub(crate) fn options(ahead: Arc<AtomicI64>) -> DeliverServerOptions {
    DeliverServerOptions {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        tls: None,
        time_window: Duration::from_secs(15 * 60),
        streams_max: 100,
        frame_bytes_max: grapevine_peer::deliver_server::FRAME_BYTES_MAX,
        stall_max: Duration::from_millis(200),
        keepalive_interval: Duration::from_secs(60),
        keepalive_timeout: Duration::from_secs(20),
        certificate_time: Arc::new(move || now() + ahead.load(Ordering::Relaxed)),
    }
}

pub(crate) fn server_tls(network: &TestNetwork, client_auth: bool) -> ServerTls {
    let tls = network.server_tls(client_auth).unwrap();
    ServerTls { certificate: tls.certificate, key: tls.key, client_roots: tls.client_roots }
}

pub(crate) async fn connect(address: SocketAddr, tls: Option<ClientTls>) -> Channel {
    try_connect(address, tls).await.unwrap()
}

pub(crate) async fn try_connect(
    address: SocketAddr,
    tls: Option<ClientTls>,
) -> Result<Channel, tonic::transport::Error> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    // A small window, so that a client which does not read stops the server soon.
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .unwrap()
        .initial_stream_window_size(65_535)
        .initial_connection_window_size(65_535);
    if let Some(tls) = tls {
        let mut config = ClientTlsConfig::new().ca_certificates(tls.roots.iter().map(Certificate::from_pem));
        if let Some((certificate, key)) = &tls.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        endpoint = endpoint.tls_config(config).unwrap();
    }
    within(endpoint.connect()).await
}

/// What a stream said.
#[derive(Debug)]
pub(crate) enum Answer {
    Block(Bytes),
    Filtered(FilteredBlock),
    Status(Status),
    End,
    Failed(tonic::Status),
}

pub(crate) struct Client {
    signer: Arc<Signer>,
    requests: mpsc::Sender<Envelope>,
    responses: Streaming<DeliverResponse>,
}

impl Client {
    pub(crate) async fn open(
        channel: Channel,
        method: &str,
        signer: Arc<Signer>,
    ) -> Result<Self, tonic::Status> {
        let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(100 << 20);
        within(client.ready()).await.unwrap();
        let (requests, stream) = mpsc::channel(16);
        let path = format!("/protos.Deliver/{method}").parse().unwrap();
        let codec = ProstCodec::<Envelope, DeliverResponse>::default();
        let request = tonic::Request::new(ReceiverStream::new(stream));
        let responses = within(client.streaming(request, path, codec)).await?.into_inner();
        Ok(Self { signer, requests, responses })
    }

    pub(crate) async fn seek(&self, seek: &SeekInfo) {
        self.seek_with(seek, &channel(), now(), None).await;
    }

    pub(crate) async fn seek_with(
        &self,
        seek: &SeekInfo,
        channel: &ChannelId,
        time: i64,
        hash: Option<Digest>,
    ) {
        let envelope = seek_envelope(&self.signer, channel, seek, rand::random(), time, hash);
        self.send(Envelope::decode(envelope).unwrap()).await;
    }

    pub(crate) async fn send(&self, envelope: Envelope) {
        self.requests.send(envelope).await.unwrap();
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        match within(self.responses.message()).await {
            Err(status) => Answer::Failed(status),
            Ok(None) => Answer::End,
            Ok(Some(response)) => match response.r#type.unwrap() {
                Type::Block(bytes) => Answer::Block(bytes),
                Type::FilteredBlock(block) => Answer::Filtered(block),
                Type::Status(status) => Answer::Status(Status::try_from(status).unwrap()),
            },
        }
    }

    pub(crate) async fn raw(&mut self) -> Bytes {
        match self.answer().await {
            Answer::Block(bytes) => bytes,
            other => panic!("expected a block, got {other:?}"),
        }
    }

    pub(crate) async fn block(&mut self) -> Block {
        Block::decode(self.raw().await, usize::MAX).unwrap()
    }

    pub(crate) async fn number(&mut self) -> u64 {
        self.block().await.number()
    }

    pub(crate) async fn filtered(&mut self) -> FilteredBlock {
        match self.answer().await {
            Answer::Filtered(block) => block,
            other => panic!("expected a filtered block, got {other:?}"),
        }
    }

    pub(crate) async fn status(&mut self) -> Status {
        match self.answer().await {
            Answer::Status(status) => status,
            other => panic!("expected a status, got {other:?}"),
        }
    }

    /// The status is the last thing on this stream.
    pub(crate) async fn last_status(&mut self) -> Status {
        let status = self.status().await;
        let end = self.answer().await;
        assert!(matches!(end, Answer::End), "after {status:?} came {end:?}");
        status
    }
}
