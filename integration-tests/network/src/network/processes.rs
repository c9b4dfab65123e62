//! Starting, stopping, killing and freezing the processes of a network.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::Network;
use crate::error::NetworkError;
use crate::member::Member;
use crate::process::Process;

/// SIGTERM must end a process within this time: a promise of the peer that [`Network::stop`] checks.
pub const STOP_WITHIN: Duration = Duration::from_secs(5);

impl Network {
    /// Starts everything that was not held back.
    pub(crate) fn start_all(&self) -> Result<(), NetworkError> {
        let held_back: Vec<&str> = self.held_back.iter().map(String::as_str).collect();
        self.start_all_but(&held_back)
    }

    /// Starts all processes of a prepared network except some peers: orderers first, then the other peers at once.
    ///
    /// # Errors
    /// As [`Network::start`], and if a name is unknown.
    pub fn start_all_but(&self, held_back: &[&str]) -> Result<(), NetworkError> {
        let held_back: Vec<&Member> =
            held_back.iter().map(|name| self.peer(name)).collect::<Result<_, _>>()?;
        for orderer in self.orderers() {
            self.start(orderer)?;
        }
        let peers = self.members.values().filter(|member| member.is_peer());
        let peers: Vec<&Member> =
            peers.filter(|peer| held_back.iter().all(|held| held.name != peer.name)).collect();
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

    /// Starts a process that does not run, with an environment of its own besides the network's, and does not wait for it.
    ///
    /// # Errors
    /// If it runs already or cannot be started.
    pub fn launch_with(&self, name: &str, environment: &[(String, String)]) -> Result<(), NetworkError> {
        self.launch_in(self.member(name)?, environment)
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

    /// SIGHUP: a peer reads its certificates again.
    ///
    /// # Errors
    /// If it does not run.
    pub fn hang_up(&self, name: &str) -> Result<(), NetworkError> {
        self.with_process(name, Process::hang_up)
    }

    /// Loses every packet from and to a process; its connections stay open. For networks with
    /// [`crate::NetworkBuilder::link_mbit`].
    ///
    /// # Errors
    /// If its links cannot be cut.
    pub fn lose_packets(&self, name: &str) -> Result<(), NetworkError> {
        self.lose(name, true)
    }

    /// Ends [`Network::lose_packets`].
    ///
    /// # Errors
    /// As [`Network::lose_packets`].
    pub fn pass_packets(&self, name: &str) -> Result<(), NetworkError> {
        self.lose(name, false)
    }

    fn lose(&self, name: &str, lose: bool) -> Result<(), NetworkError> {
        let without = || {
            NetworkError::State(
                "only processes in namespaces of their own can be cut off; use link_mbit".into(),
            )
        };
        self.namespaces.as_ref().ok_or_else(without)?.lose(&self.member(name)?.name, lose)
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

    fn launch(&self, member: &Member) -> Result<(), NetworkError> {
        self.launch_in(member, &[])
    }

    /// Starts the process without waiting.
    fn launch_in(&self, member: &Member, own: &[(String, String)]) -> Result<(), NetworkError> {
        if self.is_running(&member.name)? {
            return Err(NetworkError::State(format!("{} runs already", member.name)));
        }
        let config = member.config.to_string_lossy();
        let (program, mut arguments) = match &self.peer_command {
            Some((program, arguments)) if member.is_peer() => {
                (program, arguments.iter().map(String::as_str).collect())
            }
            _ if member.is_peer() => (&self.binaries.grapevine, vec!["run"]),
            _ => (&self.binaries.orderer_mock, vec!["run"]),
        };
        arguments.extend(["--config", config.as_ref()]);
        let trace = member.trace.to_string_lossy();
        if self.block_traces {
            arguments.extend(["--block-trace", trace.as_ref()]);
        }
        let wrapped = self.namespaces.as_ref().and_then(|all| all.wrap(&member.name, program));
        let program = match &wrapped {
            Some((enter, before)) => {
                arguments.splice(0..0, before.iter().map(String::as_str));
                enter
            }
            None => program,
        };
        let environment = [self.environment.as_slice(), own].concat();
        let start = || Process::start_with(&member.name, program, &arguments, &environment, &member.log);
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

    pub(super) fn lock_processes(&self) -> MutexGuard<'_, BTreeMap<String, Process>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_running(member: &Member) -> NetworkError {
    NetworkError::State(format!("{} does not run", member.name))
}
