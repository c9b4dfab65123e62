//! What a channel is and how it behaves: blocks and their hash chain, channel configs and policies, and the state
//! machines that spread blocks among the members.
//!
//! Nothing here opens a socket, reads a clock or a file, or asks the operating system for randomness; all of it is
//! driven from outside. The data model comes first: [`block`] parses, [`verify`] decides what is authentic under a
//! [`config`], [`config_update`] leads from one config to the next; [`genesis`], [`transaction`] and [`sign`] make what
//! ordering services and clients send. Facts about Hyperledger Fabric cite its packages.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod authority;
pub mod block;
pub mod certificates;
pub mod chain;
pub mod channel_id;
pub mod config;
pub mod config_update;
pub mod deliver;
pub mod describe;
pub mod dissemination;
pub mod election;
pub mod genesis;
pub mod isolation;
pub mod membership;
pub mod node;
pub mod policy;
pub mod proto;
mod protobuf;
pub mod reconciliation;
pub mod restoration;
pub mod round_trip;
pub mod sign;
pub mod time;
pub mod transaction;
pub mod verify;
pub mod wire;

pub use channel_id::{ChannelId, ChannelIdError};
pub use protobuf::WireError;
