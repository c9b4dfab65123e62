//! `grapevine-simulator trials`: questions about membership and leadership, answered for many seeds and held against their goals.

use std::io::Write as _;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use grapevine_simulator::Violation;
use grapevine_simulator::trials::{
    Death, cuts, death_noticed, healed, healthy_declared_dead, idle_bytes, joined, leader_gap, rejoin_gap,
    started_leaders, started_together,
};
use serde::Serialize;

/// Which seeds, questions and sizes.
#[derive(Debug, clap::Args)]
pub(crate) struct Trials {
    /// Seeds, as first..last, both run.
    #[arg(long, value_parser = crate::seeds)]
    seeds: RangeInclusive<u64>,
    /// Peers, where the question has no fixed number; without it each question is asked at the sizes of its goals.
    #[arg(long)]
    peers: Option<usize>,
    /// Trials run at a time.
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Also writes the answers as a JSON array to this file; - is standard output, instead of the lines.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The questions, all if none is named.
    #[arg(value_enum)]
    questions: Vec<Question>,
}

/// What a trial answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Question {
    /// Longest gap without a block at any peer when the leader is killed, seconds.
    GapKilled,
    /// The same when it stops in order.
    GapStopped,
    /// The same when nothing is heard of it any more.
    GapSilent,
    /// The same at the others when the peer of lowest PKI-ID comes back 100,000 blocks behind.
    GapRejoin,
    /// Until all others hold a killed peer for dead, seconds.
    DeadKilled,
    /// The same for one of which nothing is heard any more.
    DeadSilent,
    /// Until a new member knows all and is known to all, seconds.
    Joined,
    /// Until peers that start at once know each other, seconds.
    Started,
    /// Peers that ever lead when all start at once while blocks are made.
    StartLeaders,
    /// Bytes the orderer sends then ÷ bytes of the blocks.
    StartEgress,
    /// Control bytes that a peer of an idle network receives a second, over a minute.
    Idle,
    /// Healthy peers declared dead in five node-hours, a tenth of the peers standing still now and then.
    FalseDeaths,
    /// Until five peers have one leader and equal heights after one-way cuts heal, seconds; the seeds go through the 210 sets of one or two.
    Cuts,
}

/// Which of the answers is held against the goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Statistic {
    P99,
    Max,
    Sum,
}

/// What an answer must not exceed.
type Goal = (Statistic, f64);

impl Question {
    /// The sizes asked for, and what the answer should be there.
    fn goals(self) -> &'static [(usize, Option<Goal>)] {
        use Statistic::{Max, P99, Sum};
        match self {
            Self::GapKilled | Self::GapSilent => &[(100, Some((P99, 2.0)))],
            Self::GapStopped => &[(100, None)],
            Self::GapRejoin => &[(20, Some((Max, 0.5)))],
            Self::DeadKilled | Self::DeadSilent => &[(100, Some((P99, 3.0)))],
            Self::Joined => &[(100, Some((Max, 0.6))), (1_000, Some((Max, 1.0)))],
            Self::Started => &[(1_000, Some((Max, 5.0)))],
            Self::StartLeaders => &[(20, Some((Max, 3.0)))],
            Self::StartEgress => &[(20, Some((Max, 1.05)))],
            Self::Idle => &[(20, Some((Max, 1_500.0))), (1_000, Some((Max, 5_000.0)))],
            Self::FalseDeaths => &[(100, Some((Sum, 0.0)))],
            Self::Cuts => &[(5, Some((Max, 3.0)))],
        }
    }

    fn answer(self, peers: usize, seed: u64) -> Result<f64, Violation> {
        let time = match self {
            Self::GapKilled => leader_gap(peers, Death::Killed, seed)?,
            Self::GapStopped => leader_gap(peers, Death::Stopped, seed)?,
            Self::GapSilent => leader_gap(peers, Death::Silent, seed)?,
            Self::GapRejoin => rejoin_gap(peers, seed)?,
            Self::DeadKilled => death_noticed(peers, Death::Killed, seed)?,
            Self::DeadSilent => death_noticed(peers, Death::Silent, seed)?,
            Self::Joined => joined(peers, seed)?,
            Self::Started => started_together(peers, seed)?,
            Self::StartLeaders => return Ok(started_leaders(peers, seed)?.leaders as f64),
            Self::StartEgress => return Ok(started_leaders(peers, seed)?.orderer_egress_blocks),
            Self::Idle => return idle_bytes(peers, Duration::from_secs(60), seed),
            Self::FalseDeaths => {
                let five_node_hours = Duration::from_secs(5 * 3_600) / u32::try_from(peers).unwrap_or(1);
                return Ok(healthy_declared_dead(peers, five_node_hours, seed)? as f64);
            }
            Self::Cuts => {
                let all = cuts();
                let place = usize::try_from(seed).unwrap_or_default() % all.len();
                healed(&all[place], seed)?
            }
        };
        Ok(time.as_secs_f64())
    }

    /// As on the command line.
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

#[derive(Debug, Serialize)]
struct Answer {
    question: String,
    peers: usize,
    first_seed: u64,
    last_seed: u64,
    p50: f64,
    p99: f64,
    max: f64,
    sum: f64,
    goal: Option<f64>,
    /// What the goal is about.
    statistic: Option<Statistic>,
    met: Option<bool>,
}

impl Answer {
    fn new(
        question: Question,
        peers: usize,
        seeds: &RangeInclusive<u64>,
        mut answers: Vec<f64>,
        goal: Option<Goal>,
    ) -> Self {
        answers.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (answers.len() as f64 * share).ceil() as usize;
            answers.get(place.saturating_sub(1)).copied().unwrap_or_default()
        };
        let (p99, max, sum) = (at(0.99), at(1.0), answers.iter().sum::<f64>());
        let met = goal.map(|(statistic, goal)| {
            let value = match statistic {
                Statistic::P99 => p99,
                Statistic::Max => max,
                Statistic::Sum => sum,
            };
            value <= goal
        });
        let (statistic, goal) = goal.unzip();
        let (first_seed, last_seed) = (*seeds.start(), *seeds.end());
        let question = question.name();
        Self { question, peers, first_seed, last_seed, p50: at(0.5), p99, max, sum, goal, statistic, met }
    }

    fn line(&self) -> String {
        let goal = match (self.statistic, self.goal) {
            (Some(statistic), Some(goal)) => format!("{statistic:?} ≤ {goal}").to_lowercase(),
            _ => "none".to_owned(),
        };
        let met = match self.met {
            Some(true) => ", met",
            Some(false) => ", MISSED",
            None => "",
        };
        format!(
            "{}, {} peers, seeds {}..{}: p50 {:.3}, p99 {:.3}, max {:.3}, sum {:.3}; goal {goal}{met}",
            self.question,
            self.peers,
            self.first_seed,
            self.last_seed,
            self.p50,
            self.p99,
            self.max,
            self.sum
        )
    }
}

impl Trials {
    /// Asks, prints, and fails if a goal was missed.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let to_stdout = self.json.as_deref() == Some(Path::new("-"));
        let all = Question::value_variants();
        let mut answers = Vec::new();
        for question in if self.questions.is_empty() { all } else { &self.questions } {
            for (size, goal) in question.sizes(self.peers) {
                let answer = Answer::new(*question, size, &self.seeds, self.ask(*question, size)?, goal);
                if !to_stdout {
                    writeln!(std::io::stdout(), "{}", answer.line())?;
                }
                answers.push(answer);
            }
        }
        let json = serde_json::to_string_pretty(&answers)?;
        match &self.json {
            Some(_) if to_stdout => writeln!(std::io::stdout(), "{json}")?,
            Some(path) => {
                std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
            }
            None => {}
        }
        let missed = answers.iter().filter(|answer| answer.met == Some(false)).count();
        if missed > 0 {
            bail!("{missed} of {} goals were missed", answers.len());
        }
        Ok(())
    }

    fn ask(&self, question: Question, peers: usize) -> anyhow::Result<Vec<f64>> {
        let next = AtomicU64::new(*self.seeds.start());
        let work = || {
            let mut answers = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if !self.seeds.contains(&seed) {
                    return Ok::<_, Violation>(answers);
                }
                answers.push(question.answer(peers, seed)?);
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads.max(1)).map(|_| scope.spawn(work)).collect();
            let mut all = Vec::new();
            for thread in threads {
                all.extend(thread.join().map_err(|_| anyhow::anyhow!("a trial panicked"))??);
            }
            Ok(all)
        })
    }
}

impl Question {
    /// The sizes of its goals, or only this one, with the goal for it if there is one.
    fn sizes(self, peers: Option<usize>) -> Vec<(usize, Option<Goal>)> {
        let goals = self.goals();
        match (peers, self) {
            (Some(peers), question) if question != Self::Cuts => {
                let goal = goals.iter().find(|(size, _)| *size == peers).and_then(|(_, goal)| *goal);
                vec![(peers, goal)]
            }
            _ => goals.to_vec(),
        }
    }
}
