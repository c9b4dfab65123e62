//! Links between sites: how long what is sent takes, and what gets in its way.
//!
//! # Model
//! Every site hangs on the network by one full-duplex access link. What leaves a site is serialised by its uplink,
//! travels for the pair's one-way latency, and is serialised again by the receiver's downlink while it comes in: one
//! transfer over idle links of equal bandwidth takes `bytes ÷ bandwidth + latency`, not twice the first.
//! * *Control* has its own priority, as in the transport: frames wait for frames alone, and what they take of a link is taken from the
//!   bulk that is under way.
//! * *Bulk* waits its turn: whole transfers in the order they were sent ([`Sharing::Fifo`]), or chunk by chunk, each receiver in its turn
//!   ([`Sharing::Fair`], what parallel TCP connections give).
//! * [`Jitter`] and [`Loss`] delay single messages; a stream stays in order, so what follows waits too. [`Loss::Reset`] breaks
//!   the connection instead.
//!
//! Nothing here knows what is sent: [`Wire`] is generic over it, and one wire serves nodes and protocol models alike.
//! Cuts, crashes and connections are the network's.
//!
//! # Contract
//! [`Wire::send`] at the present time; [`Wire::step`] when [`Wire::next`] has come. The same calls give the same deliveries.

mod latency;
#[cfg(test)]
mod tests;
mod uplink;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

pub use latency::{Distance, Latency};
pub use wire::{Delivery, PROGRESS, Wire};

use crate::truth::Site;

/// Bytes per second of 1 Gbit/s.
pub const GIGABIT: u64 = 125_000_000;
/// Bytes of a chunk under [`Sharing::Fair`]: the transport's.
pub const CHUNK_BYTES: usize = 64 << 10;
/// A small frame takes so much of a link: headers of the secure channel, the multiplexer and the length.
pub const FRAME_BYTES_MIN: usize = 48;

/// How bulk transfers share an uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// One after the other.
    Fifo,
    /// Each receiver in its turn, one chunk at a time.
    Fair,
}

/// Extra time of single messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jitter {
    /// None.
    None,
    /// Evenly up to this.
    Uniform(Duration),
    /// Exponentially with this mean.
    Exponential(Duration),
}

/// What becomes of lost packets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// Nothing is lost.
    None,
    /// A message is hit with this probability and comes a round trip and `timeout` later.
    Retransmit {
        /// Share of messages that are hit.
        probability: f64,
        /// The sender's patience: 200 ms for Linux' TCP where nothing follows the lost packet.
        timeout: Duration,
    },
    /// A message is hit with this probability, and the connection breaks.
    Reset {
        /// Share of messages that are hit.
        probability: f64,
    },
}

/// What links are like, but for their latency.
#[derive(Debug, Clone)]
pub struct LinkSettings {
    /// Bytes per second of every uplink; `None`: no limit.
    pub up: Option<u64>,
    /// Bytes per second of every downlink; `None`: no limit.
    pub down: Option<u64>,
    /// How bulk shares an uplink.
    pub sharing: Sharing,
    /// Extra time of single messages.
    pub jitter: Jitter,
    /// Lost packets.
    pub loss: Loss,
    /// Sites whose links are slower by this factor, both ways.
    pub slow: BTreeMap<Site, f64>,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self {
            up: None,
            down: None,
            sharing: Sharing::Fifo,
            jitter: Jitter::None,
            loss: Loss::None,
            slow: BTreeMap::new(),
        }
    }
}

impl LinkSettings {
    /// The same bandwidth up and down, in bytes per second.
    pub fn of_bandwidth(bytes_per_second: u64) -> Self {
        Self { up: Some(bytes_per_second), down: Some(bytes_per_second), ..Self::default() }
    }
}

/// Control goes before bulk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Small frames.
    Control,
    /// Blocks.
    Bulk,
}
