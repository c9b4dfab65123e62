//! `grapevine channel join`: in the running peer, or in the ledger of one that does not run; through an anchor peer only in a running one.

use std::io::Read;
use std::path::Path;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use grapevine_channels::block::{AuthenticBlock, Block};
use grapevine_channels::config::ChannelConfig;
use grapevine_crypto::LocalMsp;

use super::output;
use super::settings::Settings;
use crate::admin::{AdminClient, AdminClientError, BLOCK_BYTES_MAX};
use crate::ledger::Ledger;

pub(super) fn join(settings: &Settings, path: &Path) -> anyhow::Result<()> {
    let encoded = read(path)?;
    // Looked at here too, so that a wrong file is named before any peer is bothered.
    let block = Block::decode(encoded.clone(), encoded.len())
        .with_context(|| format!("{} is not a block; give the channel's genesis block", path.display()))?;
    let config = ChannelConfig::from_block(&block).with_context(|| {
        if block.is_config() {
            return format!("the channel of {} cannot be joined", path.display());
        }
        format!(
            "{} is not a channel's genesis block; give the file that net init wrote for the channel",
            path.display()
        )
    })?;
    let channel = config.channel_id().clone();
    warn_if_foreign(settings, &config);
    match AdminClient::new(&settings.data).join(&encoded) {
        Ok(joined) => Ok(output::print(&format!("joined {joined}\n"))?),
        Err(AdminClientError::NotRunning { .. }) => {
            let genesis = AuthenticBlock::genesis(&block)
                .with_context(|| format!("{} is not a genesis block", path.display()))?;
            Ledger::open(&settings.ledger)?.create_channel(&channel, &genesis)?;
            Ok(output::print(&format!("joined {channel}; the peer takes part when it is started\n"))?)
        }
        Err(error) => Err(error.into()),
    }
}

/// An organisation may be added later, so this is no error. Without the private key there is nothing to say.
fn warn_if_foreign(settings: &Settings, config: &ChannelConfig) {
    let Ok(local) = LocalMsp::load(&settings.msp_directory, &settings.msp_id) else { return };
    if let Err(error) = config.identify(local.signer.serialized()) {
        output::complain(&anyhow::anyhow!(
            "as of this block the peer is no member of channel {}: {error}; unless a later config block lets it in, the block is of another network",
            config.channel_id()
        ));
    }
}

pub(super) fn join_by_anchor(
    settings: &Settings,
    channel: &str,
    anchor: &str,
    genesis_hash: &str,
) -> anyhow::Result<()> {
    let joined = AdminClient::new(&settings.data).join_by_anchor(channel, anchor, genesis_hash)?;
    Ok(output::print(&format!("joined {joined}\n"))?)
}

fn read(path: &Path) -> anyhow::Result<Bytes> {
    let unreadable = || format!("cannot read the block {}; check --block", path.display());
    let file = std::fs::File::open(path).with_context(unreadable)?;
    let mut bytes = Vec::new();
    file.take(BLOCK_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes).with_context(unreadable)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > BLOCK_BYTES_MAX {
        bail!("{} is larger than any block; check --block", path.display());
    }
    Ok(Bytes::from(bytes))
}
