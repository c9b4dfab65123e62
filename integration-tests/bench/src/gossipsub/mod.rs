//! A peer that spreads blocks by rust-libp2p's gossipsub: the baseline that `dissemination` compares with, started by it alone.
//!
//! What differs from our peer is how blocks spread. It is configured by the same `peer.yaml`, answers `status` on the same admin socket, pulls
//! from the orderer through the same client, verifies blocks by the same code, notes the same block trace, and uses TCP, Noise and yamux; so
//! one harness drives and measures both. Its ledger is one file, to which blocks are appended and synced, those that wait in one go: less work
//! than a real ledger, in favour of gossipsub.
//!
//! # Who does what
//! The addresses of all peers stand in the `network.yaml` from which `grapevine net init` made the configuration. Every peer dials those named
//! before it and keeps all connections. The first peer is the leader: it pulls blocks, verifies and publishes them. Every other peer verifies a block
//! and only then lets gossipsub forward it. Blocks are handed to the ledger in the order of their numbers.
//!
//! # Settings of gossipsub
//! The crate's defaults, except:
//! - a mesh of 8 (6 to 12) instead of 6 (5 to 12), as Ethereum's clients have it; all numbers are legal from 2 peers on, since a mesh takes who is there;
//! - messages up to [`MESSAGE_BYTES_MAX`], validated by us before they are forwarded. Messages carry no signature of the publisher, since
//!   every block has those of its orderers, and are known by the SHA-256 of their content;
//! - no flood publishing: with it the leader would send every block to all peers by itself, which is `direct` from another place;
//! - messages wait up to [`SEND_WITHIN`] for a slow link instead of being dropped after 1 s, since there is no other way to get them.
//!
//! IDONTWANT is as the crate has it: sent for messages above 1,000 bytes as soon as they are received.
//!
//! # Bounds
//! At most [`VERIFYING_MAX`] blocks are verified or wait for it, further ones are ignored; at most [`WAITING_MAX`] verified ones wait for a
//! predecessor, further ones are dropped; the ledger's queue has [`LEDGER_QUEUE_MAX`] places and holds up the rest when it is full. There is no
//! reconciliation: a block that gossipsub loses is missing, and the measurement fails.

mod carrier;
mod counted;
mod ledger;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use grapevine_block_trace::BlockTrace;
use grapevine_channels::block::{AuthenticBlock, BLOCK_SIZE_MAX, Block};
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::verify::BlockVerifier;
use grapevine_configs::{ConfigFile, NetworkConfig, PeerConfig};
use grapevine_crypto::{LocalMsp, MspId};
use grapevine_peer::admin::AdminServer;
use grapevine_peer::deliver::{ClientCertificate, DeliverClient, DeliverConfig, DeliverEndpoint, DeliverTls};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Largest message, in bytes: the largest block of Fabric's default configuration and what surrounds it.
const MESSAGE_BYTES_MAX: usize = 100 << 20;

/// How long a message may wait for its link.
const SEND_WITHIN: Duration = Duration::from_secs(30);

/// Blocks being verified at a time.
const VERIFYING_MAX: usize = 256;

/// Verified blocks that wait for the ones before them.
const WAITING_MAX: usize = 1_024;

/// Blocks that wait for the disk.
const LEDGER_QUEUE_MAX: usize = 256;

/// Name of the command that the harness starts.
pub(crate) const COMMAND: &str = "gossipsub-peer";

/// What the harness says.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The peer's configuration
    #[arg(long)]
    config: PathBuf,
    /// File for the way of its blocks
    #[arg(long)]
    block_trace: Option<PathBuf>,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let trace = arguments.block_trace.as_deref().map(BlockTrace::to_file).transpose()?.unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(serve(&arguments.config, trace));
    // What is being verified no longer matters.
    runtime.shutdown_background();
    ended
}

async fn serve(path: &Path, trace: BlockTrace) -> anyhow::Result<()> {
    let (config, _warnings) = PeerConfig::load(path, std::iter::empty())?;
    let place = Place::find(path, &config)?;
    let data = &config.peer.file_system_path;
    std::fs::create_dir_all(data).with_context(|| format!("cannot create {}", data.display()))?;
    let genesis = config.channels.first().context("the configuration names no channel")?;
    let genesis = Block::decode(std::fs::read(genesis)?.into(), BLOCK_SIZE_MAX)?;
    let channel_config = Arc::new(ChannelConfig::from_block(&genesis)?);
    let channel = channel_config.channel_id().clone();
    let next = AuthenticBlock::genesis(&genesis)?.number() + 1;

    let (calls, admin_calls) = mpsc::channel(8);
    let stop_admin = CancellationToken::new();
    let (ledger, writer) =
        ledger::spawn(&data.join("blocks"), next, channel.to_string(), trace.clone(), LEDGER_QUEUE_MAX)?;
    let (sink, delivered) = mpsc::channel(1);
    let puller = if place.index == 0 {
        let signer =
            LocalMsp::load(&config.peer.msp_config_path, &MspId::from(config.peer.local_msp_id.as_str()))?
                .signer;
        let endpoints = channel_config.orderer_endpoints().iter().map(DeliverEndpoint::from).collect();
        let mut deliver = DeliverConfig::new(channel.clone(), endpoints, channel_config.block_size_max());
        deliver.tls = deliver_tls(&config)?;
        Some(DeliverClient::spawn(deliver, Arc::new(signer), next, sink))
    } else {
        None
    };
    let mut carrier = carrier::Carrier::new(
        place,
        carrier::About {
            name: config.peer.id.clone(),
            msp_id: config.peer.local_msp_id.to_string(),
            channel: channel.to_string(),
        },
        BlockVerifier::new(channel_config),
        ledger,
        next,
        trace,
    )?;
    let serving = tokio::spawn(AdminServer::bind(data)?.serve(calls, stop_admin.clone()));
    let ended = Box::pin(carrier.run(delivered, admin_calls)).await;
    drop(puller);
    // Its ledger's queue closes, so the writer ends with the last block.
    drop(carrier);
    stop_admin.cancel();
    let _ended = serving.await;
    writer.join().map_err(|_panic| anyhow::anyhow!("the ledger's thread panicked"))??;
    ended
}

fn deliver_tls(config: &PeerConfig) -> anyhow::Result<Option<DeliverTls>> {
    let tls = &config.peer.tls;
    if !tls.enabled {
        return Ok(None);
    }
    let roots = tls.rootcert.file.as_deref().map(std::fs::read).transpose()?;
    let client = match (tls.cert.file.as_deref(), tls.key.file.as_deref()) {
        (Some(certificate), Some(key)) => {
            Some(ClientCertificate { certificate: std::fs::read(certificate)?, key: std::fs::read(key)? })
        }
        _ => None,
    };
    Ok(Some(DeliverTls { roots: roots.into_iter().collect(), client }))
}

/// This peer among the others.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Its number in the order of `network.yaml`.
    pub(crate) index: usize,
    /// Where all of them listen.
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Place {
    /// `peer.yaml` lies in `DIRECTORY/net/NAME`, the description of the network in `DIRECTORY`.
    fn find(path: &Path, config: &PeerConfig) -> anyhow::Result<Self> {
        let directory = path.ancestors().nth(3).context("the configuration lies in no network")?;
        let (network, _warnings) = NetworkConfig::load(&directory.join("network.yaml"), std::iter::empty())?;
        let peers = network.organizations.iter().flat_map(|organization| &organization.peers);
        let addresses: Vec<SocketAddr> = peers.map(|peer| peer.listen_address).collect();
        let own = config.peer.listen_address;
        let index = addresses.iter().position(|address| *address == own);
        Ok(Self { index: index.context("network.yaml does not name this peer")?, addresses })
    }
}
