//! Trials of membership: who is known, who is held for dead, and what that costs.

use std::time::Duration;

use grapevine_channels::membership::MemberState;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::{BEGIN, Death, Trial, quiet, state};
use crate::checker::Violation;
use crate::fault::{Fault, Target};

/// How long it takes until all others hold a peer for dead that went.
///
/// # Errors
/// A violation, or somebody who never notices.
pub fn death_noticed(peers: usize, death: Death, seed: u64) -> Result<Duration, Violation> {
    let mut trial = Trial::new(quiet(peers), seed)?;
    trial.advance(BEGIN)?;
    let gone = usize::try_from(seed).unwrap_or_default() % peers;
    trial.kill(gone, death)?;
    trial.until("noticed the death", |simulation| {
        (0..peers)
            .filter(|peer| *peer != gone)
            .all(|peer| state(simulation, peer, gone) == Some(MemberState::Dead))
    })
}

/// How long it takes until a new member and all others know each other, from its start.
///
/// # Errors
/// A violation, or views that stay different.
pub fn joined(peers: usize, seed: u64) -> Result<Duration, Violation> {
    let newcomer = peers - 1;
    let mut scenario = quiet(peers);
    scenario.starts.insert(newcomer, BEGIN);
    let mut trial = Trial::new(scenario, seed)?;
    trial.advance(BEGIN)?;
    trial.until("knew the new member and were known to it", |simulation| {
        (0..newcomer).all(|peer| {
            state(simulation, peer, newcomer) == Some(MemberState::Alive)
                && state(simulation, newcomer, peer) == Some(MemberState::Alive)
        })
    })
}

/// How long it takes until peers that start at once all know each other.
///
/// # Errors
/// A violation, or views that stay different.
pub fn started_together(peers: usize, seed: u64) -> Result<Duration, Violation> {
    let mut trial = Trial::new(quiet(peers), seed)?;
    trial.until("all knew each other", |simulation| {
        (0..peers).all(|peer| {
            let node = simulation.hosts[peer].node.as_ref();
            let members = node.map(|node| node.membership().members());
            members.is_some_and(|members| {
                members.len() + 1 == peers
                    && members.values().all(|member| member.state == MemberState::Alive)
            })
        })
    })
}

/// Bytes of control frames that a peer of an idle network receives a second.
///
/// # Errors
/// A violation.
pub fn idle_bytes(peers: usize, length: Duration, seed: u64) -> Result<f64, Violation> {
    let mut trial = Trial::new(quiet(peers), seed)?;
    trial.advance(BEGIN + Duration::from_secs(10))?;
    let (start, before) = (trial.simulation.now, trial.simulation.measurements.control_bytes_received);
    trial.advance(start + length)?;
    let received = trial.simulation.measurements.control_bytes_received - before;
    Ok(received as f64 / length.as_secs_f64() / peers as f64)
}

/// How often a healthy peer is declared dead while a tenth of the peers stand still now and then for 1 to 30 s.
///
/// # Errors
/// A violation.
pub fn healthy_declared_dead(peers: usize, length: Duration, seed: u64) -> Result<u64, Violation> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x9a05);
    let mut scenario = quiet(peers);
    for peer in 0..peers.div_ceil(10) {
        let mut at = BEGIN;
        while at < BEGIN + length {
            at = at + Duration::from_millis(rng.random_range(2_000..60_000));
            scenario.faults.push((at, Fault::Pause(Target::Peer(peer))));
            at = at + Duration::from_millis(rng.random_range(1_000..30_000));
            scenario.faults.push((at, Fault::Resume(peer)));
        }
    }
    let mut trial = Trial::new(scenario, seed)?;
    trial.advance(BEGIN + length)?;
    Ok(trial.simulation.measurements.healthy_declared_dead)
}
