//! What streams must know of the channels: height, config, and whether the channel still goes on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use grapevine_channels::ChannelId;
use grapevine_channels::config::ChannelConfig;
use tokio::sync::watch;

/// A channel as streams see it.
#[derive(Debug, Clone)]
pub struct ChannelState {
    /// Blocks in the ledger.
    pub height: u64,
    /// The config in force.
    pub config: Arc<ChannelConfig>,
    /// Why the channel has stopped, in words for clients.
    pub failure: Option<Arc<str>>,
}

/// The channels of a peer, told by its driver. Clones share one state; telling wakes the streams that wait.
#[derive(Debug, Clone, Default)]
pub struct DeliverChannels {
    channels: Arc<Mutex<BTreeMap<ChannelId, watch::Sender<ChannelState>>>>,
}

impl DeliverChannels {
    /// A channel has been joined, or has a new config; the ledger has `height` blocks or more. A new config is to be told
    /// before the height that includes its block, so that no block is served under a config that it has replaced.
    pub fn set(&self, config: Arc<ChannelConfig>, height: u64) {
        let mut channels = self.lock();
        match channels.get(config.channel_id()) {
            Some(state) => state.send_modify(|state| {
                state.config = config;
                state.height = state.height.max(height);
            }),
            None => {
                let channel = config.channel_id().clone();
                let state = watch::Sender::new(ChannelState { height, config, failure: None });
                channels.insert(channel, state);
            }
        }
    }

    /// The ledger has `height` blocks of the channel.
    pub fn committed(&self, channel: &ChannelId, height: u64) {
        if let Some(state) = self.lock().get(channel) {
            state.send_modify(|state| state.height = state.height.max(height));
        }
    }

    /// The channel goes no further; its blocks stay. Strict readers are refused from now on.
    pub fn halted(&self, channel: &ChannelId, reason: &str) {
        if let Some(state) = self.lock().get(channel) {
            state.send_modify(|state| state.failure = Some(reason.into()));
        }
    }

    /// Follows a channel; `None` if it is not joined.
    pub(super) fn watch(&self, channel: &ChannelId) -> Option<watch::Receiver<ChannelState>> {
        self.lock().get(channel).map(watch::Sender::subscribe)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ChannelId, watch::Sender<ChannelState>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
