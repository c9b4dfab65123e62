//! A running network: starting, stopping, killing, freezing and cutting off its processes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grapevine_configs::NetworkConfig;

use crate::binaries::Binaries;
use crate::builder::NetworkBuilder;
use crate::error::{LogTails, NetworkError};
use crate::links::{Cut, Links};
use crate::member::Member;
use crate::payload::Fingerprints;
use crate::process::Process;
use crate::tools::Tool;

/// SIGTERM must end a process within this time: a promise of the peer that [`Network::stop`] checks.
pub const STOP_WITHIN: Duration = Duration::from_secs(5);

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
    members: BTreeMap<String, Member>,
    config: NetworkConfig,
    binaries: Binaries,
    pub(crate) fingerprints: Mutex<BTreeMap<String, Fingerprints>>,
    /// Blocks and transactions of each channel that the orderer has made, as far as they were counted.
    pub(crate) ordered: Mutex<BTreeMap<String, (u64, u64)>>,
    files_written: AtomicU64,
    pub(crate) environment: Vec<(String, String)>,
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
            members,
            config,
            binaries,
            fingerprints: Mutex::default(),
            ordered: Mutex::default(),
            files_written: AtomicU64::new(0),
            environment: Vec::new(),
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

    // ---- processes ----

    /// Starts everything that was not held back: orderers first, then all peers at once.
    pub(crate) fn start_all(&self) -> Result<(), NetworkError> {
        for orderer in self.orderers() {
            self.start(orderer)?;
        }
        let peers = self.peers().into_iter().filter(|peer| !self.held_back.contains(*peer));
        let peers: Vec<&Member> = peers.map(|peer| self.member(peer)).collect::<Result<_, _>>()?;
        for peer in &peers {
            self.launch(peer)?;
        }
        peers.into_iter().try_for_each(|peer| self.wait_until_ready(peer))
    }

    /// Starts a process that does not run and waits until it answers; a peer has then joined the channels of its configuration.
    ///
    /// # Errors
    /// If it runs already, ends by itself or does not get ready; the error shows the end of its log.
    pub fn start(&self, name: &str) -> Result<(), NetworkError> {
        let member = self.member(name)?;
        self.launch(member)?;
        self.wait_until_ready(member)
    }

    /// Starts a peer or orderer that is expected to end by itself, for example because its configuration is wrong,
    /// and returns how it ended and what it wrote.
    ///
    /// # Errors
    /// If it still runs after `within`; then it is killed.
    pub fn start_expecting_end(
        &self,
        name: &str,
        within: Duration,
    ) -> Result<(ExitStatus, String), NetworkError> {
        let member = self.member(name)?;
        let before = std::fs::metadata(&member.log).map_or(0, |metadata| metadata.len());
        self.launch(member)?;
        let mut process = self.take_process(member)?;
        let doing = || NetworkError::io(format!("waiting for {}", member.name));
        let Some(status) = process.wait(within).map_err(doing())? else {
            return Err(self.timeout(
                format!("{} to end by itself", member.name),
                within,
                "it still runs",
                [member],
            ));
        };
        let log = std::fs::read(&member.log)
            .map_err(NetworkError::io(format!("reading {}", member.log.display())))?;
        let written = log.get(usize::try_from(before).unwrap_or(usize::MAX)..).unwrap_or_default();
        let text = String::from_utf8_lossy(written);
        // The first line is ours: the command line.
        Ok((status, text.split_once('\n').map_or("", |(_, rest)| rest).to_owned()))
    }

    /// SIGTERM, and waits until the process has ended with exit status 0; that takes at most [`STOP_WITHIN`].
    ///
    /// # Errors
    /// If it does not run, takes longer (then it is killed) or ends with another status.
    pub fn stop(&self, name: &str) -> Result<(), NetworkError> {
        let member = self.member(name)?;
        let mut process = self.take_process(member)?;
        process.ask_to_end().map_err(NetworkError::io(format!("sending SIGTERM to {}", member.name)))?;
        self.wait_for_end(member, &mut process)
    }

    /// SIGTERM to everything that runs, then as [`Network::stop`] for each.
    ///
    /// # Errors
    /// As [`Network::stop`]; every process is gone in any case.
    pub fn stop_all(&self) -> Result<(), NetworkError> {
        let mut processes = std::mem::take(&mut *self.lock_processes());
        for process in processes.values_mut() {
            // One that has ended by itself is found below.
            let _ = process.ask_to_end();
        }
        let mut result = Ok(());
        for (name, mut process) in processes {
            let ended = self.member(&name).and_then(|member| self.wait_for_end(member, &mut process));
            result = result.and(ended);
        }
        result
    }

    /// SIGKILL; the process has no chance to save anything.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&self, name: &str) -> Result<(), NetworkError> {
        let member = self.member(name)?;
        let mut process = self.take_process(member)?;
        process.kill().map_err(NetworkError::io(format!("killing {}", member.name)))?;
        Ok(())
    }

    /// SIGSTOP: the process stands still, its connections stay open.
    ///
    /// # Errors
    /// If it does not run.
    pub fn freeze(&self, name: &str) -> Result<(), NetworkError> {
        self.with_process(name, Process::freeze)
    }

    /// SIGCONT: a frozen process goes on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn thaw(&self, name: &str) -> Result<(), NetworkError> {
        self.with_process(name, Process::thaw)
    }

    /// True if the process was started and has not ended.
    ///
    /// # Errors
    /// If there is no such process in the network.
    pub fn is_running(&self, name: &str) -> Result<bool, NetworkError> {
        let member = self.member(name)?;
        let mut processes = self.lock_processes();
        let status = processes.get_mut(&member.name).map(Process::exit_status);
        Ok(matches!(status, Some(Ok(None))))
    }

    /// The process id of a running process.
    ///
    /// # Errors
    /// If it does not run.
    pub fn process_id(&self, name: &str) -> Result<u32, NetworkError> {
        let member = self.member(name)?;
        let id = self.lock_processes().get(&member.name).map(Process::id);
        id.ok_or_else(|| not_running(member))
    }

    // ---- links ----

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

    // ---- tools ----

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

    // ---- inside ----

    /// Starts the process without waiting.
    fn launch(&self, member: &Member) -> Result<(), NetworkError> {
        if self.is_running(&member.name)? {
            return Err(NetworkError::State(format!("{} runs already", member.name)));
        }
        let program = if member.is_peer() { &self.binaries.grapevine } else { &self.binaries.orderer_mock };
        let config = member.config.to_string_lossy();
        let arguments = ["run", "--config", config.as_ref()];
        let start = || Process::start_with(&member.name, program, &arguments, &self.environment, &member.log);
        let process = match &self.links {
            Some(links) => links.register(&member.name, start),
            None => start(),
        };
        let process = process.map_err(NetworkError::io(format!("starting {}", member.name)))?;
        self.lock_processes().insert(member.name.clone(), process);
        Ok(())
    }

    fn wait_until_ready(&self, member: &Member) -> Result<(), NetworkError> {
        let what = format!("{} to be ready", member.name);
        self.poll(&what, self.start_within, &[member], || {
            Ok(self.readiness(member).err().map_or(Ok(()), Err))
        })
    }

    /// `Err` says what is missing.
    fn readiness(&self, member: &Member) -> Result<(), String> {
        if !member.is_peer() {
            return std::net::TcpStream::connect_timeout(
                &member.listen_address(),
                Duration::from_millis(500),
            )
            .map(drop)
            .map_err(|error| format!("nobody answers at {}: {error}", member.listen_address()));
        }
        let status = crate::status::ask(&member.admin_socket())
            .map_err(|error| format!("its admin socket does not answer: {error}"))?;
        match member.channels.iter().find(|channel| status.height(channel) == 0) {
            Some(channel) => Err(format!("it has not joined channel {channel}")),
            None => Ok(()),
        }
    }

    fn wait_for_end(&self, member: &Member, process: &mut Process) -> Result<(), NetworkError> {
        let doing = || NetworkError::io(format!("waiting for {}", member.name));
        match process.wait(STOP_WITHIN).map_err(doing())? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.ended(member, status)),
            None => {
                let what = format!("{} to end after SIGTERM", member.name);
                Err(self.timeout(what, STOP_WITHIN, "it still runs", [member]))
            }
        }
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

    /// How a process that was started has ended by itself, if it has.
    pub(crate) fn unexpected_end(&self, member: &Member) -> Option<ExitStatus> {
        self.lock_processes().get_mut(&member.name)?.exit_status().ok().flatten()
    }

    fn with_process(
        &self,
        name: &str,
        action: impl FnOnce(&mut Process) -> std::io::Result<()>,
    ) -> Result<(), NetworkError> {
        let member = self.member(name)?;
        let mut processes = self.lock_processes();
        let process = processes.get_mut(&member.name).ok_or_else(|| not_running(member))?;
        action(process).map_err(NetworkError::io(format!("sending a signal to {}", member.name)))
    }

    fn take_process(&self, member: &Member) -> Result<Process, NetworkError> {
        self.lock_processes().remove(&member.name).ok_or_else(|| not_running(member))
    }

    fn lock_processes(&self) -> MutexGuard<'_, BTreeMap<String, Process>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_running(member: &Member) -> NetworkError {
    NetworkError::State(format!("{} does not run", member.name))
}

impl Drop for Network {
    fn drop(&mut self) {
        // Before the directory is removed: processes would write into it meanwhile.
        self.lock_processes().clear();
        if self.keep || std::thread::panicking() {
            if let Some(directory) = self.directory.take() {
                eprintln!("files and logs of the network are kept in {}", directory.keep().display());
            }
        }
    }
}
