//! Tests of the transport over real sockets on loopback, every wait with a deadline.

mod bulk;
mod frames;
mod lifecycle;
mod links;
mod registry;
mod strangers;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use grapevine_crypto::{
    Algorithm, Identity, Msp, MspId, PkiId, Role, Signer,
    issue::{Organization, Validity},
};

use super::{Admission, BodyLimit, BulkMessage, Flow, Net, NetConfig, NetEvent, NetEvents, NetHandle};
use crate::signing::CurrentSigner;

pub(super) const DEADLINE: Duration = Duration::from_secs(60);
const NETWORK: &str = "test-network";
const VALIDITY: Validity = Validity::ten_years_from(1_700_000_000);

pub(super) fn organization(msp_id: &str) -> Organization {
    let domain = format!("{}.example.com", msp_id.to_lowercase());
    Organization::new(MspId::from(msp_id), &domain, Algorithm::Ed25519, VALIDITY).unwrap()
}

pub(super) fn enrol(organization: &Organization, name: &str) -> Arc<Signer> {
    Arc::new(organization.enrol(name, Role::Peer, VALIDITY).unwrap())
}

pub(super) fn current(organization: &Organization, name: &str) -> Arc<CurrentSigner> {
    Arc::new(CurrentSigner::new((*enrol(organization, name)).clone()))
}

/// Admits the members of some organisations.
pub(super) struct Members(Vec<Msp>);

impl Members {
    pub(super) fn of(organizations: &[&Organization]) -> Arc<Self> {
        Arc::new(Self(organizations.iter().map(|organization| organization.msp().unwrap()).collect()))
    }
}

impl Admission for Members {
    fn admit(&self, identity: &[u8]) -> Result<Identity, String> {
        let mut reason = "no organisation".to_owned();
        for msp in &self.0 {
            match msp.identify(identity) {
                Ok(identity) => return Ok(identity),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(reason)
    }
}

/// Allows bodies up to a size.
pub(super) struct UpTo(pub(super) usize);

impl BodyLimit for UpTo {
    fn body_limit(&self, _: PkiId, header: &[u8]) -> Option<usize> {
        (header != b"unwanted").then_some(self.0)
    }
}

/// A running transport with its events.
pub(super) struct Peer {
    pub(super) net: NetHandle,
    pub(super) events: NetEvents,
    pub(super) pki_id: PkiId,
    _directory: Option<tempfile::TempDir>,
}

pub(super) fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

impl Peer {
    /// A peer of `organization` that admits the members of `admits`.
    pub(super) fn start(
        organization: &Organization,
        name: &str,
        admits: &[&Organization],
        adjust: impl FnOnce(&mut NetConfig),
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = NetConfig::new(any_port(), NETWORK, directory.path().join("p2p.key"));
        adjust(&mut config);
        let mut peer = Self::run(config, enrol(organization, name), Members::of(admits));
        peer._directory = Some(directory);
        peer
    }

    pub(super) fn run(config: NetConfig, signer: Arc<Signer>, admission: Arc<dyn Admission>) -> Self {
        let pki_id = signer.identity().pki_id();
        let signer = Arc::new(CurrentSigner::new((*signer).clone()));
        let (net, events) = Net::start(config, signer, admission, Arc::new(UpTo(64 << 20))).unwrap();
        Self { net, events, pki_id, _directory: None }
    }

    pub(super) fn endpoint(&self) -> String {
        self.net.listen_address().to_string()
    }

    /// The next event; beginnings of bodies are passed over.
    pub(super) async fn next(&mut self) -> NetEvent {
        loop {
            match self.next_or_start().await {
                NetEvent::BulkStarted { .. } | NetEvent::BulkProgress { .. } => {}
                event => return event,
            }
        }
    }

    pub(super) async fn next_or_start(&mut self) -> NetEvent {
        tokio::time::timeout(DEADLINE, self.events.recv()).await.expect("an event in time").expect("running")
    }

    /// Session and connection number of the next event, which must be a `Connected`; failures of dials
    /// that lost against a connection are passed over.
    pub(super) async fn connected(&mut self) -> (u64, [u8; 32], bool) {
        loop {
            match self.next().await {
                NetEvent::Connected { connection, session, dialer, .. } => {
                    return (connection, session, dialer);
                }
                NetEvent::DialFailed { reason, .. } if reason == "already connected" => {}
                other => panic!("Connected expected: {other:?}"),
            }
        }
    }

    pub(super) async fn dial_failed(&mut self) -> String {
        match self.next().await {
            NetEvent::DialFailed { reason, .. } => reason,
            other => panic!("DialFailed expected: {other:?}"),
        }
    }

    pub(super) async fn disconnected(&mut self) -> String {
        loop {
            match self.next().await {
                NetEvent::Disconnected { reason, .. } => return reason,
                NetEvent::DialFailed { reason, .. } if reason == "already connected" => {}
                other => panic!("Disconnected expected: {other:?}"),
            }
        }
    }

    pub(super) async fn control(&mut self) -> bytes::Bytes {
        loop {
            match self.next().await {
                NetEvent::Control { frame, .. } => return frame,
                NetEvent::DialFailed { reason, .. } if reason == "already connected" => {}
                other => panic!("Control expected: {other:?}"),
            }
        }
    }

    pub(super) async fn bulk(&mut self) -> (bytes::Bytes, bytes::Bytes) {
        match self.next().await {
            NetEvent::Bulk { header, body, .. } => (header, body),
            other => panic!("Bulk expected: {other:?}"),
        }
    }
}

/// A message that was asked for, of the first flow.
pub(super) fn message(header: &'static [u8], body: impl Into<bytes::Bytes>) -> BulkMessage {
    BulkMessage { flow: Flow(0), header: header.into(), body: body.into(), is_push: false }
}

/// Two connected peers of one organisation; the first has dialed.
pub(super) async fn pair(
    adjust_first: impl FnOnce(&mut NetConfig),
    adjust_second: impl FnOnce(&mut NetConfig),
) -> (Peer, Peer) {
    let organization = organization("Org1MSP");
    let mut first = Peer::start(&organization, "peer0", &[&organization], adjust_first);
    let mut second = Peer::start(&organization, "peer1", &[&organization], adjust_second);
    first.net.dial(second.endpoint());
    first.connected().await;
    second.connected().await;
    (first, second)
}

/// Waits until `condition` holds.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "in time: {what}");
}
