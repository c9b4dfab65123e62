//! Kills, many of them, each at another moment of a peer's life.
//!
//! The victim and a witness both pull from the orderer, as leaders of their own; what the victim missed while it was dead it asks of the
//! witness too. Every [`KILLS_PER_NETWORK`] kills a new network begins, so that some kills hit the making of a ledger and none gets large;
//! before that the victim's chain is verified whole.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use grapevine_disk_faults::DiskFaults;
use grapevine_durability::load::Random;
use grapevine_durability::{Death, Deaths, deadly};
use grapevine_network::{Interrupt, Network, NetworkConfig, Payload, ports::PortLease};

use super::check::Check;
use super::peer;
use super::reports::Reports;
use crate::follower::Follower;
use crate::network::{self, CHANNEL};

/// Kills after which everything begins anew.
const KILLS_PER_NETWORK: u64 = 100;
/// The peer that is killed.
const VICTIM: &str = "peer0";
/// How the process that is killed dies.
const DEATHS: Deaths = Deaths { life_ms_max: 600, passes_max: 40, calls_max: 300 };
/// A peer whose point does not come is killed after this long.
const PATIENCE: Duration = Duration::from_secs(3);
/// A peer is ready after this long, even on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Time between two looks at a peer.
const LOOK: Duration = Duration::from_millis(2);
/// What is submitted at a time: number and size of transactions, each a block, and how many a second.
const LOADS: [(usize, usize, f64); 2] = [(300, 5_000, 150.0), (10, 300_000, 20.0)];
/// Longest time of one submission.
const SUBMIT_WITHIN: Duration = Duration::from_secs(120);

/// What to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Campaign {
    pub(super) kills: u64,
    pub(super) drop_unsynced: bool,
    pub(super) seed: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    pub(super) kills: u64,
    pub(super) at_failpoints: u64,
    pub(super) at_system_calls: u64,
    pub(super) while_committing: u64,
    pub(super) reported_blocks: u64,
    pub(super) lost_blocks: u64,
    pub(super) restart_max: Duration,
}

impl Campaign {
    /// Kills until all is done or the program is interrupted.
    pub(super) fn run(&self, interrupt: &Interrupt) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut random = Random(self.seed);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        while outcome.kills < self.kills {
            let until = self.kills.min(outcome.kills.saturating_add(KILLS_PER_NETWORK));
            self.kill_until(until, &mut random, &mut outcome, &runtime, interrupt)?;
            eprintln!("{} of {} kills, {} blocks lost", outcome.kills, self.kills, outcome.lost_blocks);
        }
        Ok(outcome)
    }

    /// Kills in one network, then verifies what it has left.
    fn kill_until(
        &self,
        until: u64,
        random: &mut Random,
        outcome: &mut Outcome,
        runtime: &tokio::runtime::Runtime,
        interrupt: &Interrupt,
    ) -> anyhow::Result<()> {
        let lease = PortLease::take().context("cannot find a free port")?;
        let network = network(lease.address(), interrupt)?;
        network.start_all_but(&[VICTIM])?;
        let ledger = network.member(VICTIM)?.data.join(grapevine_peer::ledger::DIRECTORY);
        let orderer = *network.orderers().first().context("the network has an orderer")?;
        let mut victim = Victim {
            network: &network,
            disk: DiskFaults::new(&ledger, &network.directory().join("disk"))?,
            drop_unsynced: self.drop_unsynced,
            follower: Follower::new(&network, VICTIM, lease.address())?,
            runtime,
            reports: Reports::default(),
            check: Check::new(ledger, &network.member(orderer)?.data)?,
        };
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let load = scope.spawn(|| submit(&network, &stop));
            let killed = (outcome.kills..until).try_for_each(|kill| {
                network.check()?;
                let death = DEATHS.draw(kill, random);
                let about = || format!("kill {kill} of seed {}: {death:?}", self.seed);
                victim.live_and_die(death, outcome).with_context(about)
            });
            stop.store(true, Ordering::Release);
            let loaded = load.join().map_err(|_panic| anyhow::anyhow!("submitting failed"))?;
            killed.and(loaded)
        })?;
        outcome.reported_blocks = outcome.reported_blocks.saturating_add(victim.reports.height());
        network.start(VICTIM)?;
        network.wait_for_height(CHANNEL, &[VICTIM], victim.reports.height(), READY_WITHIN)?;
        victim.check.verify()
    }
}

/// A network of the victim, which listens for clients, and the witness.
fn network(address: SocketAddr, interrupt: &Interrupt) -> anyhow::Result<Network> {
    let listen = move |config: &mut NetworkConfig| {
        let mut peers = config.organizations.iter_mut().flat_map(|organization| &mut organization.peers);
        if let Some(victim) = peers.find(|peer| peer.name == VICTIM) {
            victim.deliver_listen_address = Some(address);
        }
    };
    let program = std::env::current_exe().context("cannot find this program")?;
    Ok(network::builder(2, interrupt)?
        .block_traces(false)
        .change(listen)
        .environment("CORE_PEER_GOSSIP_USELEADERELECTION", "false")
        .environment("CORE_PEER_GOSSIP_ORGLEADER", "true")
        .peer_command(program, [peer::COMMAND])
        .prepare()?)
}

/// Submits without rest.
fn submit(network: &Network, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut random = Random(1);
    for (count, bytes, rate) in LOADS.into_iter().cycle() {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let noise: Vec<u8> = std::iter::repeat_with(|| random.below(u64::MAX).to_ne_bytes())
            .take(count * bytes / 8)
            .flatten()
            .collect();
        let payload = Payload::bytes(noise).pieces(bytes).rate(rate);
        network.submit_in_background(CHANNEL, payload)?.wait(SUBMIT_WITHIN)?;
    }
    Ok(())
}

struct Victim<'a> {
    network: &'a Network,
    disk: DiskFaults,
    drop_unsynced: bool,
    follower: Follower,
    runtime: &'a tokio::runtime::Runtime,
    reports: Reports,
    check: Check,
}

impl Victim<'_> {
    /// One life, its end, and what is left.
    fn live_and_die(&mut self, death: Death, outcome: &mut Outcome) -> anyhow::Result<()> {
        let before = self.reports.height();
        let environment = self.environment(death)?;
        if let Death::AtSystemCall(operation, when) = death {
            self.disk.kill_at(operation, when)?;
        }
        self.network.launch_with(VICTIM, &environment)?;
        let started = Instant::now();
        let following = self.runtime.spawn(self.reports.clone().follow(self.follower.clone()));
        let by_itself = self.await_death(death, before, started, outcome);
        self.network.kill(VICTIM)?;
        following.abort();
        let by_itself = by_itself?;
        outcome.kills = outcome.kills.saturating_add(1);
        outcome.while_committing += u64::from(self.reports.height() > before);
        match death {
            Death::AtFailpoint(..) => outcome.at_failpoints += u64::from(by_itself),
            Death::AtSystemCall(..) => outcome.at_system_calls += u64::from(by_itself),
            Death::After(_) => anyhow::ensure!(!by_itself, "the peer ended by itself"),
        }
        if self.drop_unsynced {
            self.disk.lose_power()?;
        }
        let lost = self.check.lost(&self.reports)?;
        if lost > 0 {
            eprintln!("{lost} blocks that were reported as committed are lost: {death:?}");
            outcome.lost_blocks = outcome.lost_blocks.saturating_add(lost);
        }
        Ok(())
    }

    fn environment(&self, death: Death) -> anyhow::Result<Vec<(String, String)>> {
        let disk = self.disk.environment(self.drop_unsynced)?.into_iter();
        let mut environment: Vec<(String, String)> =
            disk.map(|(name, value)| (name.to_owned(), value.to_string_lossy().into_owned())).collect();
        if let Death::AtFailpoint(point, occurrence) = death {
            environment.push((deadly::VARIABLE.to_owned(), deadly::order(point, occurrence)));
        }
        Ok(environment)
    }

    /// Listens to the peer until it is to be killed or has killed itself; says which.
    fn await_death(
        &self,
        death: Death,
        before: u64,
        started: Instant,
        outcome: &mut Outcome,
    ) -> anyhow::Result<bool> {
        let mut deadline: Option<Instant> = None;
        loop {
            if !self.network.is_running(VICTIM)? {
                return Ok(true);
            }
            let status = self.network.look(VICTIM)?;
            if let Some(channel) = status.as_ref().and_then(|status| status.channel(CHANNEL))
                && let Some(number) = channel.height.checked_sub(1)
            {
                if deadline.is_none() && channel.height >= before {
                    if before > 0 {
                        outcome.restart_max = outcome.restart_max.max(started.elapsed());
                    }
                    let life = if let Death::After(life) = death { life } else { PATIENCE };
                    deadline = Some(Instant::now() + life);
                }
                self.reports.note(number, channel.tip.clone());
            }
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return Ok(false);
            }
            if deadline.is_none() && started.elapsed() > READY_WITHIN {
                bail!(
                    "the peer does not get ready; its log is {}",
                    self.network.member(VICTIM)?.log.display()
                );
            }
            std::thread::sleep(LOOK);
        }
    }
}
