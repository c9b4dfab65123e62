//! Keys and fixed-size records of the ledger. All integers are big-endian, so that keys sort as numbers do.
//!
//! | column family | key | value |
//! |---|---|---|
//! | `blocks` | position u64 | encoded block |
//! | `index` | `n` ‖ channel ‖ number u64 | position u64 ‖ header hash |
//! | `index` | `h` ‖ channel ‖ header hash | number u64 |
//! | `meta` | `format` | u32 |
//! | `meta` | `position` | next free position u64 |
//! | `meta` | `channel/` ‖ name | genesis hash ‖ height u64 ‖ tip hash |
//! | `meta` | `state/` ‖ key | whatever the peer keeps there |
//!
//! `channel` stands for u16 length ‖ name. A block's position is its place in the order of commits over all channels. Were
//! blocks keyed by channel and number, the flushed files of a peer with two channels would overlap, and compaction would
//! rewrite every block; keyed by position, files never overlap and compaction only moves them.

use grapevine_channels::ChannelId;
use grapevine_crypto::Digest;

/// Version of this layout, stored under [`FORMAT`].
pub(super) const FORMAT_VERSION: u32 = 1;
/// Column family of the encoded blocks.
pub(super) const BLOCKS: &str = "blocks";
/// Column family that finds blocks by number and by hash.
pub(super) const INDEX: &str = "index";
/// Column family of the heads, the format and the peer's own state.
pub(super) const META: &str = "meta";

/// Meta key of the layout version.
pub(super) const FORMAT: &[u8] = b"format";
/// Meta key of the next free position.
pub(super) const POSITION: &[u8] = b"position";
/// Prefix of the meta keys of channel heads.
pub(super) const CHANNEL: &[u8] = b"channel/";

const HASH_BYTES: usize = 32;

/// The last block of a channel and where the channel began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Header hash of block 0.
    pub(super) genesis: Digest,
    /// Number of blocks stored, at least 1.
    pub(super) height: u64,
    /// Header hash of block `height - 1`.
    pub(super) tip: Digest,
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut record = Vec::with_capacity(2 * HASH_BYTES + 8);
        record.extend_from_slice(self.genesis.as_ref());
        record.extend_from_slice(&self.height.to_be_bytes());
        record.extend_from_slice(self.tip.as_ref());
        record
    }

    pub(super) fn decode(record: &[u8]) -> Option<Self> {
        let (genesis, rest) = record.split_first_chunk::<HASH_BYTES>()?;
        let (height, tip) = rest.split_first_chunk::<8>()?;
        let head = Self {
            genesis: Digest(*genesis),
            height: u64::from_be_bytes(*height),
            tip: Digest(tip.try_into().ok()?),
        };
        (head.height > 0).then_some(head)
    }
}

/// Where a block lies and what its header hash must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexEntry {
    /// Key in the column family of blocks.
    pub(super) position: u64,
    /// Header hash of the block.
    pub(super) hash: Digest,
}

impl IndexEntry {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut record = Vec::with_capacity(8 + HASH_BYTES);
        record.extend_from_slice(&self.position.to_be_bytes());
        record.extend_from_slice(self.hash.as_ref());
        record
    }

    pub(super) fn decode(record: &[u8]) -> Option<Self> {
        let (position, hash) = record.split_first_chunk::<8>()?;
        Some(Self { position: u64::from_be_bytes(*position), hash: Digest(hash.try_into().ok()?) })
    }
}

/// Reads a u64 record of exactly eight bytes.
pub(super) fn number(record: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(record.try_into().ok()?))
}

/// Index key of a block by number.
pub(super) fn by_number(channel: &ChannelId, number: u64) -> Vec<u8> {
    let mut key = channel_key(b'n', channel);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Index key of a block by header hash.
pub(super) fn by_hash(channel: &ChannelId, hash: &Digest) -> Vec<u8> {
    let mut key = channel_key(b'h', channel);
    key.extend_from_slice(hash.as_ref());
    key
}

/// Meta key of a channel's head.
pub(super) fn head(channel: &ChannelId) -> Vec<u8> {
    [CHANNEL, channel.as_str().as_bytes()].concat()
}

/// Meta key of the peer's own state.
pub(super) fn state(key: &[u8]) -> Vec<u8> {
    [b"state/", key].concat()
}

/// A channel's name is at most 249 bytes, so its length always fits.
fn channel_key(kind: u8, channel: &ChannelId) -> Vec<u8> {
    let name = channel.as_str().as_bytes();
    let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
    let mut key = Vec::with_capacity(3 + name.len() + HASH_BYTES);
    key.push(kind);
    key.extend_from_slice(&length.to_be_bytes());
    key.extend_from_slice(name);
    key
}
