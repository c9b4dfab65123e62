//! The data model against chains made by Fabric's own orderers, and against everything a hostile peer may send.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod blocks;
mod chain_flips;
mod config_updates;
mod configs;
mod describe;
mod forgeries;
mod genesis_blocks;
mod headers;
mod network;
mod policies;
mod reading;
mod transactions;
mod vectors;
