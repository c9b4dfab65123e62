//! Typed YAML configuration of Grapevine: [`NetworkConfig`] (what `grapevine net init` builds from),
//! [`PeerConfig`], [`OrdererConfig`] and [`ClientConfig`].
//!
//! What every `load` promises:
//! - Keys have the names of Fabric's `core.yaml` and `orderer.yaml` where they mean the same; Fabric's other keys
//!   give one warning that lists them, so that Fabric's files load. Letters may be in either case, as in Fabric.
//! - An unknown key is an error with the nearest known name; so is an unknown `CORE_PEER_…` or
//!   `ORDERER_GENERAL_…` variable.
//! - Variables override the file: `CORE_PEER_GOSSIP_USELEADERELECTION=false`. The environment is an argument;
//!   nothing here looks at the process.
//! - Every problem is reported at once, one line each: file, line, key, what is wrong, what to do. Broken YAML
//!   is shown with the lines around the place.
//! - Relative paths are relative to the directory of the file.
//! - What `to_yaml` writes reads back as the same configuration.
//!
//! Values only: no file named in a configuration is opened here.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod client;
mod document;
mod endpoint;
mod error;
mod fabric;
pub mod gossip;
mod hint;
mod load;
pub mod network;
mod network_rules;
pub mod orderer;
pub mod peer;
mod reader;
mod units;

pub use client::{ClientConfig, ClientSection, ClientTls};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{ConfigError, Origin, Problem, Warning};
pub use gossip::{
    DisseminationMode, ElectionConfig, GossipConfig, GossipOverrides, OnEquivocation, StateConfig,
};
pub use load::ConfigFile;
pub use network::NetworkConfig;
pub use orderer::OrdererConfig;
pub use peer::{
    AddressOverride, DeliverServiceConfig, DeliveryClientConfig, FileKey, FilesKey, LedgerConfig, PeerConfig,
    TlsConfig,
};
pub use units::{ByteSize, Period, UnitError};
