//! The ruler: baselines give what is known of them, a seed gives one run, and nothing is missed in calm weather.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot run has failed")]

use std::time::Duration;

use grapevine_simulator::links::Distance;
use grapevine_simulator::{Experiment, Outcome, Protocol};

fn run(experiment: &Experiment) -> Outcome {
    experiment.run(|_| {}).unwrap()
}

/// Fabric's gossip; blocks so far apart that one is over before the next.
fn classic(peers: usize, distance: Distance) -> Experiment {
    Experiment {
        protocol: Protocol::Classic,
        peers,
        distance,
        blocks: 10,
        interval: Duration::from_millis(6_700),
        placements: 5,
        patience: Duration::from_secs(20),
        ..Experiment::default()
    }
}

/// The slowest of 100 peers is 4.4 s behind, and each gets 2.9 copies: the pull's period, and its misses by push.
#[test]
fn classic_is_as_slow_and_wasteful_as_computed() {
    let outcome = run(&Experiment { blocks: 5, placements: 2, ..classic(100, Distance::Wan) });
    assert!((3_900.0..4_900.0).contains(&outcome.last_ms_mean), "{outcome}");
    assert!((2.75..3.05).contains(&outcome.copies), "{outcome}");
    assert_eq!(outcome.missed, 0, "{outcome}");
}

/// Fabric 3.1, 20 peers on one machine: p99 3.96 s.
#[test]
fn classic_is_as_slow_as_fabric_measured() {
    let outcome = run(&Experiment { blocks: 40, ..classic(20, Distance::Lan) });
    assert!((3_366.0..4_554.0).contains(&outcome.p99_ms), "{outcome}");
}

#[test]
fn one_seed_is_one_run_whatever_the_threads() {
    for protocol in [Protocol::Grapevine, Protocol::Classic] {
        let experiment =
            Experiment { protocol, placements: 3, silent: 0.2, views_off: 0.05, ..Experiment::default() };
        let (one, two) = (run(&experiment), run(&Experiment { threads: 2, ..experiment.clone() }));
        assert_eq!(one.trace_hash, two.trace_hash);
        assert_ne!(one.trace_hash, run(&Experiment { seed: 2, ..experiment }).trace_hash);
    }
}

/// The long form is `make sim-misses`.
#[test]
fn undisturbed_nothing_is_missed() {
    let experiment = Experiment {
        peers: 30,
        blocks: 20,
        interval: Duration::from_millis(200),
        placements: 3,
        ..Experiment::default()
    };
    for distance in [Distance::Lan, Distance::Wan] {
        let outcome = run(&Experiment { distance, ..experiment.clone() });
        assert_eq!(outcome.missed, 0, "{outcome}");
        assert_eq!(outcome.deliveries, 3 * 20 * 29);
    }
}
