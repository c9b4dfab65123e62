//! Describing a network and starting it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use grapevine_configs::{ConfigFile, NetworkConfig};

use crate::binaries::Binaries;
use crate::error::NetworkError;
use crate::links::Links;
use crate::member::Member;
use crate::namespaces::Namespaces;
use crate::network::Network;
use crate::plan;

/// The network a test gets that names none: two organisations with two peers each, one orderer, channel `trade` of both
/// and channel `audit` of Org1 alone, with fast timers.
pub const TWO_ORGANIZATIONS: &str = include_str!("../networks/two-organizations.yaml");

/// A Unix socket's path has at most 107 bytes; this much of it is left for what is below the directory of the network.
const DIRECTORY_BYTES_MAX: usize = 50;

/// Where the description of a network comes from.
#[derive(Debug, Clone)]
pub enum Description {
    /// A `network.yaml`.
    File(PathBuf),
    /// A description made or changed by the test.
    Config(Box<NetworkConfig>),
}

impl From<NetworkConfig> for Description {
    fn from(config: NetworkConfig) -> Self {
        Self::Config(Box::new(config))
    }
}

impl From<PathBuf> for Description {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&Path> for Description {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

impl From<&str> for Description {
    fn from(path: &str) -> Self {
        Self::File(path.into())
    }
}

type Change = Box<dyn FnOnce(&mut NetworkConfig)>;

/// What is to run, and how. Made by [`Network::builder`].
#[must_use]
pub struct NetworkBuilder {
    description: Option<Description>,
    changes: Vec<Change>,
    links: bool,
    link_mbit: Option<u32>,
    held_back: Vec<String>,
    block_traces: bool,
    environment: Vec<(String, String)>,
    peer_command: Option<(PathBuf, Vec<String>)>,
    interrupted: Arc<AtomicBool>,
    start_within: Duration,
    keep: bool,
}

impl std::fmt::Debug for NetworkBuilder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("NetworkBuilder")
            .field("description", &self.description)
            .field("links", &self.links)
            .field("held_back", &self.held_back)
            .finish_non_exhaustive()
    }
}

impl NetworkBuilder {
    pub(crate) fn new() -> Self {
        Self {
            description: None,
            changes: Vec::new(),
            links: false,
            link_mbit: None,
            held_back: Vec::new(),
            block_traces: false,
            environment: Vec::new(),
            peer_command: None,
            interrupted: Arc::default(),
            start_within: Duration::from_secs(30),
            keep: std::env::var_os("GRAPEVINE_KEEP").is_some(),
        }
    }

    /// The network to run: the path of a `network.yaml`, or a [`NetworkConfig`]. Without it, [`TWO_ORGANIZATIONS`].
    /// Addresses in it are replaced by free ports of this machine.
    pub fn config(mut self, description: impl Into<Description>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Changes the description before the network is made, for example a timer or a batch size.
    pub fn change(mut self, change: impl FnOnce(&mut NetworkConfig) + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// Whether connections between processes go through the harness, so that [`Network::cut`] works. Default false.
    pub const fn links(mut self, links: bool) -> Self {
        self.links = links;
        self
    }

    /// Puts every process into a network namespace of its own, behind a link of so many Mbit/s in either direction; see [`crate::namespaces`].
    /// The program must have called [`crate::namespaces::isolate`].
    pub const fn link_mbit(mut self, mbit: u32) -> Self {
        self.link_mbit = Some(mbit);
        self
    }

    /// Whether every process notes the way of its blocks, for [`Network::trace`]. Default false.
    pub const fn block_traces(mut self, block_traces: bool) -> Self {
        self.block_traces = block_traces;
        self
    }

    /// Does not start this peer with the others; [`Network::start`] starts it later.
    pub fn hold_back(mut self, peer: impl Into<String>) -> Self {
        self.held_back.push(peer.into());
        self
    }

    /// An environment variable for every process, for example `CORE_PEER_GOSSIP_PROPAGATEPEERNUM`.
    pub fn environment(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Another program in place of `grapevine run`, as a baseline. It gets these arguments, then those of `grapevine run`, and must
    /// answer `status` on the admin socket as our peer does.
    pub fn peer_command<A: Into<String>>(
        mut self,
        program: PathBuf,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        self.peer_command = Some((program, arguments.into_iter().map(Into::into).collect()));
        self
    }

    /// Ends every wait with [`NetworkError::Interrupted`] once this flag is set, for programs that handle Ctrl-C themselves.
    pub fn interrupted_by(mut self, flag: Arc<AtomicBool>) -> Self {
        self.interrupted = flag;
        self
    }

    /// How long a process may take to start. Default 30 s, for machines that are busy with other tests.
    pub const fn start_within(mut self, within: Duration) -> Self {
        self.start_within = within;
        self
    }

    /// Keeps the directory with all files and logs, and prints its path at the end. Default: only if the test panics,
    /// or if `GRAPEVINE_KEEP` is set.
    pub const fn keep(mut self, keep: bool) -> Self {
        self.keep = keep;
        self
    }

    /// Builds the binaries if necessary, makes certificates and genesis blocks, and starts the orderer and then the peers; returns
    /// when all of them answer and have joined their channels.
    ///
    /// # Errors
    /// If the description is wrong, the binaries cannot be built, or a process does not start; then with its last log lines.
    pub fn start(self) -> Result<Network, NetworkError> {
        let network = self.prepare()?;
        network.start_all()?;
        Ok(network)
    }

    /// As [`NetworkBuilder::start`], but starts no process: the test can look at or damage files first.
    ///
    /// # Errors
    /// As [`NetworkBuilder::start`].
    pub fn prepare(self) -> Result<Network, NetworkError> {
        let binaries = Binaries::ready()?;
        let mut config = self.load()?;
        let links = if self.links {
            Some(Links::new().map_err(NetworkError::io("starting the links"))?)
        } else {
            None
        };
        for change in self.changes {
            change(&mut config);
        }
        let namespaces = self.link_mbit.map(Namespaces::new).transpose()?;
        let places = plan::place(&mut config, links.as_ref(), namespaces.as_ref())?;
        let directory = short_directory()?;
        let root = directory.path().join("net");
        let yaml = config.to_yaml().map_err(|error| NetworkError::Description(error.to_string()))?;
        let description = directory.path().join("network.yaml");
        std::fs::write(&description, yaml)
            .map_err(NetworkError::io(format!("writing {}", description.display())))?;
        net_init(&binaries, &description, &root)?;
        let logs = directory.path().join("logs");
        std::fs::create_dir_all(&logs).map_err(NetworkError::io(format!("creating {}", logs.display())))?;
        let mut members = BTreeMap::new();
        for place in places {
            let member = Member::read(place, &root, &logs)?;
            members.insert(member.name.clone(), member);
        }
        let mut network = Network::new(config, binaries, members, links, directory);
        network.namespaces = namespaces;
        network.block_traces = self.block_traces;
        network.environment = self.environment;
        network.peer_command = self.peer_command;
        network.interrupted = self.interrupted;
        network.start_within = self.start_within;
        network.keep = self.keep;
        network.held_back = self
            .held_back
            .iter()
            .map(|name| network.member(name).map(|member| member.name.clone()))
            .collect::<Result<BTreeSet<_>, _>>()?;
        Ok(network)
    }

    fn load(&self) -> Result<NetworkConfig, NetworkError> {
        let loaded = match &self.description {
            Some(Description::Config(config)) => return Ok((**config).clone()),
            Some(Description::File(path)) => NetworkConfig::load(path, std::iter::empty()),
            None => {
                NetworkConfig::parse(TWO_ORGANIZATIONS, "two-organizations.yaml", None, std::iter::empty())
            }
        };
        let (config, _warnings) = loaded.map_err(|error| NetworkError::Description(error.to_string()))?;
        Ok(config)
    }
}

/// A new temporary directory whose path leaves room for the names of Unix sockets.
fn short_directory() -> Result<tempfile::TempDir, NetworkError> {
    let base = std::env::temp_dir();
    let base = if base.as_os_str().len() > DIRECTORY_BYTES_MAX { PathBuf::from("/tmp") } else { base };
    tempfile::Builder::new()
        .prefix("grapevine-")
        .tempdir_in(&base)
        .map_err(NetworkError::io(format!("creating a directory in {}", base.display())))
}

fn net_init(binaries: &Binaries, description: &Path, root: &Path) -> Result<(), NetworkError> {
    let mut command = Command::new(&binaries.grapevine);
    command.args(["net", "init", "--config"]).arg(description).arg("--dir").arg(root).stdin(Stdio::null());
    let output = command.output().map_err(NetworkError::io("running grapevine net init"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(NetworkError::Command {
        command: format!("grapevine net init --config {} --dir {}", description.display(), root.display()),
        status: output.status,
        output: crate::tools::text_of(&output),
    })
}
