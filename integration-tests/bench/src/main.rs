//! `grapevine-bench`: measures real processes on this machine: peers and an orderer as `grapevine net init` sets them up, started, loaded,
//! watched and stopped by the harness `grapevine-network`.
//!
//! Each command is a module with its arguments, its measures (the fields of its JSON) and how they are taken. Absolute times differ from machine to
//! machine and with what else runs on it; compare what one run measured.
//!
//! Exit status: 0 with a result, 1 without, 130 after Ctrl-C, 143 after SIGTERM. Whatever happens, no process, namespace or directory is left behind.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod burden;
mod catch_up;
mod crash;
mod deliver;
mod dissemination;
mod failover;
mod follower;
mod gossipsub;
mod idle;
mod ledger;
mod network;
mod output;
mod plot;
mod sample;
mod wait;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use grapevine_network::Interrupt;

/// Measures real processes on this machine.
#[derive(Debug, Parser)]
#[command(name = "grapevine-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How blocks spread from the orderer to all peers, by several protocols
    Dissemination(dissemination::Arguments),
    /// How long blocks stay away when the leader goes
    Failover(failover::Arguments),
    /// What peers cost while nothing happens
    Idle(idle::Arguments),
    /// How fast a peer that is behind catches up
    CatchUp(catch_up::Arguments),
    /// What peers that catch up cost those that have everything
    Burden(burden::Arguments),
    /// What clients that follow live blocks cost the peer they follow
    Deliver(deliver::Arguments),
    /// What a peer that is killed again and again has lost
    Crash(crash::Arguments),
    /// What the ledger writes for each byte committed, and how long it takes to open
    Ledger(ledger::Arguments),
    /// What `crash` starts
    #[command(name = crash::COMMAND, hide = true)]
    CrashPeer(crash::PeerArguments),
    /// What `dissemination` starts
    #[command(name = gossipsub::COMMAND, hide = true)]
    GossipsubPeer(gossipsub::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Children are to be killed, or have their own handlers of signals.
    let child = match &arguments.command {
        Command::CrashPeer(arguments) => Some(crash::run_peer(arguments)),
        Command::GossipsubPeer(arguments) => Some(gossipsub::run(arguments).map(|()| ExitCode::SUCCESS)),
        _ => None,
    };
    match child {
        Some(Ok(code)) => return code,
        Some(Err(error)) => {
            eprintln!("bench: {error:#}");
            return ExitCode::FAILURE;
        }
        None => {}
    }
    let interrupt = match Interrupt::on_signals() {
        Ok(interrupt) => interrupt,
        Err(error) => {
            eprintln!("bench: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let result = match &arguments.command {
        Command::Dissemination(arguments) => dissemination::run(arguments, &interrupt),
        Command::Failover(arguments) => failover::run(arguments, &interrupt),
        Command::Idle(arguments) => idle::run(arguments, &interrupt),
        Command::CatchUp(arguments) => catch_up::run(arguments, &interrupt),
        Command::Burden(arguments) => burden::run(arguments, &interrupt),
        Command::Deliver(arguments) => deliver::run(arguments, &interrupt),
        Command::Crash(arguments) => crash::run(arguments, &interrupt),
        Command::Ledger(arguments) => ledger::run(arguments),
        // Ended above.
        Command::CrashPeer(_) | Command::GossipsubPeer(_) => Ok(()),
    };
    if let Some(status) = interrupt.exit_status() {
        eprintln!("bench: stopped; every process is gone");
        return ExitCode::from(status);
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
