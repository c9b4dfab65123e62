//! One process of the network as it lies on disk.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use grapevine_configs::{ConfigFile, OrdererConfig, PeerConfig};

use crate::error::NetworkError;
use crate::plan::Place;
use crate::ports::PortLease;

/// A peer or an orderer of a network, running or not.
#[derive(Debug)]
pub struct Member {
    /// Full name, for example `peer0.org1.example.com`.
    pub name: String,
    /// Organisation of a peer; `None` for an orderer.
    pub msp_id: Option<String>,
    /// The channels it joins at its start; all of them for an orderer.
    pub channels: Vec<String>,
    /// Its `peer.yaml` or `orderer.yaml`, which a test may change before it starts the process.
    pub config: PathBuf,
    /// Where it keeps its blocks: the peer's `fileSystemPath`, the orderer's `FileLedger.Location`.
    pub data: PathBuf,
    /// Everything it wrote to standard output and standard error, over all its starts.
    pub log: PathBuf,
    /// The way of its blocks, over all its starts, if the network was started with block traces.
    pub trace: PathBuf,
    listen: SocketAddr,
    _lease: PortLease,
}

impl Member {
    /// Reads what `net init` has made for this process.
    pub(crate) fn read(place: Place, root: &Path, logs: &Path) -> Result<Self, NetworkError> {
        let directory = root.join(&place.name);
        let wrong = |error: grapevine_configs::ConfigError| NetworkError::Answer {
            from: "grapevine net init".to_owned(),
            reason: error.to_string(),
        };
        let nothing = std::iter::empty();
        let (config, data) = if place.msp_id.is_some() {
            let path = directory.join("peer.yaml");
            let (config, _warnings) = PeerConfig::load(&path, nothing).map_err(wrong)?;
            (path, config.peer.file_system_path)
        } else {
            let path = directory.join("orderer.yaml");
            let (config, _warnings) = OrdererConfig::load(&path, nothing).map_err(wrong)?;
            (path, config.file_ledger.location)
        };
        let log = logs.join(format!("{}.log", place.name));
        let trace = logs.join(format!("{}.trace", place.name));
        let Place { name, msp_id, channels, listen, lease } = place;
        Ok(Self { name, msp_id, channels, config, data, log, trace, listen, _lease: lease })
    }

    /// True for a peer, false for an orderer.
    #[must_use]
    pub const fn is_peer(&self) -> bool {
        self.msp_id.is_some()
    }

    /// Where the process listens; with links, others are told another address.
    #[must_use]
    pub const fn listen_address(&self) -> SocketAddr {
        self.listen
    }

    /// True if it joins this channel at its start.
    #[must_use]
    pub fn joins(&self, channel: &str) -> bool {
        self.channels.iter().any(|joined| joined == channel)
    }

    /// The admin socket of a peer.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.data.join("admin.sock")
    }

    /// The control socket of an orderer.
    pub(crate) fn control_socket(&self) -> PathBuf {
        self.data.join("control.sock")
    }
}
