//! Tests of a whole network, with real processes, in a few lines.
//!
//! ```no_run
//! use std::time::Duration;
//! use grapevine_network::{Network, NetworkError, Payload};
//!
//! # fn main() -> Result<(), NetworkError> {
//! let network = Network::builder().start()?;                       // or .config("network.yaml")
//! network.submit("trade", Payload::lines(["one", "two", "three"]))?;
//! network.wait_for_sync("trade", Duration::from_secs(20))?;
//! let ledgers = network.assert_ledgers_identical("trade")?;
//! assert_eq!(ledgers.payload, b"one\ntwo\nthree\n");
//! network.assert_holds_nothing_of("peer0.org2", "audit")?;
//! # Ok(())
//! # }
//! ```
//!
//! What the harness promises:
//! - **Real processes**: `grapevine net init` makes certificates and genesis blocks from a `network.yaml`; every peer and orderer is a process of
//!   its own in a temporary directory, with its log in a file. Missing or outdated binaries are built first ([`binaries`]).
//! - **Nothing is left behind**: processes die with the [`Network`], with a panic, with Ctrl-C and with `kill -9` of the test ([`process`]).
//! - **Tests can run side by side**: all ports are leased, inside a process and between processes ([`ports`]).
//! - **Deadlines, no sleeps**: every wait has a deadline and polls; a process that ends by itself ends the wait. Errors show what was seen last
//!   and the last lines of the logs concerned ([`error`]).
//! - **Trouble on demand**: [`Network::kill`], [`Network::freeze`], [`Network::stop`] for every process, and with `.links(true)`
//!   [`Network::cut`] and [`Network::cut_off`] for every ordered pair of processes, without root ([`links`]).
//! - **Limited links on demand**: with `.link_mbit(100)` every process sits in a network namespace behind a limit; as root ([`namespaces`]).
//!
//! A network whose test panics keeps its directory and prints where it is; `GRAPEVINE_KEEP=1` keeps all of them.
//! Linux only: signals, `/proc` and `setpriv` are used.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod binaries;
pub mod builder;
pub mod error;
pub mod interrupt;
pub mod ledgers;
pub mod links;
pub mod measure;
pub mod member;
pub mod namespaces;
mod network;
pub mod payload;
mod plan;
pub mod ports;
pub mod process;
pub mod status;
mod tools;
pub mod wait;

pub use builder::NetworkBuilder;
pub use error::NetworkError;
pub use grapevine_configs::NetworkConfig;
pub use interrupt::Interrupt;
pub use ledgers::{Chain, LedgerSummary};
pub use links::Cut;
pub use measure::Traffic;
pub use member::Member;
pub use namespaces::Namespaces;
pub use network::{Network, STOP_WITHIN};
pub use payload::{Payload, Submission};
pub use status::{Equivocation, Status};
