//! Networks in good and bad weather, several seeds each. The checks are the simulator's own: a run that ends without a
//! violation was safe at every event and got everybody everything.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot run has failed")]

use std::time::Duration;

use grapevine_channels::time::Time;
use grapevine_simulator::{Distance, Fault, Leadership, Report, Scenario, Simulation, Target, chaos};

const LEADER: Target = Target::Leader { organization: 0, channel: 0 };

fn run(scenario: &Scenario, seed: u64) -> Report {
    match Simulation::new(scenario.clone(), seed).unwrap().run() {
        Ok(report) => report,
        Err(violation) => panic!("{violation}"),
    }
}

fn runs(scenario: &Scenario, seeds: u64) -> Vec<Report> {
    (1..=seeds).map(|seed| run(scenario, seed)).collect()
}

/// Two organisations × three peers, `trade` for both and `audit` for the first.
fn demo() -> Scenario {
    Scenario::network(2, 3).with_channel("audit", &[0])
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let scenario = chaos(7);
    let (one, two, other) = (run(&scenario, 7), run(&scenario, 7), run(&scenario, 8));
    assert_eq!(one, two);
    assert_ne!(one.trace_hash, other.trace_hash);
}

#[test]
fn undisturbed_everybody_gets_every_block_by_push() {
    for report in runs(&demo(), 8) {
        assert_eq!(report.missed, 0, "{report}");
        assert!(report.last_ms_max < 50.0, "{report}");
        assert_eq!(report.leader_changes, 3, "one election for each organisation and channel: {report}");
        assert_eq!(report.penalties, 0);
    }
}

#[test]
fn twenty_peers_over_a_lan_and_a_wan() {
    let mut scenario = Scenario::network(1, 20);
    scenario.blocks = 100;
    for report in runs(&scenario, 2) {
        assert!(report.p50_ms < 20.0, "{report}");
    }
    scenario.distance = Distance::Wan;
    let report = run(&scenario, 1);
    assert!(report.p50_ms > 20.0 && report.p50_ms < 250.0, "{report}");
}

#[test]
fn a_killed_leader_is_replaced_and_returns() {
    let mut scenario = demo().at(7_000, Fault::Crash(LEADER)).at(12_000, Fault::RestartAll);
    scenario.blocks = 100;
    for report in runs(&scenario, 8) {
        assert!(report.leader_changes >= 4, "{report}");
        // The others follow a new leader a second later; only who was down has to wait longer.
        assert!(report.p99_ms < 6_000.0, "{report}");
    }
}

#[test]
fn a_leader_that_stops_in_order_is_replaced_at_once() {
    let mut scenario = Scenario::network(1, 4).at(7_000, Fault::Stop(LEADER));
    scenario.blocks = 100;
    for report in runs(&scenario, 8) {
        assert!(report.last_ms_max < 1_000.0, "{report}");
    }
}

#[test]
fn a_latecomer_with_an_empty_ledger_catches_up_from_peers_alone() {
    let mut scenario = demo().at(30_000, Fault::OrdererStop);
    scenario.blocks = 200;
    scenario.starts.insert(2, Time::from_millis(31_000));
    scenario.starts.insert(5, Time::from_millis(31_000));
    for report in runs(&scenario, 4) {
        assert_eq!(report.blocks, 400);
        assert!(report.settled_ms < 15_000.0, "{report}");
        assert!(report.missed >= 3 * 200, "{report}");
    }
}

#[test]
fn a_lost_disk_is_filled_again() {
    let scenario = demo()
        .at(7_000, Fault::Crash(Target::Peer(1)))
        .at(7_100, Fault::Wipe(1))
        .at(9_000, Fault::Restart(1));
    runs(&scenario, 4);
}

#[test]
fn organisations_find_each_other_through_anchors_alone() {
    let mut scenario = demo();
    // Only the anchors are visible outside; Org2 leads nowhere, so every block comes from Org1.
    for organization in &mut scenario.organizations {
        organization.visible = 1;
    }
    scenario.organizations[1].leadership = Leadership::Nobody;
    for report in runs(&scenario, 4) {
        assert!(report.p99_ms < 3_000.0, "{report}");
    }
}

#[test]
fn a_peer_joins_and_leaves_a_channel() {
    let mut scenario =
        demo().at(8_000, Fault::Join(2, 1)).at(8_500, Fault::Leave(1, 1)).at(9_500, Fault::Join(1, 1));
    scenario.joins_later.insert((2, 1));
    runs(&scenario, 4);
}

#[test]
fn a_partition_inside_an_organisation_heals() {
    let base = {
        let mut scenario = Scenario::network(2, 4);
        scenario.blocks = 200;
        scenario
    };
    // For less and for more than a connection lives without the other end; the orderer on the first side.
    for length in [8_000, 40_000] {
        let scenario =
            base.clone().at(7_000, Fault::Partition(vec![0, 1, 4, 5, 8])).at(7_000 + length, Fault::HealAll);
        for report in runs(&scenario, 4) {
            assert!(report.settled_ms < 20_000.0, "{report}");
        }
    }
}

#[test]
fn one_way_cuts_break_and_mend() {
    for length in [5_000, 40_000] {
        let mut scenario = Scenario::network(1, 4);
        scenario.blocks = 200;
        for other in [1, 2, 3] {
            scenario = scenario.at(7_000, Fault::Cut(0, other)).at(7_000 + length, Fault::Heal(0, other));
        }
        runs(&scenario, 4);
    }
}

#[test]
fn a_leader_cut_off_from_the_orderer_makes_room() {
    let mut scenario = Scenario::network(1, 3);
    scenario.blocks = 600;
    scenario.settings.broken_after = Duration::from_secs(5);
    // Each is cut off until the other two cannot pull either; the last one left must lead.
    scenario = scenario.at(8_000, Fault::Cut(3, 0)).at(8_000, Fault::Cut(3, 1)).at(60_000, Fault::HealAll);
    for report in runs(&scenario, 6) {
        assert!(report.last_ms_max < 25_000.0, "{report}");
    }
}

#[test]
fn static_leaders_lead() {
    for report in runs(&demo().led_by(Leadership::Static(1)), 4) {
        assert_eq!(report.missed, 0, "{report}");
        assert_eq!(report.leader_changes, 3, "they start as leaders and stay so: {report}");
    }
}

#[test]
fn an_organisation_without_a_leader_lives_from_reconciliation() {
    let mut scenario = Scenario::network(2, 3);
    scenario.organizations[1].leadership = Leadership::Nobody;
    for report in runs(&scenario, 4) {
        assert!(report.p99_ms < 2_000.0, "{report}");
    }
}

#[test]
fn without_any_leader_nothing_comes_and_nothing_breaks() {
    for report in runs(&Scenario::network(2, 3).led_by(Leadership::Nobody), 2) {
        assert_eq!((report.copies, report.missed), (0.0, 0), "{report}");
    }
}

#[test]
fn a_paused_leader_is_replaced_and_yields_when_it_wakes() {
    for pause in [3_000, 20_000] {
        let mut scenario =
            Scenario::network(1, 5).at(7_000, Fault::Pause(LEADER)).at(7_000 + pause, Fault::ResumeAll);
        scenario.blocks = 150;
        for report in runs(&scenario, 4) {
            assert!(report.leader_changes >= 2, "{report}");
            assert!(report.settled_ms < 10_000.0, "{report}");
        }
    }
}

#[test]
fn a_forger_harms_nobody() {
    let mut scenario = Scenario::sized(&[6, 3]);
    scenario.blocks = 100;
    scenario.settings.dissemination.propagate_peer_num = 2;
    let mut penalties = 0;
    for forgers in [vec![0], vec![1], vec![2, 3], vec![4, 6]] {
        scenario.forgers = forgers.into_iter().collect();
        // Who invents heights is thought to hold all blocks, gets none to relay and is seldom asked: not every run sees a forgery.
        penalties += runs(&scenario, 4).iter().map(|report| report.penalties).sum::<u64>();
    }
    assert!(penalties > 0);
}

/// A fast orderer, a slow disk and large blocks, and nobody else who has them.
fn slow_disk(window: u64, block_bytes: usize) -> Scenario {
    let mut scenario = Scenario::network(1, 1);
    scenario.settings.disk_cost = Duration::from_millis(300);
    scenario.settings.block_buffer_size = window;
    scenario.settings.max_block_count_to_store = 8;
    scenario.block_bytes = block_bytes;
    scenario.block_interval = Duration::from_millis(10);
    scenario.blocks = 200;
    scenario.settle = Duration::from_secs(200);
    scenario
}

#[test]
fn a_slow_disk_slows_the_stream_down() {
    for (window, block_bytes) in [(64, 2_000_000), (8, 16_000), (64, 20_000_000)] {
        for report in runs(&slow_disk(window, block_bytes), 2) {
            assert!(report.copies < 1.01, "{report}");
        }
    }
}

/// Where the host takes more from the stream than the node can keep, the node says so, and nothing is lost.
#[test]
fn what_the_leader_had_to_drop_is_pulled_again() {
    // What was on the way when the stream stopped comes twice, more often the fewer blocks fit.
    for (block_bytes, copies_max) in [(2_000_000, 8.0), (20_000_000, 25.0)] {
        let mut scenario = slow_disk(64, block_bytes);
        scenario.settings.orderer_bytes_in_flight = usize::MAX;
        for report in runs(&scenario, 2) {
            assert!(report.copies > 1.01 && report.copies < copies_max, "{report}");
        }
    }
}

#[test]
fn random_faults_over_fifty_seeds() {
    for seed in 1..=50 {
        run(&chaos(seed), seed);
    }
}
