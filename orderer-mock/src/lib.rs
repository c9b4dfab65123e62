//! A stand-in for a Hyperledger Fabric ordering service, for demonstrations and tests.
//!
//! It speaks Fabric's gRPC service `orderer.AtomicBroadcast` ([`rpc`]) over TLS or plain text, serves any number of
//! channels, each from its genesis block, cuts batches as Fabric does ([`cutter`]), signs blocks ([`writer`]), and keeps
//! them on disk ([`store`]) so that a restart continues the chain. One process, one signer: no consensus, and no
//! protection against its own operator.
//!
//! The way of a transaction: [`service`] → [`broadcast`] (checks) → [`chain`] (queue, cutter, timer) → [`writer`] →
//! [`store`] (sync) → every [`deliver`] stream that waits for it.
//!
//! [`server`] starts and stops it all; [`faults`] make it misbehave, by command over the socket of [`control`];
//! [`submit`] is a client that turns a file into transactions, [`update`] one that changes a channel's config.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod broadcast;
pub mod chain;
pub mod client;
mod clock;
mod connections;
pub mod control;
pub mod cutter;
pub mod deliver;
pub mod faults;
pub mod pieces;
pub mod registry;
pub mod rpc;
pub mod server;
pub mod service;
pub mod store;
pub mod submit;
#[cfg(feature = "testing")]
pub mod testing;
pub mod update;
pub mod writer;
