//! The blocks of the test, which every process computes alike.

use anyhow::Context as _;
use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::{AuthenticBlock, Block, BlockHeader};
use grapevine_crypto::{Digest, sha256_of};

/// The channels written to.
pub const CHANNELS: [&str; 2] = ["audit", "trade"];

/// A channel of [`CHANNELS`].
///
/// # Errors
/// If the name is not a channel's.
pub fn channel(name: &str) -> anyhow::Result<ChannelId> {
    name.parse().with_context(|| format!("{name} is not a channel"))
}

/// Block `number` of `channel`: mostly some kilobytes, now and then 400 KB.
///
/// # Errors
/// If it cannot be encoded.
pub fn block(channel: &str, number: u64, previous: Option<Digest>) -> anyhow::Result<AuthenticBlock> {
    let size = if number % 17 == 3 { 400_000 } else { 200 + number.wrapping_mul(7919) % 20_000 };
    let body: Vec<u8> =
        channel.bytes().cycle().take(usize::try_from(size)?).chain(number.to_be_bytes()).collect();
    let data_hash = sha256_of([body.as_slice()]).0.to_vec();
    let previous_hash = previous.map(|hash| hash.0.to_vec()).unwrap_or_default();
    let header = BlockHeader { number, previous_hash, data_hash };
    let block = Block::from_parts(header, vec![Bytes::from(body)], Bytes::new());
    Ok(AuthenticBlock::stored(block.encode())?)
}

/// A generator of numbers that look random: SplitMix64.
#[derive(Clone, Copy, Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}
