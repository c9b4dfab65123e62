//! What a process costs, and when blocks passed it.

use std::time::Duration;

use grapevine_block_trace::Event;
use serde::Deserialize;

use crate::error::NetworkError;
use crate::network::Network;
use crate::status;

/// Bytes that crossed the sockets of an orderer since its start: those of all its clients, whatever they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Traffic {
    /// Read.
    pub bytes_in: u64,
    /// Written.
    pub bytes_out: u64,
}

impl Network {
    /// When each block passed the stations of a process, over all its starts. Events of the last tenth of a second may
    /// be missing while it runs. Needs [`crate::NetworkBuilder::block_traces`].
    ///
    /// # Errors
    /// If there is no such process, or no trace of it.
    pub fn trace(&self, name: &str) -> Result<Vec<Event>, NetworkError> {
        let member = self.member(name)?;
        let doing = format!("reading the block trace {}", member.trace.display());
        grapevine_block_trace::read(&member.trace).map_err(NetworkError::io(doing))
    }

    /// Processor time a running process has used, in user and kernel mode, in steps of the kernel's clock tick (10 ms).
    ///
    /// # Errors
    /// If it does not run.
    pub fn cpu_time(&self, name: &str) -> Result<Duration, NetworkError> {
        let path = format!("/proc/{}/stat", self.process_id(name)?);
        let text = std::fs::read_to_string(&path).map_err(NetworkError::io(format!("reading {path}")))?;
        let ticks = cpu_ticks(&text).ok_or_else(|| NetworkError::Answer {
            from: path,
            reason: "it has no utime and stime".to_owned(),
        })?;
        let per_second = u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100).max(1);
        Ok(Duration::from_secs(ticks) / per_second)
    }

    /// The most memory a running process has had at a time, in KiB; `None` if the kernel does not tell.
    ///
    /// # Errors
    /// If it does not run.
    pub fn peak_memory_kib(&self, name: &str) -> Result<Option<u64>, NetworkError> {
        self.memory_kib(name, "VmHWM:")
    }

    /// The memory a running process has now, in KiB; `None` if the kernel does not tell.
    ///
    /// # Errors
    /// If it does not run.
    pub fn present_memory_kib(&self, name: &str) -> Result<Option<u64>, NetworkError> {
        self.memory_kib(name, "VmRSS:")
    }

    fn memory_kib(&self, name: &str, key: &str) -> Result<Option<u64>, NetworkError> {
        let id = self.process_id(name)?;
        let text = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        Ok(line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()))
    }

    /// What has crossed the sockets of a running orderer.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn orderer_traffic(&self, orderer: &str) -> Result<Traffic, NetworkError> {
        let member = self.member(orderer)?;
        let answer = status::exchange(&member.control_socket(), "{\"report\":\"traffic\"}\n");
        let parsed = answer
            .map_err(|error| error.to_string())
            .and_then(|line| serde_json::from_str(&line).map_err(|error| format!("{error} in {line}")));
        parsed.map_err(|reason| NetworkError::Answer { from: member.name.clone(), reason })
    }
}

/// User and kernel time of `/proc/PID/stat`. The second field is the program's name, which may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map_while(|field| field.parse::<u64>().ok());
    times.next()?.checked_add(times.next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_kernel_time_are_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 5 0 0 0 7 30 1 2 20 0 1 0 99 1000 50";
        assert_eq!(cpu_ticks(stat), Some(37));
        assert_eq!(cpu_ticks("42 (a"), None);
        assert_eq!(cpu_ticks("42 (a) S 1 2"), None);
    }
}
