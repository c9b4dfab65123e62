//! The models against closed forms and published behaviour.

use super::*;
use crate::links::{Distance, GIGABIT};

fn stage(peers: usize, distance: Distance, seed: u64) -> Stage {
    Stage {
        peers,
        latency: Latency::of(distance, peers + 1, seed),
        links: LinkSettings::of_bandwidth(GIGABIT),
        blocks: 3,
        block_bytes: 160_000,
        interval: Duration::from_secs(10),
        silent: BTreeSet::new(),
        verify_cost: Duration::from_micros(300),
        verify_cost_per_mb: Duration::from_millis(1),
        patience: Duration::from_secs(10),
        seed,
    }
}

/// Mean time to last ÷ limit, bodies per peer, leader egress in blocks.
fn figures(measured: &Measured) -> (f64, f64, f64) {
    let rows: Vec<_> = measured.rows.values().collect();
    let mean = |value: &dyn Fn(&&crate::scoreboard::Row) -> f64| {
        rows.iter().map(value).sum::<f64>() / rows.len() as f64
    };
    (
        mean(&|row| row.over_limit()),
        mean(&|row| row.body_bytes as f64 / (row.receivers * row.block_bytes) as f64),
        mean(&|row| row.leader_bytes as f64 / row.block_bytes as f64),
    )
}

fn mean_of(seeds: u64, run: impl Fn(u64) -> (f64, f64, f64)) -> (f64, f64, f64) {
    let all: Vec<_> = (1..=seeds).map(run).collect();
    let mean = |value: fn(&(f64, f64, f64)) -> f64| all.iter().map(value).sum::<f64>() / seeds as f64;
    (mean(|x| x.0), mean(|x| x.1), mean(|x| x.2))
}

#[test]
fn a_star_takes_what_its_closed_form_says() {
    for peers in [5, 20, 100] {
        let stage = stage(peers, Distance::Lan, 1);
        let measured = run(stage, Star, |_| {});
        let send = 160_000.0 / GIGABIT as f64;
        let expected = (peers - 1) as f64 * send + 0.25e-3 + 0.46e-3;
        for row in measured.rows.values() {
            assert!((row.last.as_secs_f64() / expected - 1.0).abs() < 0.01, "{:?}, not {expected}", row.last);
            assert_eq!((row.body_bytes, row.missing), (160_000 * (peers as u64 - 1), 0));
        }
    }
}

/// 2.0 × the limit, 6.6 copies, 8 blocks from the source at 100 peers over a WAN; 9.2, 2.2 and 8 over a LAN.
#[test]
fn gossipsub_is_fast_and_wasteful() {
    let (last, copies, egress) =
        mean_of(4, |seed| figures(&run(stage(100, Distance::Wan, seed), Gossipsub::default(), |_| {})));
    assert!((1.7..2.4).contains(&last), "{last}");
    assert!((5.8..7.2).contains(&copies), "{copies}");
    assert!((7.0..9.0).contains(&egress), "{egress}");
    let (last, copies, _) =
        mean_of(4, |seed| figures(&run(stage(100, Distance::Lan, seed), Gossipsub::default(), |_| {})));
    assert!((8.0..11.0).contains(&last), "{last}");
    assert!((1.9..3.2).contains(&copies), "{copies}");
}

/// 2.5 × the limit and one copy at 100 peers over a WAN once the tree is there; slow where a fifth falls silent.
#[test]
fn plumtree_converges_to_one_copy_and_mends_late() {
    let (last, copies, _) =
        mean_of(4, |seed| figures(&run(stage(100, Distance::Wan, seed), Plumtree::default(), |_| {})));
    assert!((2.0..3.4).contains(&last), "{last}");
    assert!(copies < 1.05, "{copies}");
    let (last, ..) = mean_of(4, |seed| {
        let mut stage = stage(100, Distance::Wan, seed);
        stage.silent = (1..100).step_by(5).collect();
        figures(&run(stage, Plumtree::default(), |_| {}))
    });
    assert!(last > 3.5, "{last}");
}

#[test]
fn a_model_repeats_itself() {
    let hash = |seed| run(stage(30, Distance::Wan, seed), Gossipsub::default(), |_| {}).trace_hash;
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
}
