//! Certificates that end, are renewed or revoked while their peers are connected, and wall clocks that are set.

use bytes::Bytes;

use super::tests::{SESSION, at, connect, node, outputs, trade};
use super::*;
use crate::authority::ToyAuthority;
use crate::certificates::{ClockNews, ExpiryNotice};
use crate::wire::{Frame, Renewal};

const DAY: i64 = 86_400;

/// One that has its credential in its hands.
fn arrives(node: &mut Node, now: Time, credential: &Credential) {
    node.handle(now, Input::Connected { credential: credential.clone(), session: SESSION, endpoint: None });
}

fn sent_away(node: &mut Node) -> Vec<(PkiId, String)> {
    let reason = |output| match output {
        Output::Disconnect { peer, reason } => Some((peer, reason)),
        _ => None,
    };
    outputs(node).into_iter().filter_map(reason).collect()
}

fn penalties(node: &mut Node) -> usize {
    outputs(node).iter().filter(|output| matches!(output, Output::Penalise { .. })).count()
}

/// Lets time pass up to `until`, and gives what happened and when.
fn run(node: &mut Node, from: Time, until: Time) -> Vec<(Time, Output)> {
    let (mut now, mut all) = (from, Vec::new());
    while let Some(due) = node.next_deadline().filter(|due| *due <= until) {
        now = due.max(now);
        node.handle_timeout(now);
        all.extend(outputs(node).into_iter().map(|output| (now, output)));
    }
    all
}

/// The proof of `renewed` as its holder sends it to the node.
fn proof(node: &Node, renewed: &Credential, session: &[u8; 32]) -> Bytes {
    let mut authority = ToyAuthority::new("Org1MSP", "any", &["Org1MSP"]);
    authority.renew(renewed.clone());
    let message = renewal_message(session, &renewed.pki_id, &node.own.pki_id, &renewed.serialized);
    let signature = authority.sign(&message).into();
    Frame::encode_body(FrameBody::Renewal(Renewal { identity: renewed.serialized.clone(), signature }))
}

#[test]
fn a_connection_ends_with_the_certificate_to_the_millisecond() {
    let mut node = node(false);
    let short = ToyAuthority::lasting("Org1MSP", "peer1", 0, 99);
    let long = ToyAuthority::lasting("Org1MSP", "peer2", 0, 10_000);
    arrives(&mut node, at(0), &short);
    arrives(&mut node, at(0), &long);
    let happened = run(&mut node, at(0), at(200_000));
    let cut: Vec<_> =
        happened.iter().filter(|(_, output)| matches!(output, Output::Disconnect { .. })).collect();
    let [(when, Output::Disconnect { peer, reason })] = &cut[..] else { panic!("{cut:?}") };
    assert_eq!((*when, *peer), (at(100_000), short.pki_id));
    assert!(reason.contains("expired"), "{reason}");
}

/// The record of a member whose certificate has ended is forgotten within a second, and no longer taken.
#[test]
fn an_expired_member_is_forgotten() {
    let mut node = node(false);
    let short = ToyAuthority::lasting("Org1MSP", "peer1", 0, 99);
    arrives(&mut node, at(0), &short);
    let record = record_of(&short, 1);
    let control =
        |record| Input::Control { peer: short.pki_id, frame: Frame::encode_body(FrameBody::Alive(record)) };
    node.handle(at(1), control(record));
    assert!(node.membership().member(&short.pki_id).is_some());
    run(&mut node, at(1), at(101_000));
    assert!(node.membership().member(&short.pki_id).is_none());
    node.handle(at(101_001), control(record_of(&short, 2)));
    assert!(node.membership().member(&short.pki_id).is_none());
}

fn record_of(credential: &Credential, sequence: u64) -> crate::wire::SignedAlive {
    use prost::Message;
    let alive = crate::wire::Alive {
        network_id: "test".into(),
        identity_digest: grapevine_crypto::sha256(&credential.serialized).0.to_vec(),
        peer_id: vec![1],
        external_endpoint: String::new(),
        incarnation: 1,
        sequence,
    };
    let payload: Bytes = alive.encode_to_vec().into();
    let mut authority = ToyAuthority::new("Org1MSP", "any", &["Org1MSP"]);
    authority.renew(credential.clone());
    let signature = authority.sign(&[crate::membership::ALIVE_TAG, &payload].concat()).into();
    crate::wire::SignedAlive { payload, signature, identity: credential.serialized.clone(), internal: None }
}

#[test]
fn a_proof_of_a_renewed_certificate_keeps_the_connection() {
    let mut node = node(false);
    let old = ToyAuthority::lasting("Org1MSP", "peer1", 0, 99);
    let new = ToyAuthority::lasting("Org1MSP", "peer1", 50, 500);
    arrives(&mut node, at(0), &old);
    let frame = proof(&node, &new, &SESSION);
    node.handle(at(60_000), Input::Control { peer: old.pki_id, frame });
    assert_eq!(penalties(&mut node), 0);
    let happened = run(&mut node, at(60_000), at(600_000));
    let cut: Vec<Time> = happened
        .iter()
        .filter(|(_, output)| matches!(output, Output::Disconnect { .. }))
        .map(|(when, _)| *when)
        .collect();
    assert_eq!(cut, vec![at(501_000)], "the connection lasts as long as the new one");
}

/// Proofs of another connection, member, or key: the connection ends with the certificate it began with, all the same.
#[test]
fn proofs_that_do_not_hold_prolong_nothing() {
    let old = ToyAuthority::lasting("Org1MSP", "peer1", 0, 99);
    let new = ToyAuthority::lasting("Org1MSP", "peer1", 50, 500);
    let other = ToyAuthority::lasting("Org1MSP", "peer2", 50, 500);
    let foreign = ToyAuthority::lasting("Org9MSP", "peer1", 50, 500);
    let expired = ToyAuthority::lasting("Org1MSP", "peer1", 50, 55);
    let older = ToyAuthority::lasting("Org1MSP", "peer1", -1, 500);
    let for_node = node(false);
    let mut unsigned = Frame::parse(proof(&for_node, &new, &SESSION)).unwrap();
    if let FrameBody::Renewal(renewal) = &mut unsigned {
        renewal.signature = Bytes::from_static(&[0; 32]);
    }
    for (name, frame, penalised) in [
        ("another connection", proof(&for_node, &new, &[8; 32]), 1),
        ("another member", proof(&for_node, &other, &SESSION), 1),
        ("bad signature", Frame::encode_body(unsigned), 1),
        ("another organisation", proof(&for_node, &foreign, &SESSION), 0),
        ("expired itself", proof(&for_node, &expired, &SESSION), 0),
        ("older", proof(&for_node, &older, &SESSION), 0),
    ] {
        let mut node = node(false);
        arrives(&mut node, at(0), &old);
        outputs(&mut node);
        node.handle(at(60_000), Input::Control { peer: old.pki_id, frame });
        assert_eq!(penalties(&mut node), penalised, "{name}");
        let happened = run(&mut node, at(60_000), at(200_000));
        let is_cut = |(when, output): &(Time, Output)| {
            matches!(output, Output::Disconnect { .. }) && *when == at(100_000)
        };
        assert!(happened.iter().any(is_cut), "{name}");
    }
}

#[test]
fn a_renewed_node_proves_it_to_everybody_and_keeps_its_members() {
    let mut node = node(false);
    let peer = ToyAuthority::credential("Org1MSP", "peer1").pki_id;
    connect(&mut node, peer);
    let links = node.channel_members(&trade());
    outputs(&mut node);
    let own = ToyAuthority::lasting("Org1MSP", "peer0", 10, 40 * DAY);
    let mut authority = ToyAuthority::new("Org1MSP", "peer0", &["Org1MSP"]);
    authority.renew(own.clone());
    node.authority = Box::new(authority);
    node.handle(at(10_000), Input::Renewed(own.clone()));
    let sent: Vec<FrameBody> = outputs(&mut node)
        .into_iter()
        .filter_map(|output| match output {
            Output::SendControl { peer: to, frame } if to == peer => Some(Frame::parse(frame).unwrap()),
            _ => None,
        })
        .collect();
    assert!(
        sent.iter()
            .any(|body| matches!(body, FrameBody::Renewal(renewal) if renewal.identity == own.serialized))
    );
    assert!(
        sent.iter().any(|body| matches!(body, FrameBody::Alive(record) if record.identity == own.serialized))
    );
    assert_eq!(node.channel_members(&trade()), links, "no link is touched");
    // A handshake that was under way showed the older one.
    let late = ToyAuthority::credential("Org1MSP", "peer2");
    arrives(&mut node, at(12_000), &late);
    let proves = |output: &Output| matches!(output, Output::SendControl { frame, .. } if matches!(Frame::parse(frame.clone()), Ok(FrameBody::Renewal(_))));
    assert!(outputs(&mut node).iter().any(proves));
    let later = ToyAuthority::credential("Org1MSP", "peer3");
    arrives(&mut node, at(60_000), &later);
    assert!(!outputs(&mut node).iter().any(proves));
}

#[test]
fn an_older_certificate_than_is_known_is_refused() {
    let mut node = node(false);
    let (old, new) = (
        ToyAuthority::lasting("Org1MSP", "peer1", 0, 10 * DAY),
        ToyAuthority::lasting("Org1MSP", "peer1", 50, 20 * DAY),
    );
    arrives(&mut node, at(0), &new);
    let frame = Frame::encode_body(FrameBody::Alive(record_of(&new, 1)));
    node.handle(at(1), Input::Control { peer: new.pki_id, frame });
    node.handle(at(2), Input::Disconnected { peer: new.pki_id });
    outputs(&mut node);
    arrives(&mut node, at(3), &old);
    let away = sent_away(&mut node);
    assert!(
        matches!(&away[..], [(peer, reason)] if *peer == old.pki_id && reason.contains("older")),
        "{away:?}"
    );
    arrives(&mut node, at(4), &new);
    assert_eq!(sent_away(&mut node), vec![]);
}

/// Members nobody vouches for any more go half a second after the config that says so, no sooner, no later.
#[test]
fn who_is_distrusted_goes_after_the_grace() {
    let mut node = node(false);
    let (gone, stays) =
        (ToyAuthority::credential("Org2MSP", "peer0"), ToyAuthority::credential("Org1MSP", "peer1"));
    node.authority = Box::new(ToyAuthority::new("Org1MSP", "peer0", &["Org1MSP", "Org2MSP"]));
    arrives(&mut node, at(0), &gone);
    arrives(&mut node, at(0), &stays);
    node.authority = Box::new(ToyAuthority::new("Org1MSP", "peer0", &["Org1MSP"]));
    node.handle(at(1_000), Input::TrustChanged);
    assert_eq!(sent_away(&mut node), vec![]);
    let happened = run(&mut node, at(1_000), at(3_000));
    let away: Vec<_> = happened
        .iter()
        .filter_map(|(when, output)| match output {
            Output::Disconnect { peer, .. } => Some((*when, *peer)),
            _ => None,
        })
        .collect();
    assert_eq!(away, vec![(at(1_000) + REMOVAL_GRACE, gone.pki_id)]);
    // Trusted again before the grace is over: it stays.
    let mut node = super::tests::node(false);
    node.authority = Box::new(ToyAuthority::new("Org1MSP", "peer0", &["Org1MSP", "Org2MSP"]));
    arrives(&mut node, at(0), &gone);
    for (when, organizations) in [(1_000, &["Org1MSP"][..]), (1_100, &["Org1MSP", "Org2MSP"])] {
        node.authority = Box::new(ToyAuthority::new("Org1MSP", "peer0", organizations));
        node.handle(at(when), Input::TrustChanged);
    }
    let happened = run(&mut node, at(1_100), at(3_000));
    assert!(!happened.iter().any(|(_, output)| matches!(output, Output::Disconnect { .. })));
}

#[test]
fn the_own_certificate_is_warned_of_and_a_new_one_ends_that() {
    let mut node = node(false);
    let renew = |node: &mut Node, now: Time, not_before: i64, not_after: i64| {
        let own = ToyAuthority::lasting("Org1MSP", "peer0", not_before, not_after);
        node.handle(now, Input::Renewed(own));
    };
    renew(&mut node, at(0), 0, 10 * DAY);
    node.handle_timeout(at(0));
    let notices = |outputs: &[Output]| -> Vec<ExpiryNotice> {
        let notice = |output: &Output| match output {
            Output::Event(Event::OwnCertificate(notice)) => Some(*notice),
            _ => None,
        };
        outputs.iter().filter_map(notice).collect()
    };
    assert_eq!(notices(&outputs(&mut node)), vec![ExpiryNotice::DaysLeft(10)]);
    assert_eq!(node.own_certificate(at(0)), Some(ExpiryNotice::DaysLeft(10)));
    let day = |days: u64| at(days * 86_400_000);
    let mut all = Vec::new();
    for half in 1..18 {
        node.handle_timeout(at(half * 43_200_000));
        all.extend(outputs(&mut node));
    }
    assert_eq!(notices(&all), vec![ExpiryNotice::DaysLeft(7)]);
    assert!(node.next_deadline().unwrap() <= day(9), "it wakes for the next one");
    renew(&mut node, day(9), 1, 400 * DAY);
    node.handle_timeout(day(11));
    assert_eq!(notices(&outputs(&mut node)), vec![]);
    assert_eq!(node.own_certificate(day(11)), None);
}

/// The wall clock is set by an hour either way, to 1970 or to 2106: one warning, and nobody comes or goes.
#[test]
fn a_set_wall_clock_is_a_warning_and_no_more() {
    let start_ms = 1_800_000_000_000_i64;
    for jump_ms in [3_600_000, -3_600_000, -start_ms, 4_294_967_295_000 - start_ms] {
        let mut node = super::tests::node(false);
        node.membership.reset_clock(crate::certificates::CertificateClock::new(Time::ZERO, start_ms));
        let start = start_ms / 1_000;
        let peers: Vec<Credential> = [("peer1", 7_200), ("peer2", 100_000)]
            .map(|(name, left)| ToyAuthority::lasting("Org1MSP", name, start - 100, start + left))
            .into();
        for credential in &peers {
            arrives(&mut node, at(0), credential);
            let frame = Frame::encode_body(FrameBody::Alive(record_of(credential, 1)));
            node.handle(at(1), Input::Control { peer: credential.pki_id, frame });
        }
        outputs(&mut node);
        let mut warned = Vec::new();
        for second in (10..=3_600_u64).step_by(10) {
            let set = if second >= 600 { jump_ms } else { 0 };
            let now = at(second * 1_000);
            let unix_ms = start_ms + i64::try_from(second).unwrap() * 1_000 + set;
            node.handle(now, Input::Wall { unix_ms });
            node.handle_timeout(now);
            for credential in &peers {
                node.handle(now, Input::Control { peer: credential.pki_id, frame: pong() });
            }
            for output in outputs(&mut node) {
                match output {
                    Output::Event(Event::WallClock(news)) => warned.push(news),
                    Output::Disconnect { reason, .. } => panic!("{jump_ms} ms: {reason}"),
                    Output::Event(Event::MemberDead(_) | Event::MemberSuspect { .. } | Event::Alarm(_)) => {
                        panic!("{jump_ms} ms: {output:?}")
                    }
                    _ => {}
                }
            }
        }
        assert!(matches!(warned[..], [ClockNews::Stepped { .. }]), "{jump_ms} ms: {warned:?}");
        for credential in &peers {
            assert!(node.membership().member(&credential.pki_id).is_some());
        }
    }
}

fn pong() -> Bytes {
    Frame::encode_body(FrameBody::Pong(crate::wire::Nonce { value: 0 }))
}
