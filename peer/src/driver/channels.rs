//! Channels of the core: joined, started from the ledger, given a new config, stopped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::{AuthenticBlock, BLOCK_SIZE_MAX, Block};
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::isolation::{LastBlock, Scope};
use grapevine_channels::node::{Anchors, ChannelSetup, Input};
use grapevine_crypto::{Digest, MspId};

use super::core::Core;
use crate::history;

/// A channel that halts is left after this long.
const HALT_GRACE: Duration = Duration::from_millis(500);

impl Core {
    /// Joins a channel by its genesis block, if it is not joined. An organisation that came later is not in that block: its peers
    /// follow the chain to the config that lets them in.
    pub(super) fn join(&mut self, genesis: Bytes) -> anyhow::Result<ChannelId> {
        let block = Block::decode(genesis, BLOCK_SIZE_MAX)?;
        let config = ChannelConfig::from_block(&block)?;
        let channel = config.channel_id().clone();
        let known = self.ledger.channels().contains(&channel);
        self.ledger.create_channel(&channel, &AuthenticBlock::genesis(&block)?)?;
        if !known {
            let own = self.trust.identity().msp_id().clone();
            let is_member = config.application_orgs().contains_key(&own);
            tracing::info!(%channel, is_member, "joined");
            self.enter(&channel)?;
        }
        Ok(channel)
    }

    /// Starts the machines of a channel that the ledger holds.
    pub(super) fn enter(&mut self, channel: &ChannelId) -> anyhow::Result<()> {
        let (number, tip) = self.ledger.tip(channel).context("the ledger has no block of the channel")?;
        let config = history::config_after(&self.ledger, channel, number)?;
        self.alarms.load(&self.ledger, channel)?;
        self.client_channels.set(config.clone(), number.saturating_add(1));
        let own = self.trust.identity().msp_id().clone();
        let removals = history::removals(&self.ledger, channel, &config);
        if let Some(removal) = removals.get(&own) {
            self.halt(channel, removed_by(removal.last.number, &own));
            return Ok(());
        }
        let genesis_hash = self.ledger.genesis_hash(channel).context("the genesis block is missing")?;
        self.trust.enter(config.clone(), removals);
        self.limits.set_block_size(channel, config.block_size_max());
        self.verifier.add_channel(config.clone());
        let setup = ChannelSetup {
            channel: channel.clone(),
            scope: self.scope(genesis_hash, &config),
            anchors: anchors(&config),
            height: number.saturating_add(1),
            tip,
        };
        self.feed(Input::Join(setup));
        Ok(())
    }

    /// A config block is on disk: what it says holds from now on.
    pub(super) fn new_config(&mut self, channel: &ChannelId, block: &AuthenticBlock) {
        let own = self.trust.identity().msp_id().clone();
        let lists_own = |config: &Arc<ChannelConfig>| config.application_orgs().contains_key(&own);
        let was_member = self.verifier.config(channel).is_some_and(|config| lists_own(&config));
        let config = match self.verifier.committed(channel, &block.hash()) {
            Some(Ok(config)) => config,
            Some(Err(reason)) => {
                let number = block.number();
                return self.halt(channel, format!("the config of block {number} cannot be used: {reason}"));
            }
            None => return,
        };
        let Some(genesis_hash) = self.ledger.genesis_hash(channel) else { return };
        tracing::info!(%channel, block = block.number(), sequence = config.sequence(), "new channel config");
        let is_removed = was_member && !lists_own(&config);
        if !is_removed {
            self.trust.reconfigure(&config, LastBlock { number: block.number(), hash: block.hash() });
        } else {
            self.trust.leave(channel);
        }
        self.limits.set_block_size(channel, config.block_size_max());
        self.orderers.reconfigure(channel, &config);
        self.client_channels.set(config.clone(), block.number());
        let (scope, anchors) = (self.scope(genesis_hash, &config), anchors(&config));
        self.feed(Input::Reconfigured { channel: channel.clone(), scope, anchors });
        if is_removed {
            self.halt(channel, removed_by(block.number(), &own));
        }
    }

    /// Keeps a block that contradicts this ledger, and remembers it for `grapevine status`.
    pub(super) fn keep_evidence(&mut self, channel: &ChannelId, block: &AuthenticBlock) {
        if let Err(error) = self.ledger.keep_evidence(channel, block) {
            tracing::error!(%channel, %error, "evidence against the orderers cannot be written");
        }
        self.alarms.raise(channel, block.number(), block.hash());
    }

    fn scope(&self, genesis_hash: Digest, config: &ChannelConfig) -> Scope {
        Scope {
            genesis_hash,
            organizations: config.application_orgs().keys().cloned().collect(),
            former: self.trust.former(config.channel_id()),
        }
    }

    /// Stops a channel where it is; its blocks stay.
    pub(super) fn halt(&mut self, channel: &ChannelId, reason: String) {
        self.stop_channel(channel, reason);
        self.leaving.remove(channel);
        self.feed(Input::Leave(channel.clone()));
    }

    /// Stops a channel in which the node does nothing more by itself. Its links stay until what the node has said about the reason is on
    /// its way to the others.
    pub(super) fn halt_soon(&mut self, channel: ChannelId, reason: String) {
        self.stop_channel(&channel, reason);
        self.leaving.insert(channel, Instant::now() + HALT_GRACE);
    }

    fn stop_channel(&mut self, channel: &ChannelId, reason: String) {
        tracing::error!(%channel, reason, "the channel stops");
        self.client_channels.halted(channel, &reason);
        self.halted.insert(channel.clone(), reason);
        self.orderers.stop(channel);
        self.restarts.remove(channel);
    }
}

fn removed_by(number: u64, organization: &MspId) -> String {
    format!("block {number} removed {organization} from the channel")
}

fn anchors(config: &ChannelConfig) -> Anchors {
    let listed = config.application_orgs().iter().map(|(organization, listed)| {
        let anchors = listed.anchor_peers.iter().map(ToString::to_string).collect();
        (organization.clone(), anchors)
    });
    listed.collect()
}
