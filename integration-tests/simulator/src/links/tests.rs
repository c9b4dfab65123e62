//! The wire against what can be computed by hand.

use std::time::Duration;

use grapevine_channels::time::Time;

use super::*;

const BLOCK: usize = 125_000;

fn wire(sharing: Sharing, latency: Duration, sites: usize) -> Wire<u32> {
    let settings = LinkSettings { sharing, ..LinkSettings::of_bandwidth(GIGABIT) };
    Wire::new(settings, Latency::Same(latency), sites, 1)
}

/// All deliveries: when, to whom, what.
fn run(wire: &mut Wire<u32>) -> Vec<(u64, Site, u32)> {
    let mut all = Vec::new();
    while let Some(at) = wire.next() {
        if let Some(Delivery::Message { to, payload, .. }) = wire.step() {
            all.push((at.as_nanos() / 1_000, to, payload));
        }
    }
    all
}

/// Sends a block of 1 ms.
fn block(wire: &mut Wire<u32>, at: u64, from: Site, to: Site, name: u32) {
    wire.send(Time::from_millis(at), from, to, Class::Bulk, BLOCK, name);
}

#[test]
fn an_idle_link_takes_the_bytes_once_and_the_latency() {
    let mut wire = wire(Sharing::Fifo, Duration::from_millis(10), 2);
    block(&mut wire, 0, 0, 1, 7);
    assert_eq!(run(&mut wire), [(11_000, 1, 7)]);
}

#[test]
fn transfers_follow_each_other_or_share() {
    let mut fifo = wire(Sharing::Fifo, Duration::ZERO, 3);
    let mut fair = wire(Sharing::Fair, Duration::ZERO, 3);
    for wire in [&mut fifo, &mut fair] {
        block(wire, 0, 0, 1, 1);
        block(wire, 0, 0, 2, 2);
    }
    assert_eq!(run(&mut fifo), [(1_000, 1, 1), (2_000, 2, 2)]);
    // Chunks in turn: 65,536 to each, then the 59,464 that remain to each.
    let times: Vec<u64> = run(&mut fair).iter().map(|delivery| delivery.0).collect();
    assert_eq!(times, [1_524, 2_000]);
}

#[test]
fn a_downlink_takes_what_many_send_one_after_the_other() {
    let mut wire = wire(Sharing::Fifo, Duration::from_millis(5), 4);
    for from in 1..4 {
        block(&mut wire, 0, from, 0, u32::try_from(from).unwrap());
    }
    let times: Vec<u64> = run(&mut wire).iter().map(|delivery| delivery.0).collect();
    assert_eq!(times, [6_000, 7_000, 8_000]);
}

#[test]
fn control_passes_bulk_and_takes_its_share() {
    let mut wire = wire(Sharing::Fifo, Duration::ZERO, 2);
    block(&mut wire, 0, 0, 1, 1);
    for name in 10..12 {
        wire.send(Time::ZERO, 0, 1, Class::Control, 12_500, name);
    }
    assert_eq!(run(&mut wire), [(100, 1, 10), (200, 1, 11), (1_200, 1, 1)]);
}

#[test]
fn small_frames_count_as_the_least() {
    let mut wire = wire(Sharing::Fifo, Duration::ZERO, 2);
    wire.send(Time::ZERO, 0, 1, Class::Control, 1, 1);
    assert_eq!(wire.next().unwrap().as_nanos(), 384, "48 bytes at 1 Gbit/s");
}

#[test]
fn what_is_called_back_does_not_come() {
    for sharing in [Sharing::Fifo, Sharing::Fair] {
        let mut wire = wire(sharing, Duration::ZERO, 4);
        for (to, name) in [(1, 1), (2, 2), (2, 3), (3, 4)] {
            block(&mut wire, 0, 0, to, name);
        }
        assert_eq!(wire.bytes_waiting(0, 2), 2 * BLOCK);
        assert!(wire.call_back(0, 1, |_| true).is_empty(), "begun");
        wire.drop_waiting(0, 1);
        assert_eq!(wire.call_back(0, 2, |name| *name == 2), [2]);
        assert_eq!(wire.bytes_waiting(0, 2), BLOCK);
        let came: Vec<u32> = run(&mut wire).iter().map(|delivery| delivery.2).collect();
        assert_eq!(came, [3, 4]);
    }
}

#[test]
fn a_slow_site_is_slow_both_ways() {
    let mut wire = wire(Sharing::Fifo, Duration::ZERO, 3);
    wire.slow_down(0, 10.0);
    block(&mut wire, 0, 0, 1, 1);
    block(&mut wire, 20, 2, 0, 2);
    assert_eq!(run(&mut wire), [(10_000, 1, 1), (30_000, 0, 2)]);
}

#[test]
fn streams_stay_in_order_whatever_is_lost() {
    let loss = Loss::Retransmit { probability: 0.3, timeout: Duration::from_millis(200) };
    let jitter = Jitter::Exponential(Duration::from_millis(5));
    let settings = LinkSettings { loss, jitter, ..LinkSettings::of_bandwidth(GIGABIT) };
    let mut wire = Wire::new(settings, Latency::Same(Duration::from_millis(1)), 2, 9);
    for name in 0..200 {
        wire.send(Time::from_millis(u64::from(name)), 0, 1, Class::Control, 48, name);
    }
    let came = run(&mut wire);
    assert!(came.windows(2).all(|pair| pair[0].2 < pair[1].2));
    assert!(came.iter().any(|(at, _, name)| *at > u64::from(*name) * 1_000 + 200_000));
}

#[test]
fn places_follow_the_seed() {
    let far = |seed| Latency::of(Distance::Wan, 10, seed).one_way(0, 9);
    assert_eq!(far(1), far(1));
    assert_ne!(far(1), far(2));
    assert!(far(1) > Duration::from_millis(2) && far(1) < Duration::from_millis(87));
    let clusters = Latency::of(Distance::Clusters(2), 4, 1);
    assert_eq!(clusters.one_way(0, 2), Duration::from_micros(250));
    assert!(clusters.one_way(0, 1) > Duration::from_millis(2));
    let pairs = Latency::of(Distance::Independent(Duration::from_millis(1), Duration::from_millis(9)), 4, 1);
    assert_eq!(pairs.one_way(1, 3), pairs.one_way(3, 1));
}
