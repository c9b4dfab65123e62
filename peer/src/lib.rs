//! The Grapevine peer: takes the blocks of its channels from an orderer or from other peers, checks them and keeps them.
//!
//! This crate is the driver around the state machines of `grapevine-channels`: it owns sockets, disk, clock and randomness, and
//! takes no protocol decision of its own. The binary `grapevine` is a thin wrapper around [`cli`].
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod admin;
pub mod cli;
pub mod deliver;
pub mod deliver_server;
pub mod driver;
pub mod history;
pub mod ledger;
pub mod net;
pub mod net_init;
pub mod signing;
mod terminal;
