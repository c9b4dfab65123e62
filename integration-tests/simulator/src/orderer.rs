//! The ordering service: chains that grow, and streams to whoever pulls.

use std::collections::BTreeMap;

use grapevine_channels::block::AuthenticBlock;
use grapevine_channels::time::Time;
use grapevine_crypto::{Digest, sha256};

use crate::event::SessionId;
use crate::truth::{ChannelIndex, Site, Truth};

/// One peer pulling one channel.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) peer: Site,
    pub(crate) boot: u64,
    pub(crate) next: u64,
    /// Blocks sent since the stream began.
    pub(crate) sent: u64,
}

#[derive(Debug)]
pub(crate) struct Orderer {
    pub(crate) up: bool,
    pub(crate) chains: Vec<Vec<AuthenticBlock>>,
    /// When each block was made.
    pub(crate) made_at: Vec<Vec<Time>>,
    pub(crate) streams: BTreeMap<(ChannelIndex, SessionId), Stream>,
    /// Every genuine block by the SHA-256 of its encoding: what verification means here.
    registry: BTreeMap<Digest, (ChannelIndex, AuthenticBlock)>,
}

impl Orderer {
    pub(crate) fn new(truth: &Truth) -> Self {
        Self {
            up: true,
            chains: truth.channels.iter().map(|channel| vec![channel.genesis.clone()]).collect(),
            made_at: vec![vec![Time::ZERO]; truth.channels.len()],
            streams: BTreeMap::new(),
            registry: BTreeMap::new(),
        }
    }

    /// Makes the next block of a channel.
    pub(crate) fn make(&mut self, channel: ChannelIndex, size: usize, now: Time) {
        let chain = &mut self.chains[channel];
        let (Ok(number), Some(last)) = (u64::try_from(chain.len()), chain.last()) else { return };
        let block = AuthenticBlock::simulated(number, last.hash(), size);
        self.registry.insert(sha256(block.encoded()), (channel, block.clone()));
        chain.push(block);
        self.made_at[channel].push(now);
    }

    /// The genuine block of a channel with this encoding.
    pub(crate) fn verify(&self, channel: ChannelIndex, body: &[u8]) -> Option<AuthenticBlock> {
        let (of, block) = self.registry.get(&sha256(body))?;
        (*of == channel).then(|| block.clone())
    }

    /// Number of blocks of a channel.
    pub(crate) fn height(&self, channel: ChannelIndex) -> u64 {
        self.chains[channel].len() as u64
    }

    /// Header hash of a block.
    pub(crate) fn hash(&self, channel: ChannelIndex, number: u64) -> Option<Digest> {
        let place = usize::try_from(number).ok()?;
        self.chains[channel].get(place).map(AuthenticBlock::hash)
    }
}
