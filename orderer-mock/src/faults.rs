//! Switches that make a running service misbehave, so that tests and demonstrations can watch what peers do.
//!
//! Only what is served changes, never the stored chain: after [`Fault::Clear`] the service is honest again. The faults of
//! delivery are set for one channel or for all and add up; [`Fault::Stop`] and [`Fault::Drop`] concern the whole process.
//! `Broadcast` keeps working, so that the chain grows while delivery is at fault, except when stopped.
//!
//! | fault | what clients see |
//! |---|---|
//! | stop | connections are cut, and new ones refused until clear |
//! | drop | connections are cut, once |
//! | status | every seek, and every open stream at its next block or at once if it waits, ends with that status |
//! | withhold | blocks above a number do not exist |
//! | bad-signature | blocks whose signature in metadata slot 0 does not hold |
//! | wrong-previous-hash | blocks, signed by this orderer as they are served, that do not follow the block before |
//! | equivocate | from a number on, every second stream gets another chain: see [`Fork`] |
//! | delay | each block waits before it is sent |
//!
//! Block 0 is served as it is. State: a few words for each channel and 32 bytes for each block of a fork,
//! [`FORK_BLOCKS_MAX`] at most.

mod alter;
mod fork;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use grapevine_channels::ChannelId;
use grapevine_channels::proto::common::Status;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use alter::altered;
pub use fork::{FORK_BLOCKS_MAX, Fork};

use crate::registry::Registry;

/// Longest delay of a block.
pub const DELAY_MAX_MS: u64 = 600_000;

/// A switch, as it is commanded. In JSON `{"fault": "withhold", "above": 5}`; names are written with dashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::Subcommand)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// Cuts all connections and refuses new ones.
    Stop,
    /// Cuts all connections, once.
    Drop,
    /// Answers every delivery request with a status of Fabric other than 200.
    Status {
        /// For example 503, 500 or 403.
        code: i32,
    },
    /// Serves no block above a number.
    Withhold {
        /// The last block to serve; without it the newest one.
        above: Option<u64>,
    },
    /// Serves blocks whose signature does not hold.
    BadSignature,
    /// Serves signed blocks that do not follow the block before.
    WrongPreviousHash,
    /// Serves a second signed history to every second stream.
    Equivocate {
        /// The first block of which two exist; without it the next one.
        from: Option<u64>,
    },
    /// Waits before each block.
    Delay {
        /// How long.
        milliseconds: u64,
    },
    /// Ends all faults.
    Clear,
}

/// Why a fault is not switched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// The channel is not served here.
    #[error("there is no channel {0:?} here; leave --channel out for all channels")]
    UnknownChannel(String),
    /// A fault of the process was asked for one channel.
    #[error("stop and drop concern all channels; leave --channel out")]
    NotOfAChannel,
    /// No status that ends a stream.
    #[error("{0} is not an error status; choose one of 400, 403, 404, 413, 500, 501 and 503")]
    Status(i32),
    /// Block 0 exists once.
    #[error("a second history can begin at block 1 at the earliest")]
    ForkAtGenesis,
    /// Longer than [`DELAY_MAX_MS`].
    #[error("{0} ms is too long; {DELAY_MAX_MS} ms at most")]
    Delay(u64),
}

/// How delivery of a channel misbehaves; the default is honest.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChannelFaults {
    pub(crate) status: Option<Status>,
    pub(crate) withhold_above: Option<u64>,
    pub(crate) bad_signature: bool,
    pub(crate) wrong_previous_hash: bool,
    pub(crate) fork: Option<Arc<Fork>>,
    pub(crate) delay: Option<Duration>,
}

impl ChannelFaults {
    /// The height that clients may see of a chain of `height` blocks.
    pub(crate) fn visible(&self, height: u64) -> u64 {
        self.withhold_above.map_or(height, |last| height.min(last.saturating_add(1)))
    }

    fn switch(&mut self, fault: Fault, height: u64) -> Result<(), FaultError> {
        match fault {
            Fault::Stop | Fault::Drop => {}
            Fault::Status { code } => match Status::try_from(code) {
                Ok(Status::Unknown | Status::Success) | Err(_) => return Err(FaultError::Status(code)),
                Ok(status) => self.status = Some(status),
            },
            Fault::Withhold { above } => {
                self.withhold_above = Some(above.unwrap_or_else(|| height.saturating_sub(1)));
            }
            Fault::BadSignature => self.bad_signature = true,
            Fault::WrongPreviousHash => self.wrong_previous_hash = true,
            Fault::Equivocate { from: Some(0) } => return Err(FaultError::ForkAtGenesis),
            Fault::Equivocate { from } => self.fork = Some(Arc::new(Fork::new(from.unwrap_or(height)))),
            Fault::Delay { milliseconds } if milliseconds > DELAY_MAX_MS => {
                return Err(FaultError::Delay(milliseconds));
            }
            Fault::Delay { milliseconds } => self.delay = Some(Duration::from_millis(milliseconds)),
            Fault::Clear => *self = Self::default(),
        }
        Ok(())
    }
}

/// The switches of a service; shared by its streams.
#[derive(Debug)]
pub struct Faults {
    registry: Arc<Registry>,
    channels: BTreeMap<ChannelId, watch::Sender<ChannelFaults>>,
    stopped: watch::Sender<bool>,
    /// Cancelled, and replaced, to cut the connections of the moment.
    connections: Mutex<CancellationToken>,
}

impl Faults {
    /// An honest service of these channels.
    pub fn new(registry: Arc<Registry>) -> Self {
        let channels = registry.chains().map(|chain| (chain.channel().clone(), watch::Sender::default()));
        Self {
            channels: channels.collect(),
            registry,
            stopped: watch::Sender::new(false),
            connections: Mutex::default(),
        }
    }

    /// Switches a fault on one channel, or on all of them.
    pub fn switch(&self, channel: Option<&str>, fault: Fault) -> Result<(), FaultError> {
        let known = |name: &&str| self.channels.keys().any(|channel| channel.as_str() == *name);
        if let Some(name) = channel.filter(|name| !known(name)) {
            return Err(FaultError::UnknownChannel(name.chars().take(64).collect()));
        }
        if channel.is_some() && matches!(fault, Fault::Stop | Fault::Drop) {
            return Err(FaultError::NotOfAChannel);
        }
        for (id, faults) in &self.channels {
            if channel.is_some_and(|name| name != id.as_str()) {
                continue;
            }
            let height = self.registry.chain(id).map_or(0, |chain| chain.state().borrow().height);
            let mut changed = faults.borrow().clone();
            changed.switch(fault, height)?;
            faults.send_replace(changed);
        }
        match fault {
            Fault::Stop => drop(self.stopped.send_replace(true)),
            Fault::Clear if channel.is_none() => drop(self.stopped.send_replace(false)),
            _ => {}
        }
        if matches!(fault, Fault::Stop | Fault::Drop) {
            self.cut_connections();
        }
        tracing::warn!(?fault, channel, "fault switched");
        Ok(())
    }

    /// The faults of a channel, to look at or to wait on.
    pub(crate) fn of(&self, channel: &ChannelId) -> watch::Receiver<ChannelFaults> {
        // Every channel has a sender; an honest stand-in costs less than a reason to panic.
        self.channels
            .get(channel)
            .map_or_else(|| watch::Sender::default().subscribe(), watch::Sender::subscribe)
    }

    /// Whether connections are refused, to look at or to wait on.
    pub(crate) fn stopped(&self) -> watch::Receiver<bool> {
        self.stopped.subscribe()
    }

    /// Cancelled when the connections of the moment are to be cut.
    pub(crate) fn connections(&self) -> CancellationToken {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn cut_connections(&self) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *connections).cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_add_up_and_are_cleared() {
        let mut faults = ChannelFaults::default();
        assert_eq!(faults.visible(7), 7);
        for fault in [
            Fault::Withhold { above: None },
            Fault::BadSignature,
            Fault::Status { code: 503 },
            Fault::Delay { milliseconds: 5 },
        ] {
            faults.switch(fault, 4).unwrap();
        }
        assert_eq!((faults.visible(2), faults.visible(7)), (2, 4));
        assert!(faults.bad_signature && faults.delay.is_some());
        assert_eq!(faults.status, Some(Status::ServiceUnavailable));
        faults.switch(Fault::Clear, 9).unwrap();
        assert!(!faults.bad_signature && faults.status.is_none() && faults.visible(9) == 9);
    }

    #[test]
    fn nonsense_is_refused() {
        let mut faults = ChannelFaults::default();
        for code in [0, 200, 299, -1] {
            assert_eq!(faults.switch(Fault::Status { code }, 1), Err(FaultError::Status(code)));
        }
        let milliseconds = DELAY_MAX_MS + 1;
        assert_eq!(faults.switch(Fault::Delay { milliseconds }, 1), Err(FaultError::Delay(milliseconds)));
        assert_eq!(faults.switch(Fault::Equivocate { from: Some(0) }, 1), Err(FaultError::ForkAtGenesis));
    }

    #[test]
    fn the_written_form() {
        let read = |text: &str| serde_json::from_str::<Fault>(text).unwrap();
        assert_eq!(read(r#"{"fault":"withhold","above":5}"#), Fault::Withhold { above: Some(5) });
        assert_eq!(read(r#"{"fault":"withhold"}"#), Fault::Withhold { above: None });
        assert_eq!(read(r#"{"fault":"bad-signature"}"#), Fault::BadSignature);
        assert_eq!(read(r#"{"fault":"delay","milliseconds":9}"#), Fault::Delay { milliseconds: 9 });
        assert_eq!(read(r#"{"fault":"status","code":503}"#), Fault::Status { code: 503 });
    }
}
