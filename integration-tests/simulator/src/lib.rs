//! The simulator: many real [`grapevine_channels::node::Node`]s in one process under virtual time.
//!
//! # Promise
//! No socket, disk, clock or thread is used. One seed decides everything: the same [`Scenario`] and seed give the same
//! run, event for event, which the report's trace hash shows. What a peer's driver does in the real process (dialling,
//! verifying, writing, pulling from the orderer, keeping misbehaving peers out) is modelled by a host around
//! each node with the same rules and bounds.
//!
//! # What is modelled
//! Connections are streams: frames arrive in order or not at all. [`links`] say how long one takes. A direction that is
//! cut holds frames back; healed in time they arrive late, after `broken_after` the connection breaks at both ends. A
//! crash loses everything but the ledger and the incarnation; a paused peer gets all it missed at once when it
//! resumes. Verification and disk take time. Blocks have no bodies, only sizes, so large blocks cost no memory.
//!
//! # What is measured
//! An [`Experiment`] runs one protocol over many placements and gives times to the last peer ÷ what is possible, copies and misses; the
//! baselines that are not modes of the node are models over the same links.
//!
//! # What is checked
//! The [`checker`](Violation) knows the truth and trusts no machine: see `checker.rs` for the list. Small checks run at every event,
//! whole ones every 1,000 events and at the end. A run ends when, after the last fault and block, everybody has
//! everything and agrees about the leaders, or with a [`Violation`] when that takes too long.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod carry_out;
mod catch_up;
mod checker;
#[cfg(test)]
mod checker_tests;
mod deliver;
mod event;
mod experiment;
mod fault;
mod forger;
mod host;
pub mod links;
mod measured;
mod models;
mod network;
mod orderer;
mod outcome;
mod report;
mod scenario;
mod scenario_file;
mod scoreboard;
mod settled;
mod simulation;
mod streams;
pub mod trials;
mod truth;
mod warm;

pub use catch_up::{CatchUp, CaughtUp};
pub use checker::Violation;
pub use experiment::{Experiment, Protocol};
pub use fault::{Fault, Target, chaos, random_faults};
pub use links::{Delivery, Distance, Latency, Wire};
pub use measured::Measured;
pub use outcome::{BlockOutcome, Outcome};
pub use report::Report;
pub use scenario::{ChannelPlan, Leadership, Organization, Scenario, Settings};
pub use scenario_file::{Expect, ScenarioFile, ScenarioFileError};
pub use scoreboard::Row;
pub use simulation::Simulation;
pub use truth::{ChannelIndex, Site};
