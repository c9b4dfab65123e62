//! `grapevine net init`: from one description of a network to everything its processes need.
//!
//! Under the directory it makes
//!
//! ```text
//! crypto/peerOrganizations/<domain>/{ca,tlsca,msp,peers/<peer>/{msp,tls},users/{Admin,User1}@<domain>/{msp,tls}}
//! crypto/ordererOrganizations/<domain>/{ca,tlsca,msp,orderers/<orderer>/{msp,tls},users/Admin@<domain>/{msp,tls}}
//! channels/<channel>.block      genesis blocks
//! <peer>/peer.yaml              one directory per peer; its data go there too
//! <orderer>/orderer.yaml
//! client.yaml                   User1 of the first organisation, for `orderer-mock submit`
//! network.yaml                  the description, with the ports that were chosen
//! ```
//!
//! The first part is laid out as Fabric's `cryptogen` does it, so that Fabric's tools can use it. All paths inside
//! are relative: the directory can be moved. Private keys have mode 0600.
//!
//! What it promises about a directory that is there already: one that is not empty is refused, unless this command
//! made it (a marker says so, and lists what was made). Then exactly what the marker lists is removed first, ledgers
//! included, and files of others stay; while a process of the network still answers nothing is touched. The marker is
//! written before anything else, so that a run that was interrupted can be repeated.
//!
//! Certificates are valid from five minutes ago, for clocks that differ, and for ten years.

mod directory;
mod material;
mod ports;
mod processes;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use grapevine_channels::config::ConfigError as ChannelConfigError;
use grapevine_configs::{ConfigError, ConfigFile, NetworkConfig};
use grapevine_crypto::issue::IssueError;

/// What was made.
#[derive(Debug)]
pub struct InitReport {
    /// The directory.
    pub directory: PathBuf,
    /// Whether a network made earlier was replaced.
    pub replaced: bool,
    /// Orderers and peers, in the order of the description.
    pub processes: Vec<ProcessReport>,
    /// Genesis blocks: channel and file.
    pub channels: Vec<(String, PathBuf)>,
    /// Configuration of a client.
    pub client: PathBuf,
    /// The description with every port chosen.
    pub network: NetworkConfig,
}

/// A process of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessReport {
    /// Full name, which is its certificate's common name and the name of its directory.
    pub name: String,
    /// MSP id of its organisation.
    pub msp_id: String,
    /// What it is.
    pub kind: ProcessKind,
    /// Its configuration file.
    pub config: PathBuf,
    /// Where it listens.
    pub listen_address: std::net::SocketAddr,
}

/// Kinds of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessKind {
    /// Started with `grapevine run`.
    Peer,
    /// Started with `orderer-mock run`.
    Orderer,
}

/// Why a network could not be made. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum NetInitError {
    /// The description is not usable.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The directory holds other things.
    #[error("{} is not empty and was not made by net init; name another directory, or empty this one", .0.display())]
    NotEmpty(PathBuf),
    /// A network made earlier is still running.
    #[error("{name} of the network in {} is still running; stop it first", directory.display())]
    Running {
        /// The directory.
        directory: PathBuf,
        /// The process.
        name: String,
    },
    /// The marker of an earlier run is damaged.
    #[error("{} does not look as net init wrote it; remove the directory by hand if nothing in it is needed", .0.display())]
    Marker(PathBuf),
    /// A file cannot be read, written or removed.
    #[error("cannot {action} {}: {source}; check permissions and free space", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Port 0 was asked for on an address of another machine.
    #[error(
        "{name}: no port can be chosen on {address}, which is no address of this machine; write a port instead of 0"
    )]
    ForeignAddress {
        /// The process.
        name: String,
        /// The address.
        address: std::net::IpAddr,
    },
    /// No free port was found.
    #[error("{name}: no free port from {first} to {last} on {address}; stop something, or write a port instead of 0", first = ports::FIRST, last = ports::LAST)]
    NoPort {
        /// The process.
        name: String,
        /// The address.
        address: std::net::IpAddr,
    },
    /// A certificate or MSP directory cannot be made.
    #[error("{what}: {source}")]
    Issue {
        /// For whom.
        what: String,
        /// Why.
        source: IssueError,
    },
    /// A genesis block cannot be made.
    #[error("channel {channel}: {source}")]
    Channel {
        /// The channel.
        channel: String,
        /// Why.
        source: ChannelConfigError,
    },
}

impl NetInitError {
    fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File { action, path, source }
    }
}

/// Makes the network `config` describes in `dir`. `now_unix_seconds` is the time certificates and genesis blocks get.
///
/// # Errors
/// [`NetInitError`]; nothing is changed if the description is wrong, the directory is not ours, or a process of an
/// earlier network in it still answers.
pub fn net_init(
    config: &NetworkConfig,
    dir: &Path,
    now_unix_seconds: i64,
) -> Result<InitReport, NetInitError> {
    config.validate()?;
    let replaced = directory::check(dir)?;
    let mut network = config.clone();
    ports::choose(&mut network, dir)?;
    let processes = processes::list(&network, dir);
    let mut entries: Vec<&str> = vec!["crypto", "channels", "client.yaml", "network.yaml"];
    entries.extend(processes.iter().map(|process| process.name.as_str()));
    directory::prepare(dir, &entries)?;

    let organizations = material::issue(&network, dir, now_unix_seconds)?;
    let channels = material::genesis_blocks(&network, &organizations, dir, now_unix_seconds)?;
    processes::write(&network, dir)?;
    directory::write(&dir.join("network.yaml"), network.to_yaml()?.as_bytes())?;
    let client = dir.join(processes::CLIENT_FILE);
    Ok(InitReport { directory: dir.to_path_buf(), replaced, processes, channels, client, network })
}
