//! Membership and leadership over wide-area links, some seeds each; `make trials` takes two hundred.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot run has failed")]

use std::time::Duration;

use grapevine_simulator::trials::{
    Death, cuts, death_noticed, healed, healthy_declared_dead, idle_bytes, joined, leader_gap, rejoin_gap,
    started_leaders, started_together,
};

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

#[test]
fn a_leader_that_dies_is_replaced() {
    for seed in 1..=4 {
        let gap = leader_gap(20, Death::Killed, seed).unwrap();
        assert!(gap <= seconds(2.0), "seed {seed}: {gap:?}");
        let gap = leader_gap(20, Death::Silent, seed).unwrap();
        assert!(gap <= seconds(3.0), "seed {seed}: {gap:?}");
    }
}

#[test]
fn everybody_notices_a_death() {
    for seed in 1..=4 {
        for death in [Death::Killed, Death::Silent] {
            let time = death_noticed(40, death, seed).unwrap();
            assert!(time <= seconds(3.2), "seed {seed}, {death:?}: {time:?}");
        }
    }
}

#[test]
fn a_new_member_knows_and_is_known_soon() {
    for seed in 1..=4 {
        let time = joined(40, seed).unwrap();
        assert!(time <= seconds(1.0), "seed {seed}: {time:?}");
    }
}

#[test]
fn peers_that_start_together_find_each_other() {
    for seed in 1..=2 {
        let time = started_together(60, seed).unwrap();
        assert!(time <= seconds(5.0), "seed {seed}: {time:?}");
    }
}

#[test]
fn an_idle_network_is_quiet() {
    let bytes = idle_bytes(20, Duration::from_secs(120), 1).unwrap();
    assert!(bytes <= 1_500.0, "{bytes} bytes a second");
}

#[test]
fn no_healthy_peer_is_declared_dead_beside_those_that_stand_still() {
    for seed in 1..=3 {
        let count = healthy_declared_dead(30, Duration::from_secs(300), seed).unwrap();
        assert_eq!(count, 0, "seed {seed}");
    }
}

/// All ways to cut one direction, and all pairs of them: twenty and a hundred and ninety.
#[test]
fn cuts_heal_into_one_leader_and_equal_heights() {
    let cuts = cuts();
    assert_eq!(cuts.len(), 20 + 190);
    for (seed, cuts) in cuts.iter().enumerate() {
        let time = healed(cuts, seed as u64).unwrap();
        assert!(time <= seconds(3.0), "{cuts:?}: {time:?}");
    }
}

/// Twenty peers that start together do not all pull from the orderer before they have met.
#[test]
fn a_common_start_costs_the_orderer_little() {
    for seed in 1..=10 {
        let start = started_leaders(20, seed).unwrap();
        assert!(start.leaders <= 3 && start.orderer_egress_blocks <= 1.05, "seed {seed}: {start:?}");
    }
}

#[test]
fn the_lowest_id_far_behind_neither_leads_nor_holds_others_up() {
    for seed in 1..=2 {
        let gap = rejoin_gap(5, seed).unwrap();
        assert!(gap <= seconds(0.5), "seed {seed}: {gap:?}");
    }
}
