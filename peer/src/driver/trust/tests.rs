//! Who may connect and whose records count: certificates that have expired, authorities that a config drops.

use std::collections::BTreeMap;

use grapevine_channels::block::Block;
use grapevine_channels::certificates::CertificateClock;
use grapevine_channels::genesis::{ApplicationOrg, GenesisBuilder, OrdererOrg};
use grapevine_channels::membership::{Membership, MembershipConfig, MembershipOutput};
use grapevine_channels::time::Time;
use grapevine_channels::wire::SignedAlive;
use grapevine_crypto::issue::{Organization, Validity};
use grapevine_crypto::proto::FabricMspConfig;
use grapevine_crypto::{Algorithm, Digest, Signer};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::*;

const HOUR: i64 = 3600;

fn unix_seconds_now() -> i64 {
    wall_ms() / 1_000
}

/// Certificates and authorities are valid from a day ago; `lasting` is how long from now.
fn until(lasting: i64) -> Validity {
    let now = unix_seconds_now();
    Validity { not_before: now - 24 * HOUR, not_after: now + lasting }
}

fn organization(name: &str) -> Organization {
    let domain = format!("{}.example.com", name.to_lowercase());
    Organization::new(MspId::from(name), &domain, Algorithm::Ed25519, until(10_000 * HOUR)).unwrap()
}

/// Two organisations in one channel.
struct World {
    own: Organization,
    other: Organization,
}

impl World {
    fn new() -> Self {
        Self { own: organization("Org1MSP"), other: organization("Org2MSP") }
    }

    fn enrol(&self, organization: &Organization, name: &str, lasting: i64) -> Signer {
        organization.enrol(name, Role::Peer, until(lasting)).unwrap()
    }

    /// The channel's config with this MSP of the other organisation.
    fn config(&self, other: FabricMspConfig) -> Arc<ChannelConfig> {
        let member =
            |msp: FabricMspConfig| ApplicationOrg { name: msp.name.clone(), msp, anchor_peers: Vec::new() };
        let orderers = organization("OrdererMSP").msp_config();
        let endpoints = vec!["orderer.example.com:7050".into()];
        let genesis: Block = GenesisBuilder::new("trade".parse().unwrap(), [1; 24], unix_seconds_now())
            .orderer_org(OrdererOrg { name: "OrdererMSP".into(), msp: orderers, endpoints })
            .application_org(member(self.own.msp_config()))
            .application_org(member(other))
            .build()
            .unwrap();
        Arc::new(ChannelConfig::from_block(&genesis).unwrap())
    }

    /// Trust as a peer of `organization` has it in the channel.
    fn trust(&self, organization: &Organization, signer: Signer) -> Trust {
        let trust = Trust::new(LocalMsp { msp: organization.msp().unwrap(), signer });
        trust.enter(self.config(self.other.msp_config()), BTreeMap::new());
        trust
    }
}

#[test]
fn a_peer_whose_certificate_has_expired_may_not_connect() {
    let world = World::new();
    let trust = world.trust(&world.own, world.enrol(&world.own, "peer0", HOUR));
    for organization in [&world.own, &world.other] {
        let valid = world.enrol(organization, "peer1", HOUR);
        let expired = world.enrol(organization, "peer1", -1);
        assert_eq!(trust.admit(valid.serialized()).unwrap().pki_id(), expired.identity().pki_id());
        let refused = trust.admit(expired.serialized()).unwrap_err();
        assert!(refused.contains("expired"), "{refused}");
    }
}

/// Connections are judged again and again by the same check, at certificate time.
#[test]
fn a_connected_peer_is_refused_once_its_certificate_expires() {
    let world = World::new();
    let trust = world.trust(&world.own, world.enrol(&world.own, "peer0", 100 * HOUR));
    let peer = world.enrol(&world.other, "peer1", HOUR);
    assert!(trust.check(peer.serialized()).is_ok());
    trust.correct(trust.zero_ms() + 2 * HOUR * 1_000);
    assert!(trust.check(peer.serialized()).unwrap_err().contains("expired"));
}

/// The membership machine of a peer, with its authority.
struct Member {
    machine: Membership,
    authority: TrustAuthority,
}

impl Member {
    fn new(trust: Trust) -> Self {
        let second = Duration::from_secs(1);
        let config = MembershipConfig {
            network_id: "test".into(),
            internal_endpoint: "peer.internal:1".into(),
            external_endpoint: "peer.external:1".into(),
            bootstrap: vec![],
            alive_interval: second,
            alive_expiration: 5 * second,
            reconnect_interval: second,
            fanout: 3,
            connections_max: 100,
        };
        let own = credential(&trust.identity());
        let rng = ChaCha8Rng::seed_from_u64(1);
        let machine = Membership::new(
            config,
            own,
            vec![1; 32],
            1,
            CertificateClock::new(Time::ZERO, trust.zero_ms()),
            Time::ZERO,
            rng,
        );
        Self { machine, authority: TrustAuthority(Arc::new(trust)) }
    }

    fn identity(&self) -> Identity {
        self.authority.0.identity()
    }

    /// Meets another peer; gives the records that go to it.
    fn meet(&mut self, other: &Identity) -> Vec<SignedAlive> {
        let organization = other.msp_id().clone();
        self.machine.handle_connected(Time::ZERO, other.pki_id(), organization, None, &self.authority);
        std::iter::from_fn(|| self.machine.poll_output())
            .filter_map(|output| match output {
                MembershipOutput::SendView { records, .. } => Some(records),
                _ => None,
            })
            .flatten()
            .collect()
    }
}

#[test]
fn records_of_members_with_expired_certificates_are_refused() {
    let world = World::new();
    for (lasting, taken) in [(HOUR, true), (-1, false)] {
        let mut one = Member::new(world.trust(&world.own, world.enrol(&world.own, "peer0", HOUR)));
        let mut two = Member::new(world.trust(&world.other, world.enrol(&world.other, "peer1", lasting)));
        let records = two.meet(&one.identity());
        assert!(!records.is_empty());
        let relay = PkiId::new(world.own.msp_id(), "relay");
        one.machine.handle_records(Time::ZERO, relay, records, &one.authority);
        assert_eq!(one.machine.member(&two.identity().pki_id()).is_some(), taken);
        assert_eq!(one.machine.counters().records_rejected > 0, !taken);
    }
}

#[test]
fn an_authority_that_a_config_drops_takes_its_members_along() {
    let world = World::new();
    let trust = world.trust(&world.own, world.enrol(&world.own, "peer0", HOUR));
    let successor = organization("Org2MSP");
    let (former, new) = (world.enrol(&world.other, "peer1", HOUR), world.enrol(&successor, "peer2", HOUR));
    assert!(trust.admit(former.serialized()).is_ok() && trust.admit(new.serialized()).is_err());

    let mut both = successor.msp_config();
    both.root_certs.extend(world.other.msp_config().root_certs);
    both.fabric_node_ous = None;
    both.admins = vec![new.identity().certificate().pem().to_vec()];
    let last = |number| LastBlock { number, hash: Digest([1; 32]) };
    trust.reconfigure(&world.config(both), last(1));
    assert!(trust.admit(former.serialized()).is_ok() && trust.admit(new.serialized()).is_ok());

    trust.reconfigure(&world.config(successor.msp_config()), last(2));
    assert!(trust.admit(former.serialized()).is_err() && trust.admit(new.serialized()).is_ok());
    let authority = TrustAuthority(Arc::new(trust));
    let (message, former_credential) = (b"alive", credential(former.identity()));
    assert!(!authority.verify(&former_credential, message, &former.sign(message)));
    assert!(authority.verify(&credential(new.identity()), message, &new.sign(message)));
}
