//! The transport between peers: libp2p over TCP, Noise and yamux, members only.
//!
//! **What it promises.** The owner gives it an identity, a rule for admission and a rule for body sizes,
//! and gets events. Every peer it reports has proved an X.509 identity that the rule admitted, and has
//! admitted this peer, before any other protocol was reachable. Per pair of peers there is one
//! connection, however often and from which side it is dialed. It takes no protocol decision: what is in
//! a frame, whom to dial and when to dial again is the owner's business.
//!
//! **Shape.** `tcp` (sockets) → `upgrade` (Noise, `handshake`, yamux) → `registry` (who is admitted, who
//! is connected) → `gate` (denies what the registry does not know; opens streams) → `driver` (the swarm's
//! task) → `link` (one connection) → `lanes` (events to the owner).
//!
//! **Streams.** Right after admission each side opens two long-lived one-way streams: control (small
//! frames) and bulk (blocks, cut into chunks and paid for with credits: `bulk`). Each is read and written by a task of its own, so control never
//! waits behind bulk, neither here nor on the way to the owner.
//!
//! **Bounds.**
//!
//! | what | bound | beyond it |
//! |---|---|---|
//! | handshake | `handshake_timeout`, 16 KiB each way | refused, counted by reason |
//! | inbound handshakes | in total and per IP address | refused (`busy`) |
//! | connections | `connections_max` | inbound refused (`busy`) |
//! | dials | `dials_max` | `DialFailed`, counted |
//! | frames | `control_frame_bytes_max`, `bulk_header_bytes_max`, `bulk_body_bytes_max` | disconnected |
//! | body | [`BodyLimit`] | read past, counted |
//! | waiting to be sent, per peer | frames and bytes, for control and bulk | pushes thrown out or refused first, counted |
//! | waiting to be sent, all peers | `send_budget_bytes` | likewise |
//! | bodies coming in or not yet taken, all peers | `receive_budget_bytes`, one connection's bodies, 1 MiB for each peer | no credits |
//! | received, not yet read, per peer | `window_bytes_max` | the peer may not send |
//! | waiting for the owner | `control_events_max`, `bulk_events_max` | sockets are not read |
//! | silence, or no progress inside a frame | `silence_timeout`, `progress_timeout` | disconnected |
//!
//! **Attacks.** Strangers: see `handshake`. Slow or silent ones hold a handshake place for at most
//! `handshake_timeout`. Members that send garbage, oversized frames or nothing lose their connection;
//! members that announce more than they send cost only what they send.

mod bulk;
mod config;
mod counters;
mod driver;
mod frames;
mod gate;
mod handle;
mod handshake;
mod key;
mod lanes;
mod link;
mod multiplex;
mod queue;
mod registry;
mod tcp;
#[cfg(test)]
mod tests;
mod upgrade;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use libp2p::{
    PeerId, Swarm, Transport as _,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identity::Keypair,
    noise,
};
use tokio::{net::TcpListener, runtime, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    bulk::{
        OPEN_BYTES_MAX,
        budget::Budget,
        outgoing::{Outgoing, OutgoingLimits},
    },
    driver::{Driver, LinkLimits},
    frames::FrameLimits,
    gate::MembershipGate,
    handle::Shared,
    handshake::Refusal,
    lanes::Lanes,
    link::QueueLimits,
    registry::Registry,
    tcp::{TcpTransport, to_multiaddr},
    upgrade::{LogBudget, MemberUpgrade, prologue},
};
pub use self::{
    config::{
        ALREADY_CONNECTED, Admission, BodyLimit, BulkMessage, Flow, NetConfig, NetError, NetEvent, SendError,
    },
    counters::{NetCounters, RefusalKind},
    handle::NetHandle,
    lanes::NetEvents,
};
use crate::signing::CurrentSigner;

/// Connections live until one side ends them; the swarm must not close idle ones.
const IDLE_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);
/// A peer opens two streams, right after admission.
const NEGOTIATING_STREAMS_MAX: usize = 4;
/// The network id goes into every handshake.
const NETWORK_ID_BYTES_MAX: usize = 256;

/// The transport; see the module's description.
#[derive(Debug)]
pub struct Net;

impl Net {
    /// Starts listening and returns a handle and the events. Must be called inside a tokio runtime.
    /// Dropping the receiver stops the transport.
    pub fn start(
        config: NetConfig,
        signer: Arc<CurrentSigner>,
        admission: Arc<dyn Admission>,
        body_limit: Arc<dyn BodyLimit>,
    ) -> Result<(NetHandle, NetEvents), NetError> {
        let runtime = runtime::Handle::try_current().map_err(|_| NetError::NoRuntime)?;
        check(&config)?;
        let keypair = key::load_or_create(&config.key_path)?;
        let (listener, listen_address) = bind(config.listen)?;
        let local = keypair.public().to_peer_id();
        let (stop, hard_stop) = (CancellationToken::new(), CancellationToken::new());
        let (lanes, events) =
            Lanes::new(config.control_events_max, config.bulk_events_max, stop.clone(), hard_stop.clone());
        let (commands, commands_end) = mpsc::unbounded_channel();
        let registry = Registry::new(
            local,
            config.connections_max,
            config.inbound_handshakes_max,
            config.inbound_handshakes_per_ip_max,
        );
        let shared = Arc::new(Shared {
            links: Arc::default(),
            registry,
            counters: Arc::default(),
            lanes,
            outgoing: std::sync::Mutex::new(Outgoing::new(OutgoingLimits {
                messages_max: config.bulk_queue_frames_max,
                peer_bytes_max: config.bulk_queue_bytes_max,
                bytes_max: config.send_budget_bytes,
            })),
            budget: Budget::new(config.receive_budget_bytes),
            commands,
            dialing: std::sync::Mutex::default(),
            tasks: TaskTracker::new(),
            runtime,
            stop,
            hard_stop,
            local,
            listen_address,
            dial_timeout: config.dial_timeout,
            dials_max: config.dials_max,
            control_frame_bytes_max: config.control_frame_bytes_max,
            bulk_header_bytes_max: config.bulk_header_bytes_max,
            bulk_body_bytes_max: config.bulk_body_bytes_max,
        });
        let transport = transport(&config, &keypair, listener, signer, admission, &shared)?;
        let gate = MembershipGate::new(shared.registry.clone(), shared.counters.clone());
        let settings = libp2p::swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(IDLE_TIMEOUT)
            .with_max_negotiating_inbound_streams(NEGOTIATING_STREAMS_MAX);
        let mut swarm = Swarm::new(transport, gate, local, settings);
        let listener = swarm
            .listen_on(to_multiaddr(listen_address))
            .map_err(|error| NetError::BadAddress { address: config.listen, reason: error.to_string() })?;
        let driver =
            Driver::new(swarm, listener, shared.clone(), commands_end, body_limit, link_limits(&config));
        shared.tasks.spawn_on(driver.run(), &shared.runtime);
        Ok((NetHandle { shared }, events))
    }
}

fn check(config: &NetConfig) -> Result<(), NetError> {
    let length = config.network_id.len();
    if length == 0 || length > NETWORK_ID_BYTES_MAX {
        let problem = format!("network.id must have 1 to {NETWORK_ID_BYTES_MAX} bytes, it has {length}");
        return Err(NetError::Setting(problem));
    }
    if config.keep_alive_interval >= config.silence_timeout {
        let problem = "the keep-alive interval must be shorter than the silence timeout";
        return Err(NetError::Setting(problem.to_owned()));
    }
    if config.bulk_queue_bytes_max > OPEN_BYTES_MAX {
        let problem = format!("at most {OPEN_BYTES_MAX} bytes may wait for one peer: others take no more");
        return Err(NetError::Setting(problem));
    }
    Ok(())
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), NetError> {
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, address))
    });
    bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => NetError::PortInUse { address },
        _ => NetError::BadAddress { address, reason: error.to_string() },
    })
}

fn transport(
    config: &NetConfig,
    keypair: &Keypair,
    listener: TcpListener,
    signer: Arc<CurrentSigner>,
    admission: Arc<dyn Admission>,
    shared: &Shared,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetError> {
    let noise = noise::Config::new(keypair)
        .map_err(|error| NetError::Key {
            path: config.key_path.clone(),
            reason: format!("it does not work with Noise ({error}); delete it to get a new one"),
        })?
        .with_prologue(prologue(&config.network_id));
    let context = Arc::new(MemberUpgrade {
        noise,
        local: shared.local,
        network_id: config.network_id.clone(),
        signer,
        admission,
        instance: rand::random(),
        registry: shared.registry.clone(),
        counters: shared.counters.clone(),
        handshake_timeout: config.handshake_timeout,
        window_bytes_max: config.window_bytes_max,
        log: LogBudget::default(),
    });
    let tcp =
        TcpTransport::new(listener, shared.listen_address, config.dial_timeout, shared.counters.clone());
    Ok(tcp
        .map_err(Refusal::from)
        .and_then(move |socket, endpoint| upgrade::upgrade(context, socket, endpoint))
        .map_err(|error| error.into_inner())
        .boxed())
}

fn link_limits(config: &NetConfig) -> LinkLimits {
    LinkLimits {
        frames: FrameLimits {
            control_bytes_max: config.control_frame_bytes_max,
            header_bytes_max: config.bulk_header_bytes_max,
            body_bytes_max: config.bulk_body_bytes_max,
            progress_timeout: config.progress_timeout,
            silence_timeout: config.silence_timeout,
        },
        queues: QueueLimits {
            control_frames_max: config.control_queue_frames_max,
            control_bytes_max: config.control_queue_bytes_max,
        },
        keep_alive_interval: config.keep_alive_interval,
    }
}
