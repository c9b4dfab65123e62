//! The running peer: a thin driver around [`grapevine_channels::node::Node`].
//!
//! One task, the core, owns the node. It takes what the transport, the ledger thread, the verifiers, the orderers' streams,
//! the admin socket and the clock bring, feeds it to the node, and carries out what the node wants. No protocol decision is
//! taken here. Nothing in the core waits for disk or network: sends go to bounded queues, blocks to the ledger thread,
//! verification to a pool.
//!
//! ```text
//!  orderer ──deliver──▶ orderer ─┐                        ┌─▶ verifier pool ─┐
//!  peers ────net───────▶ events ─┼─▶ core (node) ─outputs─┼─▶ ledger thread ─┼─▶ back to the core
//!  operator ─admin─────▶ calls ──┘                        └─▶ net, reader ───┘
//! ```
//!
//! # When something fails
//! A ledger that cannot write is opened again until it can; the status says why blocks are not taken in meanwhile. Only one
//! that has lost what was reported ends the process. A stored block that turns out damaged is not handed out and is fetched
//! again from other peers. A config block that cannot be used stops
//! its channel and says why; the other channels go on. A peer that misbehaves is disconnected and kept out for a
//! while. SIGTERM and Ctrl-C hand leadership over, finish what the ledger has taken, and end in seconds.

mod alarms;
mod certificates;
mod channels;
mod clients;
mod core;
mod joining;
mod limits;
mod orderer;
mod progress;
mod reader;
mod restorer;
mod sender;
mod settings;
mod stations;
mod status;
mod trust;
mod verifier;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use grapevine_block_trace::BlockTrace;
use grapevine_channels::node::{Node, Start};
use grapevine_channels::time::Time;
use grapevine_configs::PeerConfig;
use grapevine_crypto::Identity;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::core::{Core, Feeds};
use crate::admin::AdminServer;
use crate::deliver_server::DeliverChannels;
use crate::ledger::{self, Ledger, LedgerError, LedgerThread};
use crate::net::Net;

/// Where the persisted counter of starts stands in the ledger.
pub(crate) const INCARNATION_KEY: &[u8] = b"incarnation";
/// Where the ledger says whose it is.
const OWNER_KEY: &[u8] = b"owner";

/// What to do with a ledger that another peer has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeOver {
    /// Refuse it: it is a copied directory, or the wrong one.
    No,
    /// Keep its blocks; from now on it belongs to this peer, which gets a transport key of its own.
    Yes,
}

/// Runs the peer described by `config` until SIGTERM or SIGINT, and notes in `trace` the way of its blocks.
///
/// # Errors
/// Whatever keeps the peer from running, in words for the operator.
pub async fn run(config: PeerConfig, trace: BlockTrace, take_over: TakeOver) -> anyhow::Result<()> {
    let local = certificates::local_identity(&config)?;
    let data = &config.peer.file_system_path;
    std::fs::create_dir_all(data)
        .with_context(|| format!("cannot create peer.fileSystemPath {}", data.display()))?;
    let ledger = Ledger::open(data.join(ledger::DIRECTORY))?;
    own_ledger(&ledger, local.signer.identity(), take_over, &settings::key_path(&config))?;
    let admin = AdminServer::bind(data)?;
    let incarnation = next_incarnation(&ledger)?;
    let trust = Arc::new(trust::Trust::new(local));
    let limits = Arc::new(limits::Limits::default());
    let own = trust::credential(&trust.identity());

    let (net, net_events) =
        Net::start(settings::net(&config), trust.signer().clone(), trust.clone(), limits.clone())?;
    let node = Node::new(
        settings::node(&config, net.listen_address())?,
        Start {
            own: own.clone(),
            peer_id: net.local_peer_id(),
            incarnation,
            wall_ms: trust.zero_ms(),
            seed: rand::random(),
        },
        Box::new(trust::TrustAuthority(trust.clone())),
        Time::ZERO,
    );
    let (ledger_thread, ledger_reports) = LedgerThread::spawn(ledger.clone(), settings::ledger(&config))?;
    let (restorer, restored) = restorer::Restorer::new(ledger.clone());
    let (verifier, findings) = verifier::Verifier::new(ledger.clone());
    let (orderers, orderer_news) = orderer::Orderers::new(&config, trust.signer().clone())?;
    let (readings, reader_news, reader) = reader::spawn(ledger.clone(), net.clone())
        .context("the thread that reads blocks for others could not be started")?;
    let (calls, admin_calls) = mpsc::channel(8);
    let material = certificates::watch(&config)?;
    let started = trust.started();
    let stop_admin = CancellationToken::new();
    let serving = tokio::spawn(admin.serve(calls, stop_admin.clone()));

    let mut core = Core {
        config,
        node,
        started: trust.started(),
        trust,
        limits,
        ledger,
        ledger_thread,
        net: net.clone(),
        verifier,
        orderers,
        readings,
        restorer,
        repair: None,
        former_self: None,
        joining: joining::Joining::new(),
        waiting_commits: VecDeque::new(),
        config_blocks: BTreeMap::new(),
        certificates: certificates::Certificates::new(started),
        halted: BTreeMap::new(),
        leaving: BTreeMap::new(),
        alarms: alarms::Alarms::default(),
        restarts: BTreeMap::new(),
        client_channels: DeliverChannels::default(),
        deliver_server: None,
        stations: stations::Stations::new(trace),
        progress_log: progress::ProgressLog::new(started),
    };
    core.join_known_channels()?;
    core.deliver_server =
        clients::start(&core.config, &core.trust, &core.ledger, &core.client_channels).await?;
    tracing::info!(
        peer = core.config.peer.id,
        organization = %own.msp_id,
        pki_id = own.pki_id.short(),
        listening = %net.listen_address(),
        incarnation,
        "running"
    );
    let feeds = Feeds {
        net_events,
        ledger_reports,
        findings,
        orderer_news,
        reader_news,
        restored,
        admin_calls,
        material,
    };
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    // The core is large; on the heap it is not moved about.
    let ended = Box::pin(core.run(feeds, stop)).await;
    // The core is gone, and with it what the thread waits for.
    if tokio::task::spawn_blocking(move || reader.join()).await.is_ok_and(|joined| joined.is_err()) {
        tracing::error!("the thread that reads for peers panicked");
    }
    stop_admin.cancel();
    // The task ends with the token; a panic in it would be in the log already.
    let _ended = serving.await;
    net.shutdown().await;
    tracing::info!("stopped");
    ended
}

/// Whether the ledger is this peer's own. A new one is from now on.
fn own_ledger(
    ledger: &Ledger,
    identity: &Identity,
    take_over: TakeOver,
    transport_key: &Path,
) -> anyhow::Result<()> {
    let name = identity.certificate().subject_common_name().unwrap_or("(no common name)");
    let own = format!("{name} of {}, PKI-ID {}", identity.msp_id(), identity.pki_id());
    match ledger.meta_get(OWNER_KEY)? {
        Some(owner) if owner == own.as_bytes() => return Ok(()),
        Some(owner) if take_over == TakeOver::No => {
            let owner = String::from_utf8_lossy(&owner).into_owned();
            return Err(LedgerError::OtherOwner { path: ledger.path().to_owned(), owner }.into());
        }
        Some(owner) => {
            let former = String::from_utf8_lossy(&owner);
            tracing::warn!(%former, "taking over the ledger of another peer");
            // Two peers with one transport key would be taken for one.
            if let Err(error) = std::fs::remove_file(transport_key)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                return Err(anyhow::Error::new(error).context(format!(
                    "cannot remove the other peer's transport key {}",
                    transport_key.display()
                )));
            }
        }
        None => {}
    }
    Ok(ledger.meta_put(OWNER_KEY, own.as_bytes())?)
}

/// Counts starts; synced before anything is signed with it.
fn next_incarnation(ledger: &Ledger) -> anyhow::Result<u64> {
    let stored = ledger.meta_get(INCARNATION_KEY)?;
    let former = match stored.as_deref() {
        None => 0,
        Some(bytes) => u64::from_be_bytes(
            bytes.try_into().ok().context("the incarnation counter in the ledger is damaged")?,
        ),
    };
    let next = former.saturating_add(1);
    ledger.meta_put(INCARNATION_KEY, &next.to_be_bytes())?;
    Ok(next)
}

/// How long a stopping peer waits for its last frames and blocks.
const STOP_GRACE: Duration = Duration::from_secs(2);
