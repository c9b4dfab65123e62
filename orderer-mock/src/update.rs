//! Changes the config of a channel: fetches the newest config from an ordering service, edits it, computes the update, has
//! administrators sign it, and submits it over `Broadcast`.
//!
//! Works with this ordering service and with Fabric's. The update is computed from the newest config, so it fails with 400
//! if another update of the same parts is faster; try again then. Nothing here is kept or repeated.

mod edit;

use std::time::Duration;

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::Block;
use grapevine_channels::config::{ChannelConfig, ConfigError};
use grapevine_channels::config_update::{ConfigUpdateError, compute_update, sign_update};
use grapevine_channels::proto::common::{Envelope, HeaderType, Status};
use grapevine_channels::proto::configtx::ConfigUpdate;
use grapevine_channels::proto::orderer::deliver_response::Type;
use grapevine_channels::proto::orderer::{DeliverResponse, SeekInfo, SeekPosition};
use grapevine_channels::transaction::{EnvelopeHeader, seek_envelope, signed_envelope};
use grapevine_crypto::{Certificate, Digest, Signer};
use prost::Message;
use tokio_stream::StreamExt;
use tonic::transport::Channel;

pub use edit::{Edit, EditError};

use crate::client::{ClientOptions, ConnectError, connect};
use crate::clock::unix_seconds;
use crate::rpc::{AtomicBroadcastClient, MESSAGE_BYTES_MAX};

/// An orderer that answers nothing for this long is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a config is not changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The ordering service cannot be reached.
    #[error("{0}; start it or check the address")]
    Connect(#[from] ConnectError),
    /// The stream broke or fell silent.
    #[error("the stream to the orderer broke: {0}")]
    Broken(String),
    /// The newest config is not delivered.
    #[error(
        "the orderer answers status {0} to the request for the newest config; the client must be a reader of the channel"
    )]
    NotDelivered(i32),
    /// What it delivers is no config.
    #[error("the orderer does not deliver a usable config: {0}")]
    Config(#[from] ConfigError),
    /// What it delivers is no block.
    #[error("the orderer delivers something that is no block: {0}")]
    Block(#[from] grapevine_channels::block::BlockError),
    /// The edit does not fit the config.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// There is no update to it.
    #[error("{0}")]
    Compute(#[from] ConfigUpdateError),
    /// The orderer does not take the update.
    #[error("the orderer refused the config update with status {status}: {info}")]
    Refused {
        /// Fabric's status.
        status: i32,
        /// The orderer's words.
        info: String,
    },
}

/// A connection to an ordering service for config changes of one channel.
#[derive(Debug)]
pub struct ConfigClient {
    client: AtomicBroadcastClient<Channel>,
    channel: ChannelId,
    tls_certificate: Option<Digest>,
}

impl ConfigClient {
    /// Connects once.
    pub async fn connect(options: &ClientOptions, channel: ChannelId) -> Result<Self, UpdateError> {
        let shown = options.tls.as_ref().and_then(|tls| tls.identity.as_ref());
        let tls_certificate = match shown.map(|(certificate, _)| Certificate::from_pem(certificate)) {
            Some(Ok(certificate)) => Some(certificate.fingerprint()),
            Some(Err(error)) => return Err(ConnectError::Tls(error.to_string()).into()),
            None => None,
        };
        Ok(Self { client: connect(options).await?, channel, tls_certificate })
    }

    /// The newest config, asked for by `reader`. It is not verified: the update is judged by the orderer, and by peers.
    pub async fn newest_config(&mut self, reader: &Signer) -> Result<ChannelConfig, UpdateError> {
        let newest = self.block(reader, SeekPosition::newest()).await?;
        let number = newest.last_config_index().unwrap_or(0);
        if number == newest.number() {
            return Ok(ChannelConfig::from_block(&newest)?);
        }
        let block = self.block(reader, SeekPosition::specified(number)).await?;
        Ok(ChannelConfig::from_block(&block)?)
    }

    async fn block(&mut self, reader: &Signer, position: SeekPosition) -> Result<Block, UpdateError> {
        let seek = SeekInfo { start: Some(position), stop: Some(position), ..SeekInfo::default() };
        let hash = self.tls_certificate;
        let encoded = seek_envelope(reader, &self.channel, &seek, rand::random(), unix_seconds(), hash);
        // A stream that stays open: some servers take the end of requests for the end of interest.
        let requests = tokio_stream::once(decode(encoded)).chain(tokio_stream::pending());
        let asking = async {
            let mut responses = self.client.deliver(requests).await?.into_inner();
            responses.message().await
        };
        match within(asking).await?.and_then(|DeliverResponse { r#type }| r#type) {
            Some(Type::Block(bytes)) => Ok(Block::decode(bytes, MESSAGE_BYTES_MAX)?),
            Some(Type::Status(status)) => Err(UpdateError::NotDelivered(status)),
            None => Err(UpdateError::Broken("the orderer ended it".into())),
        }
    }

    /// Submits an update, signed by `signers`, in an envelope of `submitter`, who must be a writer of the channel.
    pub async fn submit(
        &mut self,
        update: &ConfigUpdate,
        submitter: &Signer,
        signers: &[&Signer],
    ) -> Result<(), UpdateError> {
        let envelope = update_envelope(&self.channel, update, submitter, signers);
        let requests = tokio_stream::once(envelope).chain(tokio_stream::pending());
        let asking = async {
            let mut responses = self.client.broadcast(requests).await?.into_inner();
            responses.message().await
        };
        let response = within(asking).await?;
        let response = response.ok_or_else(|| UpdateError::Broken("the orderer ended it".into()))?;
        if response.status == i32::from(Status::Success) {
            return Ok(());
        }
        Err(UpdateError::Refused { status: response.status, info: response.info })
    }

    /// Makes all `edits` in one update. Returns the sequence that the new config has if the update is taken.
    pub async fn change(
        &mut self,
        edits: &[Edit],
        submitter: &Signer,
        signers: &[&Signer],
    ) -> Result<u64, UpdateError> {
        let config = self.newest_config(submitter).await?;
        let update = edited(&config, edits)?;
        self.submit(&update, submitter, signers).await?;
        Ok(config.sequence().saturating_add(1))
    }
}

/// The update that makes `edits` to `config`.
pub fn edited(config: &ChannelConfig, edits: &[Edit]) -> Result<ConfigUpdate, UpdateError> {
    let current = config.config().channel_group.clone().unwrap_or_default();
    let mut wanted = current.clone();
    for edit in edits {
        edit.apply(&mut wanted)?;
    }
    Ok(compute_update(config.channel_id(), &current, &wanted)?)
}

/// The envelope of type CONFIG_UPDATE around an update.
pub fn update_envelope(
    channel: &ChannelId,
    update: &ConfigUpdate,
    submitter: &Signer,
    signers: &[&Signer],
) -> Envelope {
    let signers: Vec<_> = signers.iter().map(|signer| (*signer, rand::random())).collect();
    let data = sign_update(update, &signers).encode_to_vec();
    let header = EnvelopeHeader {
        header_type: HeaderType::ConfigUpdate,
        channel,
        nonce: rand::random(),
        timestamp_seconds: unix_seconds(),
        tls_cert_hash: None,
    };
    decode(signed_envelope(submitter, header, data.into()))
}

/// Our own encoding always parses.
fn decode(encoded: Bytes) -> Envelope {
    Envelope::decode(encoded).unwrap_or_default()
}

async fn within<T>(asking: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, UpdateError> {
    match tokio::time::timeout(ANSWER_TIMEOUT, asking).await {
        Ok(answer) => answer.map_err(|status| UpdateError::Broken(status.to_string())),
        Err(_) => Err(UpdateError::Broken(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))),
    }
}
