//! Forged alive records and leadership messages, by the thousand, against a whole node with real certificates of both kinds: none is
//! accepted, nothing is kept, and whoever sends what nobody honest can send is penalised.
//!
//! `make test-forgeries` makes a hundred thousand tries for each kind of key; `make test` fewer.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::authority::{Authority, Credential};
use grapevine_channels::block::AuthenticBlock;
use grapevine_channels::dissemination::{DisseminationConfig, DisseminationMode};
use grapevine_channels::election::{COUNTER_JUMP_MAX, ElectionConfig};
use grapevine_channels::isolation::{Scope, TAG_SIZE, proof};
use grapevine_channels::membership::{ALIVE_TAG, INTERNAL_TAG, MembershipConfig};
use grapevine_channels::node::{ChannelSetup, Input, Node, NodeConfig, Output, Start};
use grapevine_channels::reconciliation::ReconciliationConfig;
use grapevine_channels::time::Time;
use grapevine_channels::wire::{
    Alive, ChannelBody, ChannelFrame, Frame, FrameBody, Joined, Leadership, LeadershipKind, SignedAlive,
    SignedInternalEndpoint,
};
use grapevine_crypto::issue::{Organization, Validity};
use grapevine_crypto::{Algorithm, Digest, Identity, Msp, PkiId, Role, Signer, sha256};
use prost::Message;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

const NOW_S: i64 = 1_800_000_000;
const VALIDITY: Validity = Validity { not_before: NOW_S - 86_400, not_after: NOW_S + 86_400 };
const OUR: &str = "Org1MSP";
const SHARED: &str = "Org2MSP";
const STRANGE: &str = "Org9MSP";
/// Of the connections there are, and of those that were there before a restart.
const SESSION: [u8; 32] = [7; 32];
const FORMER_SESSION: [u8; 32] = [6; 32];

fn tries() -> usize {
    if std::env::var_os("GRAPEVINE_EXHAUSTIVE").is_some() { 100_000 } else { 4_000 }
}

/// X.509, as a peer uses it.
#[derive(Debug)]
struct Certificates {
    signer: Signer,
    msps: Vec<Msp>,
}

impl Certificates {
    fn find(&self, serialized: &[u8]) -> Option<Identity> {
        self.msps.iter().find_map(|msp| msp.identify(serialized).ok())
    }
}

fn credential(identity: &Identity) -> Credential {
    let certificate = identity.certificate();
    Credential {
        pki_id: identity.pki_id(),
        msp_id: identity.msp_id().clone(),
        name: certificate.subject_common_name().unwrap_or_default().to_owned(),
        not_before: certificate.not_before(),
        not_after: certificate.not_after(),
        serial: certificate.serial().to_vec(),
        serialized: Bytes::copy_from_slice(identity.serialized()),
    }
}

impl Authority for Certificates {
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.signer.sign(message)
    }

    fn identify(&self, serialized: &[u8], unix_seconds: i64) -> Result<Credential, String> {
        let identity = self.find(serialized).ok_or("of no organisation here")?;
        if identity.role() != Some(Role::Peer) || identity.expired_at(unix_seconds) {
            return Err("no peer, or expired".into());
        }
        Ok(credential(&identity))
    }

    fn verify(&self, credential: &Credential, message: &[u8], signature: &[u8]) -> bool {
        self.find(&credential.serialized).is_some_and(|identity| identity.verify(message, signature).is_ok())
    }
}

/// A member, and the records it has signed so far.
struct Party {
    signer: Signer,
    credential: Credential,
    records: Vec<SignedAlive>,
}

impl Party {
    fn new(organization: &Organization, name: &str, role: Role, validity: Validity) -> Self {
        let signer = organization.enrol(name, role, validity).unwrap();
        Self { credential: credential(signer.identity()), signer, records: Vec::new() }
    }

    fn id(&self) -> PkiId {
        self.credential.pki_id
    }

    fn alive(&self, incarnation: u64, sequence: u64) -> Alive {
        Alive {
            network_id: "test".into(),
            identity_digest: sha256(&self.credential.serialized).0.to_vec(),
            peer_id: self.credential.name.clone().into_bytes(),
            external_endpoint: format!("{}.external:1", self.credential.name),
            incarnation,
            sequence,
        }
    }

    /// Signs whatever it is given, with the identity that is given.
    fn sign(&self, alive: &Alive, identity: &Bytes) -> SignedAlive {
        let payload: Bytes = alive.encode_to_vec().into();
        let endpoint = format!("{}.internal:1", self.credential.name);
        let message = [INTERNAL_TAG, &sha256(&payload).0, endpoint.as_bytes()].concat();
        SignedAlive {
            signature: self.signer.sign(&[ALIVE_TAG, payload.as_ref()].concat()).into(),
            payload,
            identity: identity.clone(),
            internal: Some(SignedInternalEndpoint { endpoint, signature: self.signer.sign(&message).into() }),
        }
    }

    fn record(&self, incarnation: u64, sequence: u64) -> SignedAlive {
        self.sign(&self.alive(incarnation, sequence), &self.credential.serialized)
    }
}

struct World {
    node: Node,
    now: Time,
    /// Connected, live, of our organisation and in the channel.
    members: Vec<Party>,
    /// Connected, of our organisation, not in the channel.
    outside: Party,
    /// Connected, in the channel, of another organisation.
    foreign: Party,
    /// Whose records nobody may believe: a stranger, one with the wrong role, one that has expired.
    unbelieved: Vec<Party>,
    rng: ChaCha8Rng,
}

fn channel(name: &str) -> ChannelId {
    name.parse().unwrap()
}

fn genesis(name: &str) -> Digest {
    sha256(name.as_bytes())
}

fn tag(channel: &str, session: &[u8; 32], sender: &PkiId) -> Vec<u8> {
    proof(&genesis(channel), session, sender)[..TAG_SIZE].to_vec()
}

fn config() -> NodeConfig {
    let second = Duration::from_secs(1);
    NodeConfig {
        membership: MembershipConfig {
            network_id: "test".into(),
            internal_endpoint: "peer0.internal:1".into(),
            external_endpoint: "peer0.external:1".into(),
            bootstrap: vec![],
            alive_interval: second,
            alive_expiration: 5 * second,
            reconnect_interval: second,
            fanout: 3,
            connections_max: 100,
        },
        election: ElectionConfig {
            use_leader_election: true,
            org_leader: false,
            startup_grace_period: second,
            membership_sample_interval: second,
            leader_alive_threshold: 3_600 * second,
            leader_election_duration: second,
        },
        dissemination: DisseminationConfig {
            mode: DisseminationMode::Grapevine,
            propagate_peer_num: 3,
            pull_interval: second,
            pull_peer_num: 3,
            link_bits_per_second: 1_000_000_000,
        },
        dissemination_modes: BTreeMap::new(),
        reconciliation: ReconciliationConfig {
            enabled: true,
            check_interval: second,
            response_timeout: 3 * second,
            batch_size: 10,
            max_retries: 3,
        },
        block_buffer_size: 64,
        max_block_count_to_store: 10,
        halt_on_equivocation: false,
        publish_state_info_interval: second,
    }
}

impl World {
    /// A node that knows its members and follows the first of them.
    fn new(algorithm: Algorithm) -> Self {
        let organization = |msp_id: &str| {
            let domain = format!("{}.example.com", msp_id.to_lowercase());
            Organization::new(msp_id.into(), &domain, algorithm, VALIDITY).unwrap()
        };
        let (ours, shared, strange) = (organization(OUR), organization(SHARED), organization(STRANGE));
        let own = ours.enrol("peer0", Role::Peer, VALIDITY).unwrap();
        let start = Start {
            own: credential(own.identity()),
            peer_id: vec![1],
            incarnation: 1,
            wall_ms: NOW_S * 1_000,
            seed: 1,
        };
        let authority = Certificates { signer: own, msps: vec![ours.msp().unwrap(), shared.msp().unwrap()] };
        let mut node = Node::new(config(), start, Box::new(authority), Time::ZERO);
        for (name, organizations) in [("trade", &[OUR, SHARED][..]), ("audit", &[OUR])] {
            let genesis_hash = genesis(name);
            let organizations: BTreeSet<_> = organizations.iter().map(|msp_id| (*msp_id).into()).collect();
            let scope = Scope { genesis_hash, organizations, former: BTreeMap::new() };
            let tip = AuthenticBlock::simulated(0, Digest([0; 32]), 100).hash();
            let setup =
                ChannelSetup { channel: channel(name), scope, anchors: BTreeMap::new(), height: 1, tip };
            node.handle(Time::ZERO, Input::Join(setup));
        }
        let peer =
            |organization: &Organization, name: &str| Party::new(organization, name, Role::Peer, VALIDITY);
        let ended = Validity { not_before: NOW_S - 86_400, not_after: NOW_S - 1 };
        let mut world = Self {
            node,
            now: Time::from_millis(1),
            members: (1..5).map(|index| peer(&ours, &format!("peer{index}"))).collect(),
            outside: peer(&ours, "outside"),
            foreign: peer(&shared, "peer0"),
            unbelieved: vec![
                peer(&strange, "peer1"),
                Party::new(&ours, "peer1", Role::Client, VALIDITY),
                Party::new(&ours, "peer1", Role::Peer, ended),
            ],
            rng: ChaCha8Rng::seed_from_u64(7),
        };
        world.connect_all();
        world
    }

    fn connect_all(&mut self) {
        for index in 0..self.members.len() {
            let records: Vec<SignedAlive> = [(1, 9), (2, 3), (3, 1), (3, 2)]
                .map(|(start, count)| self.members[index].record(start, count))
                .into();
            let newest = records[3].clone();
            let member = &mut self.members[index];
            member.records = records;
            let credential = member.credential.clone();
            self.connect(credential, &["trade"]);
            let id = self.members[index].id();
            self.send(id, FrameBody::Alive(newest));
        }
        self.connect(self.outside.credential.clone(), &[]);
        self.connect(self.foreign.credential.clone(), &["trade"]);
        self.outputs();
        let leader = self.members[0].id();
        let declaration = self.leadership("trade", &SESSION, &leader, LeadershipKind::Declaration, 5);
        self.control(leader, declaration);
        assert_eq!(self.node.leader(&channel("trade")).unwrap().leader, leader, "it follows the true leader");
        self.outputs();
    }

    fn connect(&mut self, credential: Credential, channels: &[&str]) {
        let peer = credential.pki_id;
        self.node.handle(self.now, Input::Connected { credential, session: SESSION, endpoint: None });
        let proofs = channels.iter().map(|name| proof(&genesis(name), &SESSION, &peer).to_vec()).collect();
        self.send(peer, FrameBody::Joined(Joined { proofs }));
    }

    fn send(&mut self, peer: PkiId, body: FrameBody) {
        self.control(peer, Frame { body: Some(body) }.encode_to_vec().into());
    }

    fn control(&mut self, peer: PkiId, frame: Bytes) {
        self.node.handle(self.now, Input::Control { peer, frame });
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.node.poll_output()).collect()
    }

    fn leadership(
        &self,
        name: &str,
        session: &[u8; 32],
        sender: &PkiId,
        kind: LeadershipKind,
        counter: u64,
    ) -> Bytes {
        let message =
            Leadership { kind: kind.into(), counter, height: 1, contact: 2, ..Leadership::default() };
        let frame =
            ChannelFrame { tag: tag(name, session, sender), body: Some(ChannelBody::Leadership(message)) };
        Frame { body: Some(FrameBody::Channel(frame)) }.encode_to_vec().into()
    }

    /// All that an accepted record or leadership message could change.
    fn state(&self) -> String {
        let membership = self.node.membership();
        let members: Vec<String> = membership
            .members()
            .values()
            .map(|member| {
                let endpoints = (&member.external_endpoint, &member.internal_endpoint);
                format!("{:?} {:?} {:?} {endpoints:?}", member.credential.pki_id, member.state, member.order)
            })
            .collect();
        let leaders = ["trade", "audit"]
            .map(|name| (self.node.leader_account(&channel(name)), self.node.is_leader(&channel(name))));
        format!("{members:?} {leaders:?}")
    }

    fn flipped(&mut self, bytes: &Bytes) -> Bytes {
        let mut changed = bytes.to_vec();
        let place = self.rng.random_range(0..changed.len());
        changed[place] ^= 1 << self.rng.random_range(0..8);
        changed.into()
    }

    fn cut(&mut self, bytes: &Bytes) -> Bytes {
        bytes.slice(..self.rng.random_range(0..bytes.len()))
    }

    /// An alive record that must not be believed, and whether only a misbehaving sender can have sent it.
    fn forged_record(&mut self, attempt: usize, next: &[SignedAlive]) -> (SignedAlive, bool) {
        let victim = self.rng.random_range(0..self.members.len());
        let other = (victim + 1) % self.members.len();
        let next = next[victim].clone();
        let (party, thief) = (&self.members[victim], &self.members[other]);
        match attempt % 12 {
            // Replayed, from this start of the victim and former ones.
            0 | 1 => {
                let records = party.records.clone();
                (records[self.rng.random_range(0..records.len())].clone(), false)
            }
            2 => (SignedAlive { payload: self.flipped(&next.payload), ..next }, false),
            3 => (SignedAlive { signature: self.flipped(&next.signature), ..next }, true),
            4 => (SignedAlive { identity: self.flipped(&next.identity), ..next }, true),
            5 => (SignedAlive { payload: self.cut(&next.payload), ..next }, false),
            6 => (SignedAlive { signature: self.cut(&next.signature), ..next }, true),
            // Another network's.
            7 => {
                let alive = Alive { network_id: "other".into(), ..party.alive(9, 9) };
                (party.sign(&alive, &party.credential.serialized), true)
            }
            // In the victim's name, signed by another member.
            8 => (thief.sign(&party.alive(9, 9), &party.credential.serialized), true),
            // Of one without the right to be a peer here, under its own name, which may be the victim's.
            9 => {
                let unbelieved = &self.unbelieved[attempt / 12 % self.unbelieved.len()];
                (unbelieved.record(9, 9), false)
            }
            // The victim's record with the thief's certificate.
            10 => (SignedAlive { identity: thief.credential.serialized.clone(), ..next }, true),
            // Another address, under the signature for the right one.
            _ => {
                let endpoint = format!("evil{attempt}.internal:1");
                let signature = next.internal.as_ref().map(|own| own.signature.clone()).unwrap_or_default();
                (SignedAlive { internal: Some(SignedInternalEndpoint { endpoint, signature }), ..next }, true)
            }
        }
    }

    /// A leadership message that must not be heard, its sender, and whether that is to be penalised.
    fn forged_leadership(&mut self, attempt: usize) -> (PkiId, Bytes, bool) {
        let kinds = [
            LeadershipKind::Proposal,
            LeadershipKind::Declaration,
            LeadershipKind::Resignation,
            LeadershipKind::Notice,
            LeadershipKind::Query,
            LeadershipKind::Vacancy,
        ];
        let kind = kinds[self.rng.random_range(0..kinds.len())];
        let counter = self.rng.random_range(1..1_000);
        let member = self.members[self.rng.random_range(0..self.members.len())].id();
        let (outside, foreign) = (self.outside.id(), self.foreign.id());
        match attempt % 8 {
            // Of a member of the channel in another organisation.
            0 => (foreign, self.leadership("trade", &SESSION, &foreign, kind, counter), true),
            // Of a peer of this organisation that is not in the channel.
            1 => (outside, self.leadership("trade", &SESSION, &outside, kind, counter), false),
            // Replayed from a former connection, before a restart.
            2 => (member, self.leadership("trade", &FORMER_SESSION, &member, kind, counter), false),
            // To another channel.
            3 => (member, self.leadership("audit", &SESSION, &member, kind, counter), false),
            // Replayed by a peer that saw it on its own connection.
            4 => (outside, self.leadership("trade", &SESSION, &member, kind, counter), false),
            // Of another network: its channel of that name has another genesis block.
            5 => {
                (member, self.leadership("trade of another network", &SESSION, &member, kind, counter), false)
            }
            // Cut short.
            6 => {
                let whole = self.leadership("trade", &SESSION, &member, kind, counter);
                (member, self.cut(&whole), true)
            }
            // A counter that would end all elections.
            _ => {
                let counter = self.rng.random_range(COUNTER_JUMP_MAX + 1_001..u64::MAX);
                (member, self.leadership("trade", &SESSION, &member, kind, counter), false)
            }
        }
    }

    /// What a forgery may lead to: a penalty, or a question for an identity nobody knows.
    fn penalised(&mut self, what: &str) -> bool {
        let mut penalised = false;
        for output in self.outputs() {
            match output {
                Output::Penalise { .. } => penalised = true,
                Output::SendControl { frame, .. } => match Frame::parse(frame).unwrap() {
                    FrameBody::IdentityRequest(_) => {}
                    other => panic!("{what} led to {other:?}"),
                },
                other => panic!("{what} led to {other:?}"),
            }
        }
        penalised
    }
}

fn no_record_is_believed(algorithm: Algorithm) {
    let mut world = World::new(algorithm);
    let next: Vec<SignedAlive> = world.members.iter().map(|member| member.record(3, 3)).collect();
    let before = world.state();
    let mut penalties = 0;
    for attempt in 0..tries() {
        let (forged, is_misbehaviour) = world.forged_record(attempt, &next);
        let sender = world.members[world.rng.random_range(0..world.members.len())].id();
        world.send(sender, FrameBody::Alive(forged));
        let what = format!("record {attempt} of kind {}", attempt % 12);
        let penalised = world.penalised(&what);
        penalties += usize::from(penalised);
        assert!(penalised || !is_misbehaviour, "{what} is not penalised");
        assert!(!penalised || !matches!(attempt % 12, 0 | 1 | 9), "{what} may come from honest peers");
        if attempt % 64 == 0 {
            assert_eq!(world.state(), before, "{what}");
        }
    }
    assert_eq!(world.state(), before);
    assert!(penalties > tries() / 2);
    // The node still listens: what is true is believed.
    let sender = world.members[0].id();
    world.send(sender, FrameBody::Alive(next[0].clone()));
    assert_ne!(world.state(), before);
}

fn no_leadership_is_heard(algorithm: Algorithm) {
    let mut world = World::new(algorithm);
    let before = world.state();
    for attempt in 0..tries() {
        let (sender, frame, is_misbehaviour) = world.forged_leadership(attempt);
        world.control(sender, frame);
        let what = format!("leadership message {attempt} of kind {}", attempt % 8);
        assert_eq!(world.penalised(&what), is_misbehaviour, "{what}");
        assert_eq!(world.state(), before, "{what}");
    }
    let rival = world.members[1].id();
    let frame = world.leadership("trade", &SESSION, &rival, LeadershipKind::Declaration, 1_000);
    world.control(rival, frame);
    assert_ne!(world.state(), before, "a true one is heard");
}

#[test]
fn no_forged_record_is_believed_with_ed25519() {
    no_record_is_believed(Algorithm::Ed25519);
}

#[test]
fn no_forged_record_is_believed_with_ecdsa() {
    no_record_is_believed(Algorithm::EcdsaP256);
}

#[test]
fn no_forged_leadership_message_is_heard() {
    no_leadership_is_heard(Algorithm::Ed25519);
}
