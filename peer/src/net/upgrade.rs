//! From a TCP socket to an admitted, multiplexed connection: Noise, member handshake, yamux.
//!
//! The three steps are fixed, so there is nothing to negotiate and no protocol name travels before a
//! peer is admitted. Noise runs with the network id as its prologue: peers of two networks cannot even
//! read each other. The whole takes at most the handshake timeout; an inbound one needs a place among
//! the handshakes under way (in total and per IP address).
//!
//! Refusals are counted and logged here, where the reason is known as a type; the log is bounded to
//! [`LOG_LINES_PER_SECOND`], so that knocking strangers cannot fill a disk.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use grapevine_crypto::Signer;
use libp2p::{
    PeerId,
    core::{
        ConnectedPoint,
        muxing::StreamMuxerBox,
        upgrade::{InboundConnectionUpgrade as _, OutboundConnectionUpgrade as _},
    },
    noise,
};

use super::{
    Admission, NetCounters, RefusalKind,
    counters::count,
    handshake::{self, Handshake, Refusal, Verified},
    multiplex::Multiplexed,
    registry::{Admitted, Claim, Registry},
    tcp::{Socket, to_socket_address},
};
use crate::signing::CurrentSigner;

const LOG_LINES_PER_SECOND: u32 = 5;

/// What every upgrade of this peer needs. Named after what it makes of a stranger.
pub(crate) struct MemberUpgrade {
    pub(crate) noise: noise::Config,
    pub(crate) local: PeerId,
    pub(crate) network_id: String,
    pub(crate) signer: Arc<CurrentSigner>,
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) instance: [u8; 16],
    pub(crate) registry: Registry,
    pub(crate) counters: Arc<NetCounters>,
    pub(crate) handshake_timeout: Duration,
    pub(crate) window_bytes_max: usize,
    pub(crate) log: LogBudget,
}

/// Lets a few lines a second through.
#[derive(Debug, Default)]
pub(crate) struct LogBudget(Mutex<Option<(Instant, u32)>>);

impl LogBudget {
    /// Whether another line may be written now.
    pub(crate) fn take(&self) -> bool {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *window {
            Some((since, used)) if since.elapsed() < Duration::from_secs(1) => {
                *used = used.saturating_add(1);
                *used <= LOG_LINES_PER_SECOND
            }
            _ => {
                *window = Some((Instant::now(), 1));
                true
            }
        }
    }
}

/// The Noise prologue of a network.
pub(crate) fn prologue(network_id: &str) -> Vec<u8> {
    [b"grapevine/network/1/".as_slice(), network_id.as_bytes()].concat()
}

/// Makes `socket` a connection of two members, or nothing.
pub(crate) async fn upgrade(
    context: Arc<MemberUpgrade>,
    socket: Socket,
    endpoint: ConnectedPoint,
) -> Result<(PeerId, StreamMuxerBox), Refusal> {
    let limit = context.handshake_timeout;
    let steps = Box::pin(admit_and_multiplex(&context, socket, &endpoint));
    let result = tokio::time::timeout(limit, steps).await.unwrap_or_else(|_| {
        Err(Refusal::new(RefusalKind::Timeout, format!("not done within {} ms", limit.as_millis())))
    });
    match &result {
        Ok(_) => count(&context.counters.handshakes_completed),
        Err(refusal) => report(&context, refusal, &endpoint),
    }
    result
}

fn report(context: &MemberUpgrade, refusal: &Refusal, endpoint: &ConnectedPoint) {
    context.counters.count_refused(refusal.kind);
    if refusal.is_already_connected() || refusal.kind == RefusalKind::SelfDial || !context.log.take() {
        return;
    }
    let address = endpoint.get_remote_address();
    let inbound = endpoint.is_listener();
    match refusal.kind {
        RefusalKind::Closed | RefusalKind::Busy | RefusalKind::Timeout => {
            tracing::debug!(%address, inbound, reason = %refusal, "handshake ended");
        }
        _ => tracing::warn!(%address, inbound, reason = %refusal, "handshake refused"),
    }
}

async fn admit_and_multiplex(
    context: &MemberUpgrade,
    socket: Socket,
    endpoint: &ConnectedPoint,
) -> Result<(PeerId, StreamMuxerBox), Refusal> {
    let kill = socket.kill_switch();
    let address = endpoint.get_remote_address();
    let (peer, verified, claim, stream) = if endpoint.is_dialer() {
        let (peer, mut stream) =
            context.noise.clone().upgrade_outbound(socket, "/noise").await.map_err(secure_channel)?;
        let (verified, claim) = dial(context, peer, &mut stream).await?;
        (peer, verified, claim, stream)
    } else {
        let ip = to_socket_address(address).map(|address| address.ip());
        let ip = ip.ok_or_else(|| Refusal::new(RefusalKind::Malformed, "no IP address"))?;
        let _slot = context.registry.handshake_slot(ip)?;
        let (peer, mut stream) =
            context.noise.clone().upgrade_inbound(socket, "/noise").await.map_err(secure_channel)?;
        let (verified, claim) = accept(context, peer, &mut stream).await?;
        (peer, verified, claim, stream)
    };
    let multiplexed = Multiplexed::new(stream, endpoint.is_dialer(), context.window_bytes_max);
    let admitted = Admitted { verified, kill, claim, since: Instant::now() };
    context.registry.admit(peer, address.clone(), admitted);
    Ok((peer, StreamMuxerBox::new(multiplexed)))
}

async fn dial(
    context: &MemberUpgrade,
    peer: PeerId,
    stream: &mut noise::Output<Socket>,
) -> Result<(Verified, Claim), Refusal> {
    let claim = if peer == context.local {
        let detail = "this peer's own endpoint";
        Err(Refusal::new(RefusalKind::SelfDial, detail))
    } else {
        context.registry.claim_dial(peer)
    };
    match claim {
        Ok(claim) => {
            let verified =
                handshake::as_dialer(stream, &context.handshake(&context.signer.now(), peer)).await?;
            Ok((verified, claim))
        }
        Err(refusal) => {
            handshake::tell(stream, &refusal).await;
            Err(refusal)
        }
    }
}

async fn accept(
    context: &MemberUpgrade,
    peer: PeerId,
    stream: &mut noise::Output<Socket>,
) -> Result<(Verified, Claim), Refusal> {
    let registry = &context.registry;
    let claim = |verified: &Verified| registry.claim_accept(peer, verified);
    handshake::as_listener(stream, &context.handshake(&context.signer.now(), peer), claim).await
}

impl MemberUpgrade {
    fn handshake<'a>(&'a self, signer: &'a Signer, remote: PeerId) -> Handshake<'a> {
        Handshake {
            signer,
            admission: self.admission.as_ref(),
            network_id: &self.network_id,
            local: self.local,
            remote,
            instance: self.instance,
        }
    }
}

fn secure_channel(error: noise::Error) -> Refusal {
    match error {
        noise::Error::Io(error) if error.kind() != std::io::ErrorKind::InvalidData => error.into(),
        error => {
            let detail = format!("{error}; another network.id, or not a Grapevine peer");
            Refusal::new(RefusalKind::SecureChannel, detail)
        }
    }
}
