//! A network on this machine: who belongs to it, its links and its tools. [`processes`] starts and ends its processes.

mod administration;
mod processes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use grapevine_configs::NetworkConfig;

use crate::binaries::Binaries;
use crate::builder::NetworkBuilder;
use crate::error::{LogTails, NetworkError};
use crate::links::{Cut, Links};
use crate::member::Member;
use crate::namespaces::Namespaces;
use crate::payload::Fingerprints;
use crate::process::Process;
use crate::tools::Tool;

pub use processes::STOP_WITHIN;

/// How long a command line tool may take: reading a whole ledger, on a busy machine.
const TOOL_WITHIN: Duration = Duration::from_secs(60);

/// Real processes of a whole network on this machine, in a temporary directory. Everything is stopped and removed when it is dropped.
///
/// Processes are named by their full name (`peer0.org1.example.com`) or by a beginning of it that
/// ends before a dot and names only one (`peer0.org1`, `orderer`). All methods take `&self`, so that threads can share a network.
#[derive(Debug)]
pub struct Network {
    // Dropped in this order: no process outlives its links, its ports or its directory.
    processes: Mutex<BTreeMap<String, Process>>,
    links: Option<Links>,
    pub(crate) namespaces: Option<Namespaces>,
    members: BTreeMap<String, Member>,
    config: NetworkConfig,
    binaries: Binaries,
    pub(crate) fingerprints: Mutex<BTreeMap<String, Fingerprints>>,
    /// Blocks and transactions of each channel that the orderer has made, as far as they were counted.
    pub(crate) ordered: Mutex<BTreeMap<String, (u64, u64)>>,
    files_written: AtomicU64,
    pub(crate) block_traces: bool,
    pub(crate) environment: Vec<(String, String)>,
    /// In place of `grapevine run`.
    pub(crate) peer_command: Option<(PathBuf, Vec<String>)>,
    pub(crate) interrupted: Arc<AtomicBool>,
    pub(crate) start_within: Duration,
    pub(crate) held_back: BTreeSet<String>,
    pub(crate) keep: bool,
    directory: Option<tempfile::TempDir>,
}

impl Network {
    /// Describes a network to be started.
    pub fn builder() -> NetworkBuilder {
        NetworkBuilder::new()
    }

    pub(crate) fn new(
        config: NetworkConfig,
        binaries: Binaries,
        members: BTreeMap<String, Member>,
        links: Option<Links>,
        directory: tempfile::TempDir,
    ) -> Self {
        Self {
            processes: Mutex::default(),
            links,
            namespaces: None,
            members,
            config,
            binaries,
            fingerprints: Mutex::default(),
            ordered: Mutex::default(),
            files_written: AtomicU64::new(0),
            block_traces: false,
            environment: Vec::new(),
            peer_command: None,
            interrupted: Arc::default(),
            start_within: Duration::ZERO,
            held_back: BTreeSet::new(),
            keep: false,
            directory: Some(directory),
        }
    }

    /// The description this network was made from, with the addresses it really has.
    #[must_use]
    pub const fn config(&self) -> &NetworkConfig {
        &self.config
    }

    /// The directory of the network: `network.yaml`, `net/` as made by `grapevine net init`, `logs/`.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.as_ref().map_or_else(|| Path::new(""), tempfile::TempDir::path)
    }

    /// Full names of all peers.
    #[must_use]
    pub fn peers(&self) -> Vec<&str> {
        self.members.values().filter(|member| member.is_peer()).map(|member| member.name.as_str()).collect()
    }

    /// Full names of the peers of an organisation.
    #[must_use]
    pub fn peers_of(&self, msp_id: &str) -> Vec<&str> {
        let of = |member: &&Member| member.msp_id.as_deref() == Some(msp_id);
        self.members.values().filter(of).map(|member| member.name.as_str()).collect()
    }

    /// Full names of the peers that join a channel at their start.
    #[must_use]
    pub fn peers_in(&self, channel: &str) -> Vec<&str> {
        let inside = |member: &&Member| member.is_peer() && member.joins(channel);
        self.members.values().filter(inside).map(|member| member.name.as_str()).collect()
    }

    /// Full names of the orderers.
    #[must_use]
    pub fn orderers(&self) -> Vec<&str> {
        self.members.values().filter(|member| !member.is_peer()).map(|member| member.name.as_str()).collect()
    }

    /// Where a process has its files, and what it is.
    ///
    /// # Errors
    /// [`NetworkError::Unknown`].
    pub fn member(&self, name: &str) -> Result<&Member, NetworkError> {
        if let Some(member) = self.members.get(name) {
            return Ok(member);
        }
        let begins = |full: &str| full.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        let mut found = self.members.values().filter(|member| begins(&member.name));
        match (found.next(), found.next()) {
            (Some(member), None) => Ok(member),
            _ => Err(NetworkError::Unknown {
                kind: "process",
                name: name.to_owned(),
                known: self.members.keys().cloned().collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// The peer of this name; an orderer is an error.
    pub(crate) fn peer(&self, name: &str) -> Result<&Member, NetworkError> {
        let member = self.member(name)?;
        if member.is_peer() {
            return Ok(member);
        }
        let known = self.peers().join(", ");
        Err(NetworkError::Unknown { kind: "peer", name: name.to_owned(), known })
    }

    /// Cuts one direction between two processes; see [`Cut`] for what that does to connections. Needs [`NetworkBuilder::links`].
    ///
    /// # Errors
    /// If a name is unknown or the network has no links.
    pub fn cut(&self, from: &str, to: &str, cut: Cut) -> Result<(), NetworkError> {
        let (from, to) = (self.member(from)?, self.member(to)?);
        self.links()?.cut(&from.name, &to.name, cut);
        Ok(())
    }

    /// Cuts both directions between two processes.
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn cut_both(&self, one: &str, other: &str, cut: Cut) -> Result<(), NetworkError> {
        self.cut(one, other, cut)?;
        self.cut(other, one, cut)
    }

    /// Cuts a process off from every other one, orderers included.
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn cut_off(&self, name: &str, cut: Cut) -> Result<(), NetworkError> {
        let member = self.member(name)?;
        for other in self.members.keys().filter(|other| **other != member.name) {
            self.cut_both(&member.name, other, cut)?;
        }
        Ok(())
    }

    /// Takes back every cut from or to a process.
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn heal(&self, name: &str) -> Result<(), NetworkError> {
        let member = self.member(name)?;
        self.links()?.heal_all_of(&member.name);
        Ok(())
    }

    /// The links themselves, for healing single directions and for their counters.
    ///
    /// # Errors
    /// If the network was started without links.
    pub fn links(&self) -> Result<&Links, NetworkError> {
        let missing =
            || NetworkError::State("this network has no links; start it with .links(true)".to_owned());
        self.links.as_ref().ok_or_else(missing)
    }

    /// Joins a peer to a channel with `grapevine channel join`, whether it runs or not.
    ///
    /// # Errors
    /// If the tool refuses.
    pub fn join(&self, peer: &str, channel: &str) -> Result<(), NetworkError> {
        self.channel(channel)?;
        let block = self.directory().join(format!("net/channels/{channel}.block"));
        self.tool_success(peer, &["channel", "join", "--block", &block.to_string_lossy()]).map(drop)
    }

    /// Runs `grapevine` with these arguments and `--config` of the peer; returns what it wrote, whatever its exit status.
    ///
    /// # Errors
    /// If it cannot be run or does not end.
    pub fn tool(&self, peer: &str, arguments: &[&str]) -> Result<Output, NetworkError> {
        self.start_tool(peer, arguments)?.output(TOOL_WITHIN, || self.is_interrupted())
    }

    /// As [`Network::tool`], but an exit status other than 0 is an error.
    ///
    /// # Errors
    /// Also if the tool fails.
    pub fn tool_success(&self, peer: &str, arguments: &[&str]) -> Result<Output, NetworkError> {
        self.start_tool(peer, arguments)?.success(TOOL_WITHIN, || self.is_interrupted())
    }

    fn start_tool(&self, peer: &str, arguments: &[&str]) -> Result<Tool, NetworkError> {
        let member = self.peer(peer)?;
        let config = member.config.to_string_lossy();
        let mut all = arguments.to_vec();
        all.extend(["--config", config.as_ref()]);
        Tool::start(&self.binaries.grapevine, &all)
    }

    /// Starts `orderer-mock` with these arguments.
    pub(crate) fn start_orderer_tool(&self, arguments: &[&str]) -> Result<Tool, NetworkError> {
        Tool::start(&self.binaries.orderer_mock, arguments)
    }

    /// A path for a new file of the harness inside the directory of the network.
    pub(crate) fn new_file(&self, kind: &str) -> PathBuf {
        let number = self.files_written.fetch_add(1, Ordering::Relaxed);
        self.directory().join(format!("{kind}-{number}"))
    }

    pub(crate) fn ended(&self, member: &Member, status: ExitStatus) -> NetworkError {
        NetworkError::Ended { process: member.name.clone(), status, logs: self.logs([member]) }
    }

    pub(crate) fn logs<'a>(&self, members: impl IntoIterator<Item = &'a Member>) -> LogTails {
        LogTails::read(members.into_iter().map(|member| (member.name.as_str(), member.log.as_path())))
    }

    pub(crate) fn timeout<'a>(
        &self,
        what: String,
        within: Duration,
        seen: &str,
        members: impl IntoIterator<Item = &'a Member>,
    ) -> NetworkError {
        NetworkError::Timeout { what, within, seen: seen.to_owned(), logs: self.logs(members) }
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Before the directory is removed: processes would write into it meanwhile.
        self.lock_processes().clear();
        if (self.keep || std::thread::panicking())
            && let Some(directory) = self.directory.take()
        {
            eprintln!("files and logs of the network are kept in {}", directory.keep().display());
        }
    }
}
