//! A client for the tests: signs seeks and transactions, reads answers under a deadline.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::Block;
use grapevine_channels::config::BatchSize;
use grapevine_channels::proto::common::{Envelope, Status};
use grapevine_channels::proto::orderer::deliver_response::Type;
use grapevine_channels::proto::orderer::{BroadcastResponse, DeliverResponse, SeekInfo, SeekPosition};
use grapevine_channels::transaction::{endorser_transaction, seek_envelope, transaction_payload};
use grapevine_crypto::{Digest, Signer};
use grapevine_orderer_mock::client::{ClientOptions, connect};
use grapevine_orderer_mock::rpc::AtomicBroadcastClient;
use grapevine_orderer_mock::server::RunningServer;
use grapevine_orderer_mock::testing::{SINGLE, TestNetwork};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Fails the test instead of hanging.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("deadline passed")
}

pub(crate) fn now() -> i64 {
    i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap()
}

pub(crate) fn channel() -> ChannelId {
    "trade".parse().unwrap()
}

/// A network with one channel, `trade`, and a running service.
pub(crate) struct Fixture {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) network: TestNetwork,
    pub(crate) genesis: PathBuf,
    pub(crate) server: RunningServer,
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::with_batch(SINGLE, 50).await
    }

    pub(crate) async fn with_batch(batch: BatchSize, timeout_ms: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let network = TestNetwork::new(directory.path()).unwrap();
        let genesis = network.genesis("trade", batch, timeout_ms).unwrap();
        let server = RunningServer::start(network.options(vec![genesis.clone()])).await.unwrap();
        Self { directory, network, genesis, server }
    }

    pub(crate) async fn restart(self) -> Self {
        let Self { directory, network, genesis, server } = self;
        within(server.stop()).await;
        let server = RunningServer::start(network.options(vec![genesis.clone()])).await.unwrap();
        Self { directory, network, genesis, server }
    }

    pub(crate) fn options(&self) -> ClientOptions {
        TestNetwork::client_options(self.server.address(), None)
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.directory.path().join("ledger/trade")
    }

    pub(crate) async fn deliver(&self) -> Deliver {
        Deliver::open(&self.options(), self.network.member().unwrap()).await
    }

    /// Submits payloads as single transactions of a member and waits until `height` blocks exist.
    pub(crate) async fn submit(&self, payloads: &[&[u8]], height: u64) {
        let mut broadcast = Broadcast::open(&self.options()).await;
        let signer = self.network.member().unwrap();
        for payload in payloads {
            let response = broadcast.send(transaction(&signer, payload)).await.unwrap();
            assert_eq!(response.status, i32::from(Status::Success), "{}", response.info);
        }
        let mut state = self.server.registry().chain(&channel()).unwrap().state();
        within(state.wait_for(|state| state.height >= height)).await.unwrap();
    }
}

pub(crate) fn transaction(signer: &Signer, payload: &[u8]) -> Envelope {
    Envelope::decode(endorser_transaction(signer, &channel(), payload, rand::random(), now())).unwrap()
}

pub(crate) fn range(start: SeekPosition, stop: SeekPosition) -> SeekInfo {
    SeekInfo { start: Some(start), stop: Some(stop), ..SeekInfo::default() }
}

/// What a delivery stream said.
#[derive(Debug)]
pub(crate) enum Answer {
    Block(Box<Block>, Bytes),
    Status(Status),
    End,
}

pub(crate) struct Deliver {
    signer: Arc<Signer>,
    requests: mpsc::Sender<Envelope>,
    responses: Streaming<DeliverResponse>,
}

impl Deliver {
    pub(crate) async fn open(options: &ClientOptions, signer: Arc<Signer>) -> Self {
        let mut client: AtomicBroadcastClient<Channel> = within(connect(options)).await.unwrap();
        let (requests, stream) = mpsc::channel(16);
        let responses = within(client.deliver(ReceiverStream::new(stream))).await.unwrap().into_inner();
        Self { signer, requests, responses }
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
        let Some(response) = within(self.responses.message()).await.unwrap() else { return Answer::End };
        match response.r#type.unwrap() {
            Type::Block(bytes) => {
                Answer::Block(Box::new(Block::decode(bytes.clone(), 100 << 20).unwrap()), bytes)
            }
            Type::Status(status) => Answer::Status(Status::try_from(status).unwrap()),
        }
    }

    /// The connection breaks now, without a status.
    pub(crate) async fn broken(&mut self) {
        assert!(within(self.responses.message()).await.is_err());
    }

    pub(crate) async fn block(&mut self) -> Block {
        match self.answer().await {
            Answer::Block(block, _) => *block,
            other => panic!("expected a block, got {other:?}"),
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
        assert!(matches!(self.answer().await, Answer::End), "the stream goes on after {status:?}");
        status
    }
}

pub(crate) struct Broadcast {
    requests: mpsc::Sender<Envelope>,
    responses: Streaming<BroadcastResponse>,
}

impl Broadcast {
    pub(crate) async fn open(options: &ClientOptions) -> Self {
        let mut client = within(connect(options)).await.unwrap();
        let (requests, stream) = mpsc::channel(16);
        let responses = within(client.broadcast(ReceiverStream::new(stream))).await.unwrap().into_inner();
        Self { requests, responses }
    }

    /// `None` if the service ended the stream.
    pub(crate) async fn send(&mut self, envelope: Envelope) -> Option<BroadcastResponse> {
        self.try_send(envelope).await.unwrap()
    }

    /// As [`Self::send`]; the error is the stream's.
    pub(crate) async fn try_send(
        &mut self,
        envelope: Envelope,
    ) -> Result<Option<BroadcastResponse>, tonic::Status> {
        if self.requests.send(envelope).await.is_err() {
            return Ok(None);
        }
        within(self.responses.message()).await
    }
}

/// What was submitted in a block's transactions.
pub(crate) fn payloads(block: &Block) -> Vec<Bytes> {
    block.transactions().iter().map(|transaction| transaction_payload(transaction).unwrap().payload).collect()
}
