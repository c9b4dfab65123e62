//! Records in, members and outputs out; forged, stale and foreign ones change nothing.

mod detection;

use super::*;
use crate::authority::ToyAuthority;
use crate::wire::{Alive, SignedInternalEndpoint, ViewList};
use prost::Message;
use rand::SeedableRng;
use record::sign;

const ORGANIZATIONS: &[&str] = &["Org1MSP", "Org2MSP"];

fn at(milliseconds: u64) -> Time {
    Time::from_millis(milliseconds)
}

struct Host {
    machine: Membership,
    authority: ToyAuthority,
}

impl Host {
    fn new(organization: &str, name: &str) -> Self {
        Self::incarnate(organization, name, 1)
    }

    fn incarnate(organization: &str, name: &str, incarnation: u64) -> Self {
        let config = MembershipConfig {
            network_id: "test".into(),
            internal_endpoint: format!("{name}.internal:1"),
            external_endpoint: format!("{name}.external:1"),
            bootstrap: vec![],
            alive_interval: Duration::from_secs(1),
            alive_expiration: Duration::from_secs(5),
            reconnect_interval: Duration::from_secs(1),
            fanout: 3,
            connections_max: 100,
        };
        Self::with(config, organization, name, incarnation)
    }

    fn with(config: MembershipConfig, organization: &str, name: &str, incarnation: u64) -> Self {
        let own = ToyAuthority::credential(organization, name);
        let rng = ChaCha8Rng::seed_from_u64(1);
        let peer_id = name.as_bytes().to_vec();
        Self {
            machine: Membership::new(
                config,
                own,
                peer_id,
                incarnation,
                CertificateClock::new(Time::ZERO, 1_000_000),
                Time::ZERO,
                rng,
            ),
            authority: ToyAuthority::new(organization, name, ORGANIZATIONS),
        }
    }

    fn id(&self) -> PkiId {
        self.machine.own.pki_id
    }

    fn record(&mut self) -> SignedAlive {
        let record = self.machine.renew(&self.authority);
        with_identity(&record, &self.machine.own.serialized)
    }

    fn take(&mut self, now: Time, from: &Self, record: SignedAlive) {
        self.machine.handle_records(now, from.id(), vec![record], &self.authority);
    }

    fn connect(&mut self, now: Time, to: &Self) -> Vec<SignedAlive> {
        let organization = to.machine.own.msp_id.clone();
        self.machine.handle_connected(now, to.id(), organization, None, &self.authority);
        self.outputs()
            .into_iter()
            .filter_map(|output| match output {
                MembershipOutput::SendView { peer, records } if peer == to.id() => Some(records),
                _ => None,
            })
            .flatten()
            .collect()
    }

    fn outputs(&mut self) -> Vec<MembershipOutput> {
        std::iter::from_fn(|| self.machine.poll_output()).collect()
    }

    fn tick(&mut self, now: Time) -> Vec<MembershipOutput> {
        self.machine.handle_timeout(now, &self.authority);
        self.outputs()
    }

    /// Lets time pass until an output is the one waited for, and gives all outputs until then.
    fn run_until(
        &mut self,
        from: Time,
        until: Time,
        stop: impl Fn(&MembershipOutput) -> bool,
    ) -> (Time, Vec<MembershipOutput>) {
        let (mut now, mut outputs) = (from, Vec::new());
        while let Some(due) = self.machine.next_deadline().filter(|due| *due <= until) {
            now = due.max(now);
            outputs.extend(self.tick(now));
            if outputs.iter().any(&stop) {
                return (now, outputs);
            }
        }
        (until.max(now), outputs)
    }

    fn state(&self, other: &Self) -> Option<MemberState> {
        self.machine.member(&other.id()).map(|member| member.state)
    }
}

fn resign(record: &SignedAlive, as_host: &Host, change: impl FnOnce(&mut Alive)) -> SignedAlive {
    let mut alive = Alive::decode(record.payload.clone()).unwrap();
    change(&mut alive);
    let mut signed = sign(&alive, "moved.internal:1", &as_host.authority);
    signed.identity = record.identity.clone();
    signed
}

#[test]
fn alive_dead_and_back_again() {
    let (mut one, mut two) = (Host::new("Org1MSP", "peer0"), Host::new("Org1MSP", "peer1"));
    let record = two.record();
    one.take(at(0), &two, record.clone());
    assert_eq!(one.state(&two), Some(MemberState::Alive));
    assert!(one.outputs().contains(&MembershipOutput::Alive(two.id())));
    let (died, outputs) =
        one.run_until(at(0), at(4_000), |output| *output == MembershipOutput::Dead(two.id()));
    assert!(outputs.contains(&MembershipOutput::Suspect(two.id())), "suspect before dead");
    assert_eq!(one.state(&two), Some(MemberState::Dead));
    one.take(died, &two, record);
    assert_eq!(one.state(&two), Some(MemberState::Dead), "a replay wakes nobody");
    let newer = two.record();
    one.take(died, &two, newer);
    assert_eq!(one.state(&two), Some(MemberState::Alive));
    assert!(one.outputs().contains(&MembershipOutput::Alive(two.id())));
}

/// What a peer of an own or foreign organisation is sent when it knows nobody.
fn told(one: &mut Host, to: &Host) -> Vec<SignedAlive> {
    one.connect(at(1), to);
    let list = ViewList { first: 0, last: u64::MAX, entries: Bytes::new() };
    one.machine.handle_view_list(to.id(), &list, &one.authority);
    let views = one.outputs().into_iter().filter_map(|output| match output {
        MembershipOutput::SendView { records, .. } => Some(records),
        _ => None,
    });
    views.flatten().collect()
}

#[test]
fn forged_records_change_nothing() {
    let (mut one, mut two) = (Host::new("Org1MSP", "peer0"), Host::new("Org1MSP", "peer1"));
    let other = Host::new("Org1MSP", "peer2");
    let stranger = Host::new("Org9MSP", "peer0");
    let good = two.record();
    let mut forgeries = vec![
        ("signed by another member", resign(&good, &other, |_| {})),
        (
            "payload changed",
            SignedAlive { payload: resign(&good, &two, |a| a.sequence += 1).payload, ..good.clone() },
        ),
        ("signature cut", SignedAlive { signature: good.signature.slice(1..), ..good.clone() }),
        ("no signature", SignedAlive { signature: Bytes::new(), ..good.clone() }),
        ("another network", resign(&good, &two, |alive| alive.network_id = "other".into())),
        ("identity swapped", SignedAlive { identity: other.machine.own.serialized.clone(), ..good.clone() }),
        ("bad endpoint", resign(&good, &two, |alive| alive.external_endpoint = "nowhere".into())),
        ("bad digest", resign(&good, &two, |alive| alive.identity_digest = vec![1])),
        ("long peer id", resign(&good, &two, |alive| alive.peer_id = vec![0; 65])),
        ("garbage", SignedAlive { payload: Bytes::from_static(&[0xff; 40]), ..good.clone() }),
    ];
    let mut moved = good.clone();
    moved.internal = Some(SignedInternalEndpoint {
        endpoint: "evil.internal:1".into(),
        signature: good.internal.as_ref().unwrap().signature.clone(),
    });
    forgeries.push(("internal endpoint changed", moved));
    let mut transplanted = two.record();
    transplanted.internal = good.internal.clone();
    forgeries.push(("internal endpoint of another record", transplanted));
    let mut foreign = Host::new("Org9MSP", "peer0");
    forgeries.push(("foreign authority", foreign.record()));
    for (name, forgery) in forgeries {
        one.take(at(1), &stranger, forgery);
        assert!(one.machine.members.is_empty(), "{name}");
        let outputs = one.outputs();
        let penalised =
            matches!(&outputs[..], [MembershipOutput::Misbehaved { peer, .. }] if *peer == stranger.id());
        assert!(penalised || (name == "foreign authority" && outputs.is_empty()), "{name}: {outputs:?}");
    }
    assert_eq!(one.machine.counters().records_rejected, 13);
}

#[test]
fn stale_records_change_nothing() {
    let (mut one, mut two) = (Host::new("Org1MSP", "peer0"), Host::new("Org1MSP", "peer1"));
    let (first, second) = (two.record(), two.record());
    one.take(at(0), &two, second.clone());
    let before = one.machine.members.clone();
    one.outputs();
    for stale in [first, second] {
        one.take(at(3_000), &two, stale);
    }
    assert_eq!(one.machine.counters().records_stale, 2);
    assert_eq!(one.machine.members[&two.id()].last_seen, before[&two.id()].last_seen);
    assert_eq!(one.outputs(), vec![]);
    let mut restarted = Host::incarnate("Org1MSP", "peer1", 2);
    let newer = restarted.record();
    one.take(at(3_001), &two, newer);
    assert_eq!(one.machine.members[&two.id()].order.incarnation, 2);
}

#[test]
fn a_renewed_certificate_keeps_the_member_and_outdates_the_old_one() {
    let (mut one, mut two) = (Host::new("Org1MSP", "peer0"), Host::incarnate("Org1MSP", "peer1", 50));
    let old = two.record();
    one.take(at(0), &two, old);
    let late = two.record();
    two.machine.own = ToyAuthority::renewed("Org1MSP", "peer1", 900);
    two.machine.incarnation = 1;
    let own = two.machine.own.clone();
    let alive = Alive {
        identity_digest: record::identity_digest(&own.serialized).to_vec(),
        ..Alive::decode(late.payload.clone()).unwrap()
    };
    let payload: Bytes = Alive { incarnation: 1, ..alive }.encode_to_vec().into();
    let message = [ALIVE_TAG, &payload].concat();
    let signature = grapevine_crypto::sha256_of([own.serialized.as_ref(), &message]).0.to_vec().into();
    let renewed = SignedAlive { payload, signature, identity: own.serialized, internal: None };
    one.take(at(1), &two, renewed);
    assert_eq!(one.machine.members.len(), 1);
    assert_eq!(one.machine.members[&two.id()].order.certificate.not_before, 900);
    one.take(at(2), &two, late);
    assert_eq!(
        one.machine.members[&two.id()].order.certificate.not_before,
        900,
        "the older certificate is refused"
    );
}

#[test]
fn internal_endpoints_stay_inside_and_foreign_peers_see_who_they_may() {
    let mut one = Host::new("Org1MSP", "peer0");
    let (mut own, mut foreign) = (Host::new("Org1MSP", "peer1"), Host::new("Org2MSP", "peer0"));
    let mut third = Host::new("Org3MSP", "peer0");
    third.authority.organizations = ORGANIZATIONS.iter().map(|name| (*name).into()).collect();
    one.authority.organizations.push("Org3MSP".into());
    let mut hidden = Host::new("Org1MSP", "peer2");
    hidden.machine.config.external_endpoint = String::new();
    for host in [&mut own, &mut foreign, &mut third, &mut hidden] {
        let record = host.record();
        one.machine.handle_records(at(0), host.id(), vec![record], &one.authority);
    }
    one.outputs();
    let to_own = told(&mut one, &own);
    assert_eq!(to_own.len(), 5, "self, three others and its own");
    assert!(to_own.iter().filter(|record| record.internal.is_some()).count() >= 2);
    let to_foreign = told(&mut one, &foreign);
    assert!(to_foreign.iter().all(|record| record.internal.is_none()));
    let names: Vec<String> =
        to_foreign.iter().map(|record| String::from_utf8(record.identity.to_vec()).unwrap()).collect();
    assert_eq!(
        names.len(),
        3,
        "self, peer1 and its own; neither the hidden one nor a third organisation: {names:?}"
    );
}

#[test]
fn an_unknown_identity_is_asked_for_and_then_taken() {
    let (mut one, mut two) = (Host::new("Org1MSP", "peer0"), Host::new("Org1MSP", "peer1"));
    one.connect(at(0), &two);
    two.connect(at(0), &one);
    let heartbeat = two.machine.renew(&two.authority);
    one.take(at(1), &two, heartbeat.clone());
    let outputs = one.outputs();
    let [MembershipOutput::AskIdentities { peer, digests }] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(*peer, two.id());
    one.take(at(2), &two, heartbeat);
    assert_eq!(one.outputs(), vec![], "not asked again at once");
    two.machine.handle_identity_request(one.id(), digests, &two.authority);
    let answers = two.outputs();
    let Some(MembershipOutput::SendView { records, .. }) = answers.last() else { panic!("{answers:?}") };
    one.take(at(3), &two, records[0].clone());
    assert_eq!(one.state(&two), Some(MemberState::Alive));
    let heartbeat = two.machine.renew(&two.authority);
    one.take(at(1_000), &two, heartbeat);
    assert_eq!(one.machine.members[&two.id()].last_seen, at(1_000));
}

#[test]
fn new_records_are_passed_on_once_but_never_back() {
    let mut hosts: Vec<Host> = (0..6).map(|index| Host::new("Org1MSP", &format!("peer{index}"))).collect();
    let mut one = hosts.remove(0);
    for host in &hosts {
        one.connect(at(0), host);
    }
    let record = hosts[0].record();
    let ids: Vec<PkiId> = hosts.iter().map(Host::id).collect();
    one.machine.handle_records(at(1), ids[1], vec![record.clone()], &one.authority);
    let sent: Vec<PkiId> = one
        .outputs()
        .iter()
        .filter_map(|output| match output {
            MembershipOutput::SendAlive { peer, .. } => Some(*peer),
            _ => None,
        })
        .collect();
    assert_eq!(sent.len(), 3);
    assert!(!sent.contains(&ids[0]) && !sent.contains(&ids[1]), "neither the subject nor the sender");
    one.machine.handle_records(at(2), ids[2], vec![record], &one.authority);
    assert_eq!(one.outputs(), vec![]);
}

#[test]
fn a_lone_peer_signs_nothing() {
    let mut one = Host::new("Org1MSP", "peer0");
    one.tick(at(0));
    one.tick(at(5_000));
    assert_eq!(one.machine.sequence, 0);
}

#[test]
fn our_own_former_selves_are_outbid_and_a_twin_raises_the_alarm() {
    let mut now = Host::incarnate("Org1MSP", "peer0", 3);
    let mut former = Host::incarnate("Org1MSP", "peer0", 9);
    let relay = Host::new("Org1MSP", "peer1");
    let record = former.record();
    now.take(at(0), &relay, record);
    assert_eq!(now.outputs(), vec![MembershipOutput::PersistIncarnation(10)]);
    let echo = now.record();
    now.take(at(1), &relay, echo);
    assert_eq!(now.outputs(), vec![]);
    // Another relay knows a later life.
    former.machine.incarnation = 11;
    let record = former.record();
    now.take(at(2), &relay, record);
    assert_eq!(now.outputs(), vec![MembershipOutput::PersistIncarnation(12)]);
    for (seconds, incarnation, alarms) in [(20, 15, true), (21, 17, false), (90, 19, true)] {
        former.machine.incarnation = incarnation;
        let record = former.record();
        now.take(at(seconds * 1_000), &relay, record);
        let outputs = now.outputs();
        assert_eq!(outputs[0], MembershipOutput::PersistIncarnation(incarnation + 1));
        let is_alarm = |output: &&MembershipOutput| matches!(output, MembershipOutput::Alarm(text) if text.contains("another process"));
        assert_eq!(outputs.iter().filter(is_alarm).count(), usize::from(alarms), "after {seconds} s");
    }
}

/// A lost disk takes the counter of starts along. Whoever still knows the former self says so on connecting, alive,
/// dead or forgotten.
#[test]
fn a_member_with_a_lost_disk_learns_what_it_has_to_outbid() {
    for silence in [0, 6, 200] {
        let mut other = Host::new("Org1MSP", "peer1");
        let mut former = Host::incarnate("Org1MSP", "peer0", 9);
        let record = former.record();
        other.take(at(0), &former, record);
        other.outputs();
        let now = at(silence * 1_000);
        other.tick(now);
        other.outputs();
        let mut reborn = Host::incarnate("Org1MSP", "peer0", 1);
        other.machine.handle_connected(now, reborn.id(), "Org1MSP".into(), None, &other.authority);
        let told = other.outputs().into_iter().find_map(|output| match output {
            MembershipOutput::SendView { records, .. } => Some(records),
            _ => None,
        });
        reborn.machine.handle_records(now, other.id(), told.unwrap(), &reborn.authority);
        assert!(reborn.outputs().contains(&MembershipOutput::PersistIncarnation(10)), "after {silence} s");
        let record = reborn.record();
        other.take(now, &reborn, record);
        assert_eq!(other.machine.member(&reborn.id()).unwrap().state, MemberState::Alive);
    }
}

#[test]
fn bootstrap_endpoints_are_dialled_until_connected_and_again_when_lost() {
    let mut config = Host::new("Org1MSP", "peer0").machine.config;
    config.bootstrap = vec!["seed:1".into(), config.internal_endpoint.clone()];
    let mut one = Host::with(config, "Org1MSP", "peer0", 1);
    let seed = Host::new("Org1MSP", "peer1");
    let dial = || MembershipOutput::Dial { endpoint: "seed:1".into() };
    assert_eq!(one.tick(at(0)), vec![dial()], "not the own endpoint");
    one.machine.handle_dial_failed(at(10), "seed:1");
    assert_eq!(one.tick(at(1_010)), vec![dial()]);
    one.machine.handle_connected(at(1_020), seed.id(), "Org1MSP".into(), Some("seed:1"), &one.authority);
    one.outputs();
    assert!(!one.tick(at(60_000)).contains(&dial()));
    one.machine.handle_disconnected(at(60_001), seed.id());
    assert!(one.tick(at(60_001)).contains(&dial()));
}

#[test]
fn failed_dials_slow_down_and_go_on_for_ever() {
    let mut config = Host::new("Org1MSP", "peer0").machine.config;
    config.bootstrap = vec!["seed:1".into()];
    let mut one = Host::with(config, "Org1MSP", "peer0", 1);
    let mut dials = Vec::new();
    for second in 0..200 {
        let now = at(second * 1_000);
        if one.tick(now).contains(&MembershipOutput::Dial { endpoint: "seed:1".into() }) {
            dials.push(second);
            one.machine.handle_dial_failed(now, "seed:1");
        }
    }
    let gaps: Vec<u64> = dials.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap <= 8), "{gaps:?}");
    assert!(gaps.iter().rev().take(5).all(|gap| *gap == 8), "{gaps:?}");
}

#[test]
fn the_dead_are_purged_and_stay_purged_under_replay() {
    let (mut one, mut two) = (Host::new("Org1MSP", "peer0"), Host::new("Org1MSP", "peer1"));
    let record = two.record();
    one.take(at(0), &two, record.clone());
    let (died, _) = one.run_until(at(0), at(4_000), |output| *output == MembershipOutput::Dead(two.id()));
    one.run_until(died, died + Duration::from_secs(101), |_| false);
    assert_eq!(one.state(&two), None);
    one.take(at(100_001), &two, record);
    assert_eq!(one.state(&two), None);
    let newer = two.record();
    one.take(at(100_002), &two, newer);
    assert_eq!(one.state(&two), Some(MemberState::Alive));
}

#[test]
fn members_and_questions_are_bounded() {
    let mut one = Host::new("Org1MSP", "peer0");
    let relay = Host::new("Org1MSP", "relay");
    let template = Host::new("Org1MSP", "template").record();
    let unknown: Vec<SignedAlive> = (0..UNKNOWN_MAX as u16 + 10)
        .map(|index| {
            let mut digest = vec![0; 32];
            digest[..2].copy_from_slice(&index.to_be_bytes());
            let record = resign(&template, &relay, |alive| alive.identity_digest = digest);
            SignedAlive { identity: Bytes::new(), ..record }
        })
        .collect();
    for chunk in unknown.chunks(50) {
        one.machine.handle_records(at(0), relay.id(), chunk.to_vec(), &one.authority);
    }
    assert_eq!(one.machine.unknown.len(), UNKNOWN_MAX);
    assert_eq!(one.machine.counters().unknown_over_bound, 10);
    for index in 0..MEMBERS_MAX {
        let member = Host::new("Org1MSP", &format!("member{index}")).record();
        one.machine.handle_records(at(1), relay.id(), vec![member], &one.authority);
        one.outputs();
    }
    let over = Host::new("Org1MSP", "over").record();
    one.machine.handle_records(at(1), relay.id(), vec![over], &one.authority);
    assert_eq!(one.machine.members.len(), MEMBERS_MAX);
    assert_eq!(one.machine.counters().members_over_bound, 1);
}

/// Forged in every way at hand, a hundred thousand times: nothing is accepted, nothing is kept.
#[test]
fn a_hundred_thousand_forged_records_change_nothing() {
    const TRIES: usize = 100_000;
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut one = Host::new("Org1MSP", "peer0");
    let mut members: Vec<Host> =
        (1..8).map(|index| Host::incarnate("Org1MSP", &format!("peer{index}"), 3)).collect();
    let mut seen: Vec<Vec<SignedAlive>> = Vec::new();
    for member in &mut members {
        let records: Vec<SignedAlive> = (0..4).map(|_| member.record()).collect();
        one.take(at(0), member, records[3].clone());
        seen.push(records);
    }
    let stranger = Host::new("Org9MSP", "peer1");
    let before = format!("{:?} {:?} {:?}", one.machine.members, one.machine.tombstones, one.machine.root);
    one.outputs();
    for attempt in 0..TRIES {
        let (victim, other) = (rng.random_range(0..members.len()), rng.random_range(0..members.len()));
        let newest = &seen[victim][3];
        let next = resign(newest, &members[victim], |alive| alive.sequence += 1);
        let forged = match attempt % 10 {
            // Replayed: as it is, and older ones.
            0 => seen[victim][rng.random_range(0..4)].clone(),
            // A bit of a newer payload, its signature or its identity changed on the way.
            1 => SignedAlive { payload: flipped(&next.payload, &mut rng), ..next },
            2 => SignedAlive { signature: flipped(&next.signature, &mut rng), ..next },
            3 => SignedAlive { identity: flipped(&next.identity, &mut rng), ..next },
            // Cut short.
            4 => {
                SignedAlive { payload: next.payload.slice(..rng.random_range(0..next.payload.len())), ..next }
            }
            5 => SignedAlive {
                signature: next.signature.slice(..rng.random_range(0..next.signature.len())),
                ..next
            },
            // Another network's.
            6 => resign(newest, &members[victim], |alive| {
                (alive.network_id, alive.sequence) = ("other".into(), alive.sequence + 1);
            }),
            // Signed by a stranger, or by another member in the victim's name.
            7 => resign(newest, &stranger, |alive| alive.sequence += 1),
            8 if other != victim => resign(newest, &members[other], |alive| alive.sequence += 1),
            // Another address, under the signature for the right one.
            _ => {
                let mut moved = next;
                if let Some(internal) = &mut moved.internal {
                    internal.endpoint = format!("evil{attempt}.internal:1");
                }
                moved
            }
        };
        let now = at(attempt as u64 / 1_000);
        one.machine.handle_records(now, members[other].id(), vec![forged], &one.authority);
    }
    let after = format!("{:?} {:?} {:?}", one.machine.members, one.machine.tombstones, one.machine.root);
    assert_eq!(before, after);
    let counters = one.machine.counters();
    assert_eq!(counters.records_rejected + counters.records_stale, TRIES as u64 - unknown_asked(&mut one));
}

fn flipped(bytes: &Bytes, rng: &mut ChaCha8Rng) -> Bytes {
    let mut changed = bytes.to_vec();
    let place = rng.random_range(0..changed.len());
    changed[place] ^= 1 << rng.random_range(0..8);
    changed.into()
}

/// Identities asked for: a forgery that names one nobody knows is neither stale nor refused.
fn unknown_asked(host: &mut Host) -> u64 {
    let asked = host.outputs().into_iter().map(|output| match output {
        MembershipOutput::AskIdentities { digests, .. } => digests.len() as u64,
        MembershipOutput::Misbehaved { .. } => 0,
        other => panic!("a forgery led to {other:?}"),
    });
    asked.sum::<u64>() + host.machine.counters().unknown_over_bound
}
