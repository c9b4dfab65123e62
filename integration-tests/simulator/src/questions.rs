//! `grapevine-simulator trials`: questions about membership and leadership, answered for many seeds.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::ValueEnum;
use grapevine_simulator::Violation;
use grapevine_simulator::trials::{
    Death, death_noticed, healthy_declared_dead, idle_bytes, joined, leader_gap, started_together,
};

/// What a trial answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Question {
    /// Longest gap without a block at any peer when the leader is killed, seconds.
    GapKilled,
    /// The same when it stops in order.
    GapStopped,
    /// The same when nothing is heard of it any more.
    GapSilent,
    /// Until all others hold a killed peer for dead, seconds.
    DeadKilled,
    /// The same for one of which nothing is heard any more.
    DeadSilent,
    /// Until a new member knows all and is known to all, seconds.
    Joined,
    /// Until peers that start at once know each other, seconds.
    Started,
    /// Control bytes that a peer of an idle network receives a second, over a minute.
    Idle,
    /// Healthy peers declared dead in half an hour, a tenth of the peers standing still now and then.
    FalseDeaths,
}

impl Question {
    fn answer(self, peers: usize, seed: u64) -> Result<f64, Violation> {
        let half_an_hour = Duration::from_secs(1_800);
        let time = match self {
            Self::GapKilled => leader_gap(peers, Death::Killed, seed)?,
            Self::GapStopped => leader_gap(peers, Death::Stopped, seed)?,
            Self::GapSilent => leader_gap(peers, Death::Silent, seed)?,
            Self::DeadKilled => death_noticed(peers, Death::Killed, seed)?,
            Self::DeadSilent => death_noticed(peers, Death::Silent, seed)?,
            Self::Joined => joined(peers, seed)?,
            Self::Started => started_together(peers, seed)?,
            Self::Idle => return idle_bytes(peers, Duration::from_secs(60), seed),
            Self::FalseDeaths => return Ok(healthy_declared_dead(peers, half_an_hour, seed)? as f64),
        };
        Ok(time.as_secs_f64())
    }
}

pub(crate) fn trials(
    seeds: &RangeInclusive<u64>,
    peers: usize,
    questions: &[Question],
) -> anyhow::Result<()> {
    let all = Question::value_variants();
    for question in if questions.is_empty() { all } else { questions } {
        let answers: Result<Vec<f64>, Violation> =
            seeds.clone().map(|seed| question.answer(peers, seed)).collect();
        let mut answers = answers?;
        answers.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (answers.len() as f64 * share).ceil() as usize;
            answers.get(place.saturating_sub(1)).copied().unwrap_or_default()
        };
        println!(
            "{question:?}, {peers} peers, seeds {}..{}: p50 {:.3}, p99 {:.3}, max {:.3}, sum {:.3}",
            seeds.start(),
            seeds.end(),
            at(0.5),
            at(0.99),
            at(1.0),
            answers.iter().sum::<f64>()
        );
    }
    Ok(())
}
