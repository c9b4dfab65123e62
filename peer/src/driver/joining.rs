//! Joining a channel through a peer that is in it: the operator's question, and the node's answer to it.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::Block;
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::node::Input;
use grapevine_configs::Endpoint;
use tokio::sync::oneshot;

use super::core::Core;
use crate::admin::AdminResponse;

/// Largest genesis block that is fetched, in bytes.
const GENESIS_SIZE_MAX: usize = 16 << 20;

/// Who waits for which channel. Bounded by the introductions that the node takes on.
pub(super) type Joining = BTreeMap<ChannelId, oneshot::Sender<AdminResponse>>;

impl Core {
    /// Begins; the answer comes with [`Core::introduced`].
    pub(super) fn join_by_anchor(
        &mut self,
        channel: &str,
        anchor: &str,
        genesis_hash: &str,
        answer: oneshot::Sender<AdminResponse>,
    ) {
        let (channel, input) = match self.begin_to_join(channel, anchor, genesis_hash) {
            Ok(begun) => begun,
            Err(error) => {
                // Who asked may have gone.
                let _gone = answer.send(AdminResponse::Error { error: format!("{error:#}") });
                return;
            }
        };
        self.limits.set_block_size(&channel, GENESIS_SIZE_MAX);
        self.joining.insert(channel, answer);
        self.feed(input);
    }

    fn begin_to_join(
        &self,
        channel: &str,
        anchor: &str,
        genesis_hash: &str,
    ) -> anyhow::Result<(ChannelId, Input)> {
        let channel: ChannelId = channel.parse().context("--channel")?;
        if self.ledger.channels().contains(&channel) {
            bail!("channel {channel} is joined already");
        }
        if self.joining.contains_key(&channel) {
            bail!("another attempt to join channel {channel} is under way");
        }
        let endpoint: Endpoint = anchor.parse().map_err(|error| anyhow::anyhow!("--anchor: {error}"))?;
        let genesis_hash =
            genesis_hash.parse().context("--genesis-hash must be a SHA-256 in hex, 64 digits")?;
        let endpoint = endpoint.to_string();
        Ok((channel.clone(), Input::Introduce { channel, genesis_hash, endpoint }))
    }

    /// A genesis block has come, or will not.
    pub(super) fn introduced(&mut self, channel: &ChannelId, result: Result<Bytes, String>) {
        let Some(answer) = self.joining.remove(channel) else { return };
        let joined = result.map_err(anyhow::Error::msg).and_then(|block| self.join_named(channel, block));
        if !self.ledger.channels().contains(channel) {
            self.limits.forget_block_size(channel);
        }
        let response = match joined {
            Ok(joined) => AdminResponse::Joined { joined: joined.to_string() },
            Err(error) => AdminResponse::Error { error: format!("{error:#}") },
        };
        let _gone = answer.send(response);
    }

    /// The hash is right, so the block is what whoever gave the hash meant; the name may not be.
    fn join_named(&mut self, channel: &ChannelId, genesis: Bytes) -> anyhow::Result<ChannelId> {
        let block = Block::decode(genesis.clone(), GENESIS_SIZE_MAX)?;
        let config =
            ChannelConfig::from_block(&block).context("the block of this hash is no genesis block")?;
        if config.channel_id() != channel {
            bail!(
                "the genesis block of this hash is that of channel {}, not of {channel}",
                config.channel_id()
            );
        }
        self.join(genesis)
    }
}
