//! The channels this ordering service runs, by name. Fixed at start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use grapevine_block_trace::BlockTrace;
use grapevine_channels::ChannelId;
use grapevine_crypto::Signer;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::chain::{BatchOverrides, Chain, ChainError};

/// A genesis block file that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The file cannot be read.
    #[error("cannot read the genesis block {}: {source}; check the path in the list of channels", path.display())]
    Read {
        /// The genesis block file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The channel cannot be opened.
    #[error("{}: {source}", path.display())]
    Chain {
        /// The genesis block file.
        path: PathBuf,
        /// Why.
        source: Box<ChainError>,
    },
    /// Two files are of one channel.
    #[error("{} is the second genesis block of channel {channel}; list each channel once", path.display())]
    Duplicate {
        /// The second file.
        path: PathBuf,
        /// The channel.
        channel: ChannelId,
    },
}

/// All channels.
#[derive(Debug, Default)]
pub struct Registry {
    chains: BTreeMap<ChannelId, Arc<Chain>>,
}

impl Registry {
    /// Opens the channels of the genesis block files below `location`. Cancelling `stop` closes them;
    /// the returned tasks end when everything accepted is written.
    pub fn open(
        location: &Path,
        genesis_files: &[PathBuf],
        signer: &Arc<Signer>,
        overrides: BatchOverrides,
        trace: &BlockTrace,
        stop: &CancellationToken,
    ) -> Result<(Self, Vec<JoinHandle<()>>), RegistryError> {
        let mut chains = BTreeMap::new();
        let mut tasks = Vec::new();
        for path in genesis_files {
            let read = |source| RegistryError::Read { path: path.clone(), source };
            let bytes: Bytes = std::fs::read(path).map_err(read)?.into();
            let (chain, task) =
                Chain::start(location, bytes, signer.clone(), overrides, trace.clone(), stop.clone())
                    .map_err(|source| RegistryError::Chain { path: path.clone(), source: source.into() })?;
            tasks.push(task);
            let channel = chain.channel().clone();
            if chains.insert(channel.clone(), Arc::new(chain)).is_some() {
                return Err(RegistryError::Duplicate { path: path.clone(), channel });
            }
        }
        Ok((Self { chains }, tasks))
    }

    /// The channel of that name.
    pub fn chain(&self, channel: &ChannelId) -> Option<&Arc<Chain>> {
        self.chains.get(channel)
    }

    /// All channels, by name.
    pub fn chains(&self) -> impl Iterator<Item = &Arc<Chain>> {
        self.chains.values()
    }
}
