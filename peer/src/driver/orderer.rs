//! Streams from the orderers: one deliver client for each channel this peer leads.
//!
//! Backpressure: a block from an orderer takes one of [`BLOCKS_IN_FLIGHT_MAX`] places of its channel, large ones more, so
//! that all together stay under [`BYTES_IN_FLIGHT_MAX`] or are one block. It gives them back
//! when it is committed or dropped; without free places the stream is not read. So one channel's orderer neither
//! floods memory nor stops another channel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::node::{OrdererAnswer, Ticket};
use grapevine_configs::PeerConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::deliver::{
    AddressOverride, ClientCertificate, DeliverClient, DeliverConfig, DeliverEndpoint, DeliverEvent,
    DeliverTls, newest_header,
};
use crate::signing::CurrentSigner;

/// Blocks of one channel between the orderer's stream and the ledger.
pub(super) const BLOCKS_IN_FLIGHT_MAX: usize = 32;
/// Bytes of them: half of what the chain keeps of blocks that wait for the disk. A larger block goes alone.
const BYTES_IN_FLIGHT_MAX: usize = grapevine_channels::chain::PENDING_BYTES_MAX / 2;
/// What [`BYTES_IN_FLIGHT_MAX`] is counted in.
const BYTES_PER_PLACE: usize = 1 << 10;
/// Places of a channel.
const PLACES: usize = BYTES_IN_FLIGHT_MAX / BYTES_PER_PLACE;

/// News of the streams.
#[derive(Debug)]
pub(super) enum OrdererNews {
    /// A block, with its place.
    Block { channel: ChannelId, body: Bytes, place: OwnedSemaphorePermit },
    /// An orderer answers.
    Connected { channel: ChannelId, endpoint: String },
    /// The answer to a probe; `None`: no orderer answered in time.
    Probed { channel: ChannelId, found: Option<OrdererAnswer> },
    /// An attempt failed; the client tries on.
    Failed { channel: ChannelId, endpoint: String, reason: String },
}

#[derive(Debug)]
struct Stream {
    client: DeliverClient,
    endpoint: Option<String>,
    /// The last failure that was logged, so that an orderer that stays away fills no log.
    complained: Option<String>,
}

/// What of peer.yaml the streams need, with the TLS files it names.
#[derive(Debug, Clone)]
struct Settings {
    tls: Option<DeliverTls>,
    overrides: Vec<AddressOverride>,
    connect_timeout: std::time::Duration,
    backoff_min: std::time::Duration,
    backoff_max: std::time::Duration,
    /// Longest wait for the answer to a probe.
    probe_time: std::time::Duration,
    /// No more than the in-order buffer takes.
    blocks_in_flight: usize,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Orderers {
    settings: Settings,
    signer: Arc<CurrentSigner>,
    streams: BTreeMap<ChannelId, Stream>,
    news: mpsc::Sender<OrdererNews>,
    /// Channels with a probe under way.
    probing: BTreeSet<ChannelId>,
    verifying: BTreeMap<Ticket, OwnedSemaphorePermit>,
    committing: BTreeMap<(ChannelId, u64), OwnedSemaphorePermit>,
}

impl Orderers {
    /// No streams yet. Errors name the file that cannot be read.
    pub(super) fn new(
        config: &PeerConfig,
        signer: Arc<CurrentSigner>,
    ) -> anyhow::Result<(Self, mpsc::Receiver<OrdererNews>)> {
        let (news, receiver) = mpsc::channel(16);
        let orderers = Self {
            settings: Settings::read(config)?,
            signer,
            streams: BTreeMap::new(),
            news,
            probing: BTreeSet::new(),
            verifying: BTreeMap::new(),
            committing: BTreeMap::new(),
        };
        Ok((orderers, receiver))
    }

    /// Reads the TLS files of peer.yaml again, for streams that begin from now on.
    pub(super) fn read_files_again(&mut self, config: &PeerConfig) -> anyhow::Result<()> {
        self.settings = Settings::read(config)?;
        Ok(())
    }

    /// The channels that are being pulled.
    pub(super) fn running(&self) -> impl Iterator<Item = &ChannelId> {
        self.streams.keys()
    }

    /// Pulls a channel from block `next`; replaces a stream that runs.
    pub(super) fn start(&mut self, channel: &ChannelId, config: &ChannelConfig, next: u64) {
        let deliver = self.deliver_config(channel, config);
        let (sink, events) = mpsc::channel(1);
        let client = DeliverClient::spawn(deliver, self.signer.now(), next, sink);
        tokio::spawn(forward(events, self.news.clone(), self.settings.blocks_in_flight));
        self.streams.insert(channel.clone(), Stream { client, endpoint: None, complained: None });
    }

    fn deliver_config(&self, channel: &ChannelId, config: &ChannelConfig) -> DeliverConfig {
        let mut deliver = DeliverConfig::new(channel.clone(), endpoints(config), config.block_size_max());
        deliver.tls = self.settings.tls.clone();
        deliver.overrides = self.settings.overrides.clone();
        deliver.connect_timeout = self.settings.connect_timeout;
        deliver.backoff_min = self.settings.backoff_min;
        deliver.backoff_max = self.settings.backoff_max;
        deliver
    }

    /// Asks an orderer for its newest header, unless that is under way.
    pub(super) fn probe(&mut self, channel: &ChannelId, config: &ChannelConfig) {
        if !self.probing.insert(channel.clone()) {
            return;
        }
        let deliver = self.deliver_config(channel, config);
        let (signer, news, time) = (self.signer.now(), self.news.clone(), self.settings.probe_time);
        tokio::spawn(async move {
            let found = newest_header(&deliver, &signer, time).await;
            let found = match found {
                Ok(newest) => Some(OrdererAnswer { round_trip: newest.round_trip, newest: newest.header }),
                Err(reason) => {
                    tracing::debug!(channel = %deliver.channel, reason, "no orderer answers the probe");
                    None
                }
            };
            // The core may have stopped.
            let _stopped = news.send(OrdererNews::Probed { channel: deliver.channel, found }).await;
        });
    }

    /// Notes that a probe was answered.
    pub(super) fn probed(&mut self, channel: &ChannelId) {
        self.probing.remove(channel);
    }

    /// Stops pulling a channel.
    pub(super) fn stop(&mut self, channel: &ChannelId) {
        self.streams.remove(channel);
        self.committing.retain(|(of, _), _| of != channel);
    }

    /// Stops all streams.
    pub(super) fn stop_all(&mut self) {
        self.streams.clear();
    }

    /// Whether this peer pulls the channel.
    pub(super) fn is_running(&self, channel: &ChannelId) -> bool {
        self.streams.contains_key(channel)
    }

    /// A new config is in force.
    pub(super) fn reconfigure(&self, channel: &ChannelId, config: &ChannelConfig) {
        if let Some(stream) = self.streams.get(channel) {
            stream.client.reconfigure(endpoints(config), config.block_size_max());
        }
    }

    /// The orderer that the channel is pulled from.
    pub(super) fn endpoint(&self, channel: &ChannelId) -> Option<&str> {
        self.streams.get(channel)?.endpoint.as_deref()
    }

    /// Notes that an orderer answers.
    pub(super) fn connected(&mut self, channel: &ChannelId, endpoint: String) {
        if let Some(stream) = self.streams.get_mut(channel) {
            tracing::info!(%channel, endpoint, "pulling from the orderer");
            stream.endpoint = Some(endpoint);
            stream.complained = None;
        }
    }

    /// Notes a failed attempt; says so once for each reason until an orderer answers.
    pub(super) fn failed(&mut self, channel: &ChannelId, endpoint: &str, reason: String) {
        if let Some(stream) = self.streams.get_mut(channel) {
            stream.endpoint = None;
            if stream.complained.as_ref() != Some(&reason) {
                tracing::warn!(%channel, endpoint, reason, "no blocks from the orderer; trying on");
                stream.complained = Some(reason);
            }
        }
    }

    /// A block of an orderer is being verified; it keeps its place.
    pub(super) fn verifying(&mut self, ticket: Ticket, place: OwnedSemaphorePermit) {
        self.verifying.insert(ticket, place);
    }

    /// A block was verified: as number `number` it keeps its place until committed; dropped, it gives it back.
    pub(super) fn verified(&mut self, ticket: Ticket, channel: &ChannelId, number: Option<u64>) {
        if let (Some(place), Some(number)) = (self.verifying.remove(&ticket), number) {
            self.committing.insert((channel.clone(), number), place);
        }
    }

    /// All blocks below `height` are committed.
    pub(super) fn committed(&mut self, channel: &ChannelId, height: u64) {
        self.committing.retain(|(of, number), _| of != channel || *number >= height);
    }
}

impl Settings {
    fn read(config: &PeerConfig) -> anyhow::Result<Self> {
        let (tls, client) = (&config.peer.tls, &config.peer.deliveryclient);
        let read = |key: &str, path: &std::path::Path| {
            std::fs::read(path)
                .map_err(|error| anyhow::anyhow!("{key}: cannot read {}: {error}", path.display()))
        };
        let tls = if tls.enabled {
            let roots =
                tls.rootcert.file.as_deref().map(|path| read("peer.tls.rootcert.file", path)).transpose()?;
            let certificate = tls.client_cert.file.as_deref().or(tls.cert.file.as_deref());
            let key = tls.client_key.file.as_deref().or(tls.key.file.as_deref());
            let pair = match (certificate, key) {
                (Some(certificate), Some(key)) => Some(ClientCertificate {
                    certificate: read("peer.tls.cert.file", certificate)?,
                    key: read("peer.tls.key.file", key)?,
                }),
                _ => None,
            };
            Some(DeliverTls { roots: roots.into_iter().collect(), client: pair })
        } else {
            None
        };
        let mut overrides = Vec::new();
        for entry in &client.address_overrides {
            let key = "peer.deliveryclient.addressOverrides";
            let roots = entry.ca_certs_file.as_deref().map(|path| read(key, path)).transpose()?;
            overrides.push(AddressOverride {
                from: entry.from.to_string(),
                to: entry.to.to_string(),
                tls_roots: roots.into_iter().collect(),
            });
        }
        Ok(Self {
            tls,
            overrides,
            connect_timeout: client.conn_timeout.as_duration(),
            backoff_min: client.minimal_reconnect_interval.as_duration(),
            backoff_max: client.reconnect_backoff_threshold.as_duration(),
            probe_time: config.peer.gossip.election.leader_alive_threshold.as_duration(),
            blocks_in_flight: BLOCKS_IN_FLIGHT_MAX.min(config.peer.gossip.state.block_buffer_size).max(1),
        })
    }
}

fn endpoints(config: &ChannelConfig) -> Vec<DeliverEndpoint> {
    config.orderer_endpoints().iter().map(DeliverEndpoint::from).collect()
}

/// Places of a block of `size` bytes where at most `blocks_in_flight` may have some at a time.
fn places_of(size: usize, blocks_in_flight: usize) -> u32 {
    let places = size.div_ceil(BYTES_PER_PLACE).max(PLACES.div_ceil(blocks_in_flight.max(1))).min(PLACES);
    u32::try_from(places).unwrap_or(u32::MAX)
}

/// Passes on what one client reports, each block only when it has a place. Ends with the client.
async fn forward(
    mut events: mpsc::Receiver<DeliverEvent>,
    news: mpsc::Sender<OrdererNews>,
    blocks_in_flight: usize,
) {
    let places = Arc::new(Semaphore::new(PLACES));
    while let Some(event) = events.recv().await {
        let event = match event {
            DeliverEvent::Block { channel, bytes } => {
                let taken = places_of(bytes.len(), blocks_in_flight);
                let Ok(place) = places.clone().acquire_many_owned(taken).await else { return };
                OrdererNews::Block { channel, body: bytes, place }
            }
            DeliverEvent::Connected { channel, endpoint } => OrdererNews::Connected { channel, endpoint },
            DeliverEvent::Failed { channel, endpoint, reason } => {
                OrdererNews::Failed { channel, endpoint, reason }
            }
        };
        if news.send(event).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_bound_blocks_and_bytes() {
        for (size, at_a_time) in [(100, 32), (512 << 10, 32), (1 << 20, 16), (9 << 20, 1), (100 << 20, 1)] {
            let taken = usize::try_from(places_of(size, 32)).unwrap();
            assert_eq!(PLACES / taken, at_a_time, "{size} bytes");
        }
        assert_eq!(PLACES / usize::try_from(places_of(100, 5)).unwrap(), 4, "rounded to the safe side");
        assert_eq!(places_of(100, 0), u32::try_from(PLACES).unwrap());
    }
}
