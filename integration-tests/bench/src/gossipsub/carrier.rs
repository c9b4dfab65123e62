//! The peer's one task: the swarm, the orderer's blocks, verdicts and questions about its status.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::StreamExt as _;
use grapevine_block_trace::{BlockTrace, Station};
use grapevine_channels::block::{AuthenticBlock, Block};
use grapevine_channels::verify::BlockVerifier;
use grapevine_peer::admin::{
    AdminCall, AdminRequest, AdminResponse, ChannelStatus, MemberState, MemberStatus, Status,
};
use grapevine_peer::deliver::DeliverEvent;
use libp2p::core::Transport as _;
use libp2p::core::upgrade::Version;
use libp2p::gossipsub::{
    Behaviour, ConfigBuilder, Event, IdentTopic, MessageAcceptance, MessageAuthenticity, MessageId,
    PublishError, ValidationMode,
};
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Swarm, noise, tcp, yamux};
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};

use super::counted::Counted;
use super::ledger::Ledger;
use super::{MESSAGE_BYTES_MAX, Place, SEND_WITHIN, VERIFYING_MAX, WAITING_MAX};

/// How often a peer is dialed that is not connected.
const DIAL_INTERVAL: Duration = Duration::from_millis(500);

/// Connections outside of the mesh are kept as well, for gossip.
const KEEP_IDLE: Duration = Duration::from_secs(86_400);

/// Where a block came from: gossipsub waits for the verdict on what others sent.
#[derive(Debug)]
enum Origin {
    Orderer,
    Peer { id: MessageId, from: PeerId },
}

#[derive(Debug)]
struct Verdict {
    origin: Origin,
    result: Result<AuthenticBlock, String>,
}

/// What the status says of the peer.
#[derive(Debug)]
pub(super) struct About {
    pub(super) name: String,
    pub(super) msp_id: String,
    pub(super) channel: String,
}

pub(super) struct Carrier {
    swarm: Swarm<Behaviour>,
    topic: IdentTopic,
    place: Place,
    about: About,
    verifier: BlockVerifier,
    workers: Arc<Semaphore>,
    verifying: usize,
    verdicts: mpsc::UnboundedSender<Verdict>,
    judged: mpsc::UnboundedReceiver<Verdict>,
    waiting: BTreeMap<u64, AuthenticBlock>,
    next: u64,
    ledger: Ledger,
    orderer: Option<String>,
    bytes_in: Arc<AtomicU64>,
    trace: BlockTrace,
}

impl Carrier {
    /// Listens; dials nobody yet.
    pub(super) fn new(
        place: Place,
        about: About,
        verifier: BlockVerifier,
        ledger: Ledger,
        next: u64,
        trace: BlockTrace,
    ) -> anyhow::Result<Self> {
        let bytes_in = Arc::new(AtomicU64::new(0));
        let topic = IdentTopic::new(about.channel.clone());
        let mut swarm = swarm(Arc::clone(&bytes_in))?;
        swarm.behaviour_mut().subscribe(&topic)?;
        let own = place.addresses.get(place.index).context("the own address")?;
        swarm.listen_on(multiaddr(own.ip(), own.port()))?;
        // Never more than VERIFYING_MAX at a time.
        let (verdicts, judged) = mpsc::unbounded_channel();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            swarm,
            topic,
            place,
            about,
            verifier,
            workers: Arc::new(Semaphore::new(cores)),
            verifying: 0,
            verdicts,
            judged,
            waiting: BTreeMap::new(),
            next,
            ledger,
            orderer: None,
            bytes_in,
            trace,
        })
    }

    /// Runs until SIGTERM or SIGINT.
    pub(super) async fn run(
        &mut self,
        mut delivered: mpsc::Receiver<DeliverEvent>,
        mut calls: mpsc::Receiver<AdminCall>,
    ) -> anyhow::Result<()> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut dial = tokio::time::interval(DIAL_INTERVAL);
        let mut connected_to = BTreeMap::new();
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => match event {
                    SwarmEvent::Behaviour(Event::Message { propagation_source, message_id, message }) => {
                        self.received(propagation_source, message_id, message.data.into());
                    }
                    SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } if endpoint.is_dialer() => {
                        connected_to.insert(endpoint.get_remote_address().clone(), peer_id);
                    }
                    SwarmEvent::ListenerClosed { reason, .. } => {
                        anyhow::bail!("the peer listens no more: {reason:?}");
                    }
                    _ => {}
                },
                Some(verdict) = self.judged.recv() => self.judge(verdict).await?,
                Some(event) = delivered.recv(), if self.verifying < VERIFYING_MAX => self.delivered(event),
                Some(call) = calls.recv() => self.answer(call),
                _ = dial.tick() => {
                    for address in self.place.addresses.iter().take(self.place.index) {
                        let address = multiaddr(address.ip(), address.port());
                        let known = connected_to.get(&address);
                        if known.is_none_or(|peer| !self.swarm.is_connected(peer)) {
                            // It may not have started yet; the next tick tries again.
                            let _refused = self.swarm.dial(address);
                        }
                    }
                }
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            }
        }
    }

    fn delivered(&mut self, event: DeliverEvent) {
        match event {
            DeliverEvent::Connected { endpoint, .. } => self.orderer = Some(endpoint),
            DeliverEvent::Failed { reason, .. } => {
                self.orderer = None;
                eprintln!("no blocks from the orderer: {reason}");
            }
            DeliverEvent::Block { bytes, .. } => self.verify(Origin::Orderer, bytes),
        }
    }

    fn received(&mut self, from: PeerId, id: MessageId, bytes: Bytes) {
        if self.verifying >= VERIFYING_MAX {
            self.report(&id, &from, MessageAcceptance::Ignore);
            return;
        }
        self.verify(Origin::Peer { id, from }, bytes);
    }

    fn verify(&mut self, origin: Origin, bytes: Bytes) {
        self.verifying += 1;
        let (verifier, verdicts, workers) =
            (self.verifier.clone(), self.verdicts.clone(), Arc::clone(&self.workers));
        let (trace, channel) = (self.trace.clone(), self.about.channel.clone());
        let received = grapevine_block_trace::now();
        tokio::spawn(async move {
            let Ok(_place) = workers.acquire_owned().await else { return };
            let judged = tokio::task::spawn_blocking(move || {
                let block = Block::decode(bytes, verifier.config().block_size_max());
                let block = block.map_err(|error| error.to_string())?;
                let block = verifier.verify(block).map_err(|error| error.to_string())?;
                trace.note_at(&channel, block.number(), Station::Received, received);
                trace.note(&channel, block.number(), Station::Verified);
                Ok(block)
            });
            let result = judged.await.unwrap_or_else(|error| Err(error.to_string()));
            // Nobody waits for it when the peer ends.
            let _ending = verdicts.send(Verdict { origin, result });
        });
    }

    async fn judge(&mut self, verdict: Verdict) -> anyhow::Result<()> {
        self.verifying = self.verifying.saturating_sub(1);
        let block = match verdict.result {
            Ok(block) => block,
            Err(reason) => {
                eprintln!("a block is not authentic: {reason}");
                if let Origin::Peer { id, from } = verdict.origin {
                    self.report(&id, &from, MessageAcceptance::Reject);
                }
                return Ok(());
            }
        };
        match verdict.origin {
            Origin::Peer { id, from } => self.report(&id, &from, MessageAcceptance::Accept),
            Origin::Orderer => {
                let published =
                    self.swarm.behaviour_mut().publish(self.topic.clone(), block.encoded().to_vec());
                match published {
                    // Pulled again after a break, or nobody else is there.
                    Ok(_) | Err(PublishError::Duplicate | PublishError::NoPeersSubscribedToTopic) => {}
                    Err(error) => eprintln!("block {} cannot be published: {error}", block.number()),
                }
            }
        }
        if block.number() >= self.next && self.waiting.len() < WAITING_MAX {
            self.waiting.insert(block.number(), block);
        }
        while let Some(block) = self.waiting.remove(&self.next) {
            self.trace.note(&self.about.channel, self.next, Station::Handed);
            anyhow::ensure!(self.ledger.append(block).await, "the ledger cannot write");
            self.next += 1;
        }
        Ok(())
    }

    fn report(&mut self, id: &MessageId, from: &PeerId, acceptance: MessageAcceptance) {
        // False if it has left the cache meanwhile: then there is nothing to forward.
        let _cached = self.swarm.behaviour_mut().report_message_validation_result(id, from, acceptance);
    }

    fn answer(&self, call: AdminCall) {
        let response = match call.request {
            AdminRequest::Status => AdminResponse::Status(Box::new(self.status())),
            _ => AdminResponse::Error { error: "this peer only tells its status".to_owned() },
        };
        // Who asked may be gone.
        let _gone = call.answer.send(response);
    }

    /// Connected are those whose subscription has come: from then on blocks can go there.
    fn status(&self) -> Status {
        let hash = self.topic.hash();
        let subscribed: HashSet<PeerId> = self
            .swarm
            .behaviour()
            .all_peers()
            .filter(|(_, topics)| topics.contains(&&hash))
            .map(|(peer, _)| *peer)
            .collect();
        let member = |peer: &PeerId| MemberStatus {
            certificate_serial: String::new(),
            name: peer.to_string(),
            msp_id: self.about.msp_id.clone(),
            pki_id: peer.to_string(),
            state: MemberState::Alive,
            endpoint: String::new(),
            connected: true,
            suspected_by: Vec::new(),
        };
        let channel = ChannelStatus {
            channel: self.about.channel.clone(),
            height: self.ledger.height(),
            members: subscribed.len() as u64 + 1,
            is_leader: self.place.index == 0,
            orderer: self.orderer.clone(),
            ..ChannelStatus::default()
        };
        let mesh = self.swarm.behaviour().mesh_peers(&hash).count() as u64;
        Status {
            peer: self.about.name.clone(),
            msp_id: self.about.msp_id.clone(),
            pki_id: self.swarm.local_peer_id().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ledger_takes_blocks: true,
            channels: vec![channel],
            members: subscribed.iter().map(member).collect(),
            counters: BTreeMap::from([
                ("net_bytes_in".to_owned(), self.bytes_in.load(Ordering::Relaxed)),
                ("mesh_peers".to_owned(), mesh),
            ]),
            ..Status::default()
        }
    }
}

fn swarm(bytes_in: Arc<AtomicU64>) -> anyhow::Result<Swarm<Behaviour>> {
    let key = Keypair::generate_ed25519();
    let transport = tcp::tokio::Transport::new(tcp::Config::default())
        .map(move |inner, _| Counted { inner, bytes_in: Arc::clone(&bytes_in) })
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&key)?)
        .multiplex(yamux::Config::default())
        .boxed();
    let config = ConfigBuilder::default()
        .mesh_n(8)
        .mesh_n_low(6)
        .mesh_n_high(12)
        .flood_publish(false)
        .max_transmit_size(MESSAGE_BYTES_MAX)
        .validate_messages()
        .validation_mode(ValidationMode::Anonymous)
        .message_id_fn(|message| MessageId::new(&Sha256::digest(&message.data)))
        .publish_queue_duration(SEND_WITHIN)
        .forward_queue_duration(SEND_WITHIN)
        .build()?;
    let behaviour = Behaviour::new(MessageAuthenticity::Anonymous, config).map_err(anyhow::Error::msg)?;
    let settings = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(KEEP_IDLE);
    Ok(Swarm::new(transport, behaviour, key.public().to_peer_id(), settings))
}

fn multiaddr(ip: IpAddr, port: u16) -> Multiaddr {
    Multiaddr::from(ip).with(libp2p::multiaddr::Protocol::Tcp(port))
}
