//! Suspects, the dead, and views that are compared.

use super::*;

#[test]
fn an_accusation_is_refuted_and_makes_others_look_only() {
    let mut hosts: Vec<Host> = (0..3).map(|index| Host::new("Org1MSP", &format!("peer{index}"))).collect();
    let mut one = hosts.remove(0);
    let two = introduce(&mut one, hosts.remove(0));
    let three = introduce(&mut one, hosts.remove(0));
    one.outputs();
    // The accused signs a newer record and sends it to everybody.
    let sequence = one.machine.sequence;
    one.machine.handle_probe(at(100), two.id(), Probe::Accuse(one.id()), &one.authority);
    let sent = one.outputs();
    assert_eq!(one.machine.sequence, sequence + 1);
    assert_eq!(sent.iter().filter(|output| matches!(output, MembershipOutput::SendAlive { .. })).count(), 2);
    // Somebody heard a moment ago is not even looked at.
    one.machine.handle_frame(at(150), three.id(), &one.authority);
    one.machine.handle_probe(at(200), two.id(), Probe::Accuse(three.id()), &one.authority);
    assert_eq!(one.outputs(), vec![]);
    one.machine.handle_probe(at(700), two.id(), Probe::Accuse(three.id()), &one.authority);
    let ping = MembershipOutput::SendProbe { peer: three.id(), probe: Probe::Ping };
    assert_eq!(one.outputs(), vec![ping]);
    assert_eq!(one.state(&three), Some(MemberState::Alive));
    one.machine.handle_frame(at(750), three.id(), &one.authority);
    one.machine.handle_frame(at(750), two.id(), &one.authority);
    let (_, outputs) = one.run_until(at(750), at(1_100), |_| false);
    assert!(!outputs.contains(&MembershipOutput::Suspect(three.id())));
}

/// Connects `host` to `one` with its record.
fn introduce(one: &mut Host, mut host: Host) -> Host {
    one.connect(at(0), &host);
    let record = host.record();
    one.take(at(0), &host, record);
    host
}

#[test]
fn a_silent_member_is_pinged_suspected_accused_and_dead_and_a_frame_brings_it_back() {
    let mut one = Host::new("Org1MSP", "peer0");
    let silent = introduce(&mut one, Host::new("Org1MSP", "peer1"));
    let helper = introduce(&mut one, Host::new("Org1MSP", "peer2"));
    one.outputs();
    let (mut now, mut outputs) = (at(0), Vec::new());
    while one.state(&silent) != Some(MemberState::Dead) {
        now = one.machine.next_deadline().unwrap().max(now);
        outputs.extend(one.tick(now));
        one.machine.handle_frame(now, helper.id(), &one.authority);
        outputs.extend(one.outputs());
        assert!(now < at(4_000));
    }
    let probe = |peer, probe| MembershipOutput::SendProbe { peer, probe };
    let place = |wanted: MembershipOutput| outputs.iter().position(|output| *output == wanted).unwrap();
    let ping = place(probe(silent.id(), Probe::Ping));
    let suspect = place(MembershipOutput::Suspect(silent.id()));
    let accuse = place(probe(silent.id(), Probe::Accuse(silent.id())));
    let ask = place(probe(helper.id(), Probe::Ask(silent.id())));
    let dead = place(MembershipOutput::Dead(silent.id()));
    assert!(ping < suspect && suspect < accuse && accuse < dead && ask < dead);
    assert_eq!(one.state(&helper), Some(MemberState::Alive));
    one.machine.handle_frame(now, silent.id(), &one.authority);
    assert_eq!(one.state(&silent), Some(MemberState::Alive));
}

#[test]
fn a_helper_that_hears_a_suspect_clears_it() {
    let mut one = Host::new("Org1MSP", "peer0");
    let silent = introduce(&mut one, Host::new("Org1MSP", "peer1"));
    let helper = introduce(&mut one, Host::new("Org1MSP", "peer2"));
    one.outputs();
    let suspect = MembershipOutput::Suspect(silent.id());
    let (now, _) = one.run_until(at(0), at(3_000), |output| *output == suspect);
    assert_eq!(one.machine.accusers(&silent.id()), vec![one.id()]);
    one.machine.handle_probe(now, helper.id(), Probe::Accuse(silent.id()), &one.authority);
    assert_eq!(one.machine.accusers(&silent.id()).len(), 2, "who accused it is known");
    one.machine.handle_probe(now, helper.id(), Probe::Answer(silent.id()), &one.authority);
    assert_eq!(one.state(&silent), Some(MemberState::Alive));
    assert_eq!(one.machine.local_health(), 1, "the connection, or this peer, is slow");
}

#[test]
fn who_stood_still_judges_nobody_and_tells_everybody_that_it_is_back() {
    let mut one = Host::new("Org1MSP", "peer0");
    let other = introduce(&mut one, Host::new("Org1MSP", "peer1"));
    one.outputs();
    one.tick(at(0));
    let woke = at(20_000);
    let outputs = one.tick(woke);
    assert!(outputs.iter().any(|output| matches!(output, MembershipOutput::SendAlive { .. })));
    assert_eq!(one.state(&other), Some(MemberState::Alive));
    // What waited in the queues meanwhile is no reason to tell it again.
    let mut late = Host::new("Org1MSP", "peer0");
    let other_one = introduce(&mut late, Host::new("Org1MSP", "peer1"));
    let announced: usize = (0..50)
        .map(|_| {
            late.machine.handle_frame(woke, other_one.id(), &late.authority);
            late.outputs()
                .iter()
                .filter(|output| matches!(output, MembershipOutput::SendAlive { .. }))
                .count()
        })
        .sum();
    assert_eq!(announced, 1);
    let suspect = MembershipOutput::Suspect(other.id());
    let (when, _) = one.run_until(woke, at(30_000), |output| *output == suspect);
    assert!(when >= woke + Duration::from_secs(2), "{when}");
}

#[test]
fn equal_views_exchange_roots_alone_and_others_what_is_missing() {
    let (mut one, mut two) = (Host::new("Org1MSP", "peer0"), Host::new("Org1MSP", "peer1"));
    let mut third = Host::new("Org1MSP", "peer2");
    let record = third.record();
    one.take(at(0), &third, record);
    let (to_two, to_one) = (one.connect(at(0), &two), two.connect(at(0), &one));
    one.machine.handle_records(at(1), two.id(), to_one, &one.authority);
    two.machine.handle_records(at(1), one.id(), to_two, &two.authority);
    let root = |host: &mut Host| {
        host.outputs().into_iter().find_map(|output| match output {
            MembershipOutput::SendViewRoot { root, .. } => Some(root),
            _ => None,
        })
    };
    let (root_one, root_two) = (root(&mut one).unwrap(), root(&mut two).unwrap());
    assert_ne!(root_one, root_two);
    two.machine.handle_view_root(at(2), one.id(), &root_one, &two.authority);
    let list = two.outputs().into_iter().find_map(|output| match output {
        MembershipOutput::SendViewList { list, .. } => Some(list),
        _ => None,
    });
    one.machine.handle_view_list(two.id(), &list.unwrap(), &one.authority);
    let sent = one.outputs();
    let [MembershipOutput::SendView { records, .. }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(records.len(), 1, "only whom the other does not know");
    two.machine.handle_records(at(3), one.id(), records.clone(), &two.authority);
    assert_eq!(two.state(&third), Some(MemberState::Alive));
    two.outputs();
    one.machine.send_root(two.id(), &one.authority);
    let equal = root(&mut one).unwrap();
    two.machine.handle_view_root(at(300), one.id(), &equal, &two.authority);
    assert_eq!(two.outputs(), vec![], "equal views say no more");
}

#[test]
fn an_address_nobody_answers_at_is_named() {
    let mut one = Host::new("Org1MSP", "peer0");
    let other = introduce(&mut one, Host::new("Org1MSP", "peer1"));
    let third = introduce(&mut one, Host::new("Org1MSP", "peer2"));
    let endpoint = "peer1.internal:1".to_owned();
    one.machine.handle_disconnected(at(10), other.id());
    let mut named = 0;
    for attempt in 1..10 {
        let now = at(10 + attempt * 100);
        one.machine.handle_dial_failed(now, &endpoint);
        one.machine.handle_probe(now, third.id(), Probe::Answer(other.id()), &one.authority);
        let unreachable = MembershipOutput::Unreachable { member: other.id(), endpoint: endpoint.clone() };
        named += one.outputs().iter().filter(|output| **output == unreachable).count();
    }
    assert_eq!(named, 1);
}
