//! Who is kept out, and how.

use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use grapevine_crypto::{Signer, serialize_identity};
use libp2p::{PeerId, core::upgrade::OutboundConnectionUpgrade as _, identity::Keypair, noise};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use super::{DEADLINE, NETWORK, Peer, enrol, organization, until};
use crate::net::{
    NetConfig, RefusalKind,
    gate::MembershipGate,
    handshake::{Exchange, Side, transcript},
    registry::Registry,
    tcp::Socket,
    upgrade::prologue,
};

/// A dialer that is past Noise and can say anything.
struct Raw {
    stream: noise::Output<Socket>,
    exchange: Exchange<'static>,
}

const NONCE: [u8; 32] = [9; 32];

impl Raw {
    async fn dial(peer: &Peer) -> Self {
        let keypair = Keypair::generate_ed25519();
        let socket = TcpStream::connect(peer.net.listen_address()).await.unwrap();
        let noise = noise::Config::new(&keypair).unwrap().with_prologue(prologue(NETWORK));
        let socket = Socket::new(socket, std::sync::Arc::default());
        let (listener, stream) = noise.upgrade_outbound(socket, "/noise").await.unwrap();
        let dialer = keypair.public().to_peer_id();
        let listener_nonce = [0; 32];
        let exchange =
            Exchange { network_id: NETWORK, dialer, listener, dialer_nonce: NONCE, listener_nonce };
        Self { stream, exchange }
    }

    /// Exchanges hellos honestly.
    async fn hello(&mut self) {
        let hello = [[1].as_slice(), &NONCE, &[0; 16]].concat();
        self.stream.write_all(&hello).await.unwrap();
        self.stream.flush().await.unwrap();
        let mut theirs = [0; 49];
        self.stream.read_exact(&mut theirs).await.unwrap();
        self.exchange.listener_nonce.copy_from_slice(&theirs[1..33]);
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// What the listener answers before it closes.
    async fn answer(mut self) -> Vec<u8> {
        let mut answer = Vec::new();
        let reading = self.stream.read_to_end(&mut answer);
        // A reset after the answer is as good as an end.
        let _ = tokio::time::timeout(DEADLINE, reading).await.expect("closed in time");
        answer
    }
}

fn proof(identity: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut message = vec![1];
    for part in [identity, signature] {
        message.extend_from_slice(&u16::try_from(part.len()).unwrap().to_be_bytes());
        message.extend_from_slice(part);
    }
    message
}

fn signed(signer: &Signer, exchange: &Exchange<'_>, side: Side) -> Vec<u8> {
    proof(signer.serialized(), &signer.sign(&transcript(exchange, side, signer.serialized())))
}

fn refused_as(kind: RefusalKind) -> Vec<u8> {
    vec![0, kind.code()]
}

async fn assert_kept_out(peer: &mut Peer, kind: RefusalKind) {
    let counters = peer.net.shared.counters.clone();
    until(kind.label(), || counters.refused(kind) == 1).await;
    assert_eq!(counters.handshakes_completed.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert!(peer.events.try_recv().is_none(), "no event");
}

#[tokio::test]
async fn a_dialer_of_a_foreign_organisation_is_refused() {
    let (ours, foreign) = (organization("Org1MSP"), organization("Org2MSP"));
    let mut listener = Peer::start(&ours, "peer0", &[&ours], |_| {});
    let mut dialer = Peer::start(&foreign, "peer0", &[&ours, &foreign], |_| {});
    dialer.net.dial(listener.endpoint());
    assert_eq!(dialer.dial_failed().await, "refused by the other side: not_a_member");
    assert_kept_out(&mut listener, RefusalKind::NotAMember).await;
    assert_kept_out(&mut dialer, RefusalKind::ByRemote).await;
}

#[tokio::test]
async fn a_dialer_with_the_right_name_of_another_ca_is_refused() {
    let (ours, rogue) = (organization("Org1MSP"), organization("Org1MSP"));
    let mut listener = Peer::start(&ours, "peer0", &[&ours], |_| {});
    let mut dialer = Peer::start(&rogue, "peer1", &[&ours], |_| {});
    dialer.net.dial(listener.endpoint());
    assert_eq!(dialer.dial_failed().await, "refused by the other side: not_a_member");
    assert_kept_out(&mut listener, RefusalKind::NotAMember).await;
}

#[tokio::test]
async fn a_listener_outside_the_dialers_organisations_is_refused() {
    let (ours, foreign) = (organization("Org1MSP"), organization("Org2MSP"));
    let mut listener = Peer::start(&foreign, "peer0", &[&ours, &foreign], |_| {});
    let mut dialer = Peer::start(&ours, "peer0", &[&ours], |_| {});
    dialer.net.dial(listener.endpoint());
    assert!(dialer.dial_failed().await.starts_with("not_a_member"));
    assert_kept_out(&mut listener, RefusalKind::ByRemote).await;
}

#[tokio::test]
async fn peers_of_two_networks_do_not_understand_each_other() {
    let ours = organization("Org1MSP");
    let mut listener = Peer::start(&ours, "peer0", &[&ours], |_| {});
    let other = |config: &mut NetConfig| config.network_id = "another".to_owned();
    let mut dialer = Peer::start(&ours, "peer1", &[&ours], other);
    dialer.net.dial(listener.endpoint());
    let reason = dialer.dial_failed().await;
    assert!(reason.contains("network.id"), "{reason}");
    assert!(listener.events.try_recv().is_none());
}

/// Alters what is signed and says whose side is claimed.
type Change = fn(&mut Exchange<'_>) -> Side;

#[tokio::test]
async fn a_proof_that_is_not_for_this_connection_is_refused() {
    let ours = organization("Org1MSP");
    let member = enrol(&ours, "peer1");
    let cases: [(&str, Change); 4] = [
        ("replay", |exchange| {
            exchange.listener_nonce = [1; 32];
            Side::Dialer
        }),
        ("relay", |exchange| {
            exchange.dialer = PeerId::random();
            Side::Dialer
        }),
        ("reflection", |_| Side::Listener),
        ("another network", |exchange| {
            exchange.network_id = "another";
            Side::Dialer
        }),
    ];
    for (case, change) in cases {
        let mut listener = Peer::start(&ours, "peer0", &[&ours], |_| {});
        let mut raw = Raw::dial(&listener).await;
        raw.hello().await;
        let Exchange { network_id, dialer, listener: to, dialer_nonce, listener_nonce } = raw.exchange;
        let mut exchange = Exchange { network_id, dialer, listener: to, dialer_nonce, listener_nonce };
        let side = change(&mut exchange);
        raw.exchange = Exchange { network_id, dialer, listener: to, dialer_nonce, listener_nonce };
        raw.send(&signed(&member, &exchange, side)).await;
        assert_eq!(raw.answer().await, refused_as(RefusalKind::BadSignature), "{case}");
        assert_kept_out(&mut listener, RefusalKind::BadSignature).await;
    }
}

#[tokio::test]
async fn a_tampered_proof_is_refused() {
    let ours = organization("Org1MSP");
    let member = enrol(&ours, "peer1");
    let mut listener = Peer::start(&ours, "peer0", &[&ours], |_| {});
    let mut raw = Raw::dial(&listener).await;
    raw.hello().await;
    let mut message = signed(&member, &raw.exchange, Side::Dialer);
    *message.last_mut().unwrap() ^= 1;
    raw.send(&message).await;
    assert_eq!(raw.answer().await, refused_as(RefusalKind::BadSignature));
    assert_kept_out(&mut listener, RefusalKind::BadSignature).await;
}

#[tokio::test]
async fn a_self_signed_certificate_is_refused() {
    let (ours, rogue) = (organization("Org1MSP"), organization("Org1MSP"));
    let mut listener = Peer::start(&ours, "peer0", &[&ours], |_| {});
    let mut raw = Raw::dial(&listener).await;
    raw.hello().await;
    let identity = serialize_identity(rogue.msp_id(), rogue.authority().certificate().pem());
    raw.send(&proof(&identity, &[0; 64])).await;
    assert_eq!(raw.answer().await, refused_as(RefusalKind::NotAMember));
    assert_kept_out(&mut listener, RefusalKind::NotAMember).await;
}

#[tokio::test]
async fn an_oversized_proof_and_garbage_are_refused() {
    let ours = organization("Org1MSP");
    for message in [[1, 0xff, 0xff].as_slice(), &[77, 1, 2, 3], &[1, 0, 1, 7, 2, 0]] {
        let mut listener = Peer::start(&ours, "peer0", &[&ours], |_| {});
        let mut raw = Raw::dial(&listener).await;
        raw.hello().await;
        raw.send(message).await;
        assert_eq!(raw.answer().await, refused_as(RefusalKind::Malformed));
        assert_kept_out(&mut listener, RefusalKind::Malformed).await;
    }
}

#[tokio::test]
async fn garbage_at_every_step_leaves_the_listener_well() {
    use rand::{RngExt as _, SeedableRng as _, rngs::ChaCha8Rng};
    let ours = organization("Org1MSP");
    let short = |config: &mut NetConfig| config.handshake_timeout = Duration::from_millis(500);
    let mut listener = Peer::start(&ours, "peer0", &[&ours], short);
    let mut random = ChaCha8Rng::seed_from_u64(11);
    for round in 0..60 {
        let garbage: Vec<u8> = (0..random.random_range(1..3000)).map(|_| random.random()).collect();
        if round % 3 == 0 {
            let mut socket = TcpStream::connect(listener.net.listen_address()).await.unwrap();
            // The listener may close in the middle of it.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, &garbage).await;
            continue;
        }
        let mut raw = Raw::dial(&listener).await;
        if round % 3 == 1 {
            raw.hello().await;
        }
        let _ = raw.stream.write_all(&garbage).await;
        let _ = raw.stream.flush().await;
    }
    let mut member = Peer::start(&ours, "peer1", &[&ours], |_| {});
    member.net.dial(listener.endpoint());
    member.connected().await;
    listener.connected().await;
}

#[tokio::test]
async fn another_version_is_refused() {
    let ours = organization("Org1MSP");
    let mut listener = Peer::start(&ours, "peer0", &[&ours], |_| {});
    let mut raw = Raw::dial(&listener).await;
    raw.send(&[2]).await;
    let answer = raw.answer().await;
    assert_eq!(answer.get(49..), Some(refused_as(RefusalKind::Version).as_slice()));
    assert_kept_out(&mut listener, RefusalKind::Version).await;
}

#[tokio::test]
async fn silent_dialers_are_cut_off() {
    let ours = organization("Org1MSP");
    let short = |config: &mut NetConfig| config.handshake_timeout = Duration::from_millis(500);
    let mut listener = Peer::start(&ours, "peer0", &[&ours], short);
    let raw = Raw::dial(&listener).await;
    let answer = raw.answer().await;
    assert_eq!(answer.len(), 49, "a hello and nothing more");
    assert_kept_out(&mut listener, RefusalKind::Timeout).await;

    let mut listener = Peer::start(&ours, "peer0", &[&ours], short);
    let mut socket = TcpStream::connect(listener.net.listen_address()).await.unwrap();
    let mut nothing = Vec::new();
    let reading = socket.read_to_end(&mut nothing);
    tokio::time::timeout(DEADLINE, reading).await.expect("closed in time").unwrap();
    assert!(nothing.is_empty());
    assert_kept_out(&mut listener, RefusalKind::Timeout).await;
}

#[tokio::test]
async fn handshakes_from_one_address_are_bounded() {
    let ours = organization("Org1MSP");
    let mut listener =
        Peer::start(&ours, "peer0", &[&ours], |config| config.inbound_handshakes_per_ip_max = 2);
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(TcpStream::connect(listener.net.listen_address()).await.unwrap());
    }
    assert_kept_out(&mut listener, RefusalKind::Busy).await;
    // Places are free again as soon as the others are gone.
    drop(sockets);
    let mut member = Peer::start(&ours, "peer1", &[&ours], |_| {});
    let counters = listener.net.shared.counters.clone();
    until("both gone", || counters.refused(RefusalKind::Closed) == 2).await;
    member.net.dial(listener.endpoint());
    member.connected().await;
}

#[tokio::test]
async fn connections_are_bounded() {
    let ours = organization("Org1MSP");
    let mut listener = Peer::start(&ours, "peer0", &[&ours], |config| config.connections_max = 1);
    let mut first = Peer::start(&ours, "peer1", &[&ours], |_| {});
    first.net.dial(listener.endpoint());
    first.connected().await;
    listener.connected().await;
    let mut second = Peer::start(&ours, "peer2", &[&ours], |_| {});
    second.net.dial(listener.endpoint());
    assert_eq!(second.dial_failed().await, "refused by the other side: busy");
    first.net.shutdown().await;
    listener.disconnected().await;
    second.net.dial(listener.endpoint());
    second.connected().await;
}

#[tokio::test]
async fn the_gate_denies_a_connection_without_a_handshake_on_record() {
    use libp2p::swarm::{ConnectionId, NetworkBehaviour as _};
    let registry = Registry::new(PeerId::random(), 10, 10, 10);
    let counters = std::sync::Arc::<crate::net::NetCounters>::default();
    let mut gate = MembershipGate::new(registry, counters.clone());
    let address = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    let id = ConnectionId::new_unchecked(1);
    let inbound = gate.handle_established_inbound_connection(id, PeerId::random(), &address, &address);
    assert!(inbound.is_err());
    assert_eq!(counters.gate_denied.load(std::sync::atomic::Ordering::Relaxed), 1);
}
