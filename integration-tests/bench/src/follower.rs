//! A client of a peer's Deliver server that follows live blocks, over a TLS connection of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use grapevine_channels::ChannelId;
use grapevine_channels::block::{BLOCK_SIZE_MAX, Block};
use grapevine_channels::proto::common::Envelope;
use grapevine_channels::proto::orderer::SeekInfo;
use grapevine_channels::proto::peer::DeliverResponse;
use grapevine_channels::proto::peer::deliver_response::Type;
use grapevine_channels::transaction::seek_envelope;
use grapevine_crypto::{LocalMsp, MspId, Signer};
use grapevine_network::Network;
use prost::Message as _;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic_prost::ProstCodec;

use crate::network::CHANNEL;

/// See the module's header. Clones make connections of their own.
#[derive(Debug, Clone)]
pub(crate) struct Follower {
    endpoint: Endpoint,
    user: Arc<Signer>,
}

impl Follower {
    /// Will follow `peer`, which listens for clients at `address`, as a user of the organisation.
    ///
    /// # Errors
    /// If the files of the network cannot be read.
    pub(crate) fn new(network: &Network, peer: &str, address: SocketAddr) -> anyhow::Result<Self> {
        let organization = network.directory().join("net/crypto/peerOrganizations/org1.example.com");
        let user = organization.join("users/User1@org1.example.com/msp");
        let user = Arc::new(LocalMsp::load(&user, &MspId::from("Org1MSP"))?.signer);
        let authority = organization.join(format!("peers/{peer}.org1.example.com/tls/ca.crt"));
        let authority =
            std::fs::read(&authority).with_context(|| format!("cannot read {}", authority.display()))?;
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
        Ok(Self { endpoint: Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?, user })
    }

    /// Follows from block `first` on until `arrived` says no.
    ///
    /// # Errors
    /// If the peer cannot be reached, ends the stream, or sends something else than the next block.
    pub(crate) async fn follow(
        &self,
        first: u64,
        mut arrived: impl FnMut(&Block) -> bool,
    ) -> anyhow::Result<()> {
        let channel: ChannelId = CHANNEL.parse()?;
        let time = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
        let seek = SeekInfo::from_number(first);
        let seek = seek_envelope(&self.user, &channel, &seek, rand::random(), time, None);
        let (requests, stream) = tokio::sync::mpsc::channel(1);
        requests.send(Envelope::decode(seek)?).await?;
        let mut client = tonic::client::Grpc::new(self.endpoint.connect().await?)
            .max_decoding_message_size(BLOCK_SIZE_MAX);
        client.ready().await?;
        let codec = ProstCodec::<Envelope, DeliverResponse>::default();
        let request = tonic::Request::new(tokio_stream::wrappers::ReceiverStream::new(stream));
        let path = "/protos.Deliver/Deliver".parse()?;
        let mut responses = client.streaming(request, path, codec).await?.into_inner();
        for expected in first.. {
            let response = responses.message().await?.context("the stream ended")?;
            let Some(Type::Block(bytes)) = response.r#type else {
                anyhow::bail!("{:?} instead of block {expected}", response.r#type)
            };
            let block = Block::decode(bytes, BLOCK_SIZE_MAX)?;
            let number = block.number();
            anyhow::ensure!(number == expected, "block {number} came instead of block {expected}");
            if !arrived(&block) {
                break;
            }
        }
        drop(requests);
        Ok(())
    }
}
