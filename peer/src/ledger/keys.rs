//! Keys and fixed-size records of the ledger. All integers are big-endian, so that keys sort as numbers do.
//!
//! | column family | key | value |
//! |---|---|---|
//! | `blocks` | position u64 ‖ number u64 ‖ channel's name | encoded block |
//! | `numbers` | channel ‖ number u64 | position u64 ‖ header hash ‖ XXH3 of the encoded block u64 |
//! | `hashes` | channel ‖ header hash | number u64 |
//! | `transactions` | fingerprint of channel and transaction id ‖ number u64 ‖ place u32 | nothing |
//! | `meta` | `format` | u32 |
//! | `meta` | `position` | next free position u64 |
//! | `meta` | `channel/` ‖ name | genesis hash ‖ height u64 ‖ tip hash |
//! | `meta` | `config/` ‖ name | number u64 ‖ encoded block: the newest config block |
//! | `meta` | `state/` ‖ key | whatever the peer keeps there |
//!
//! `channel` stands for u16 length ‖ name. A block's position is its place in the order of writes over all channels. Were
//! blocks keyed by channel and number, the flushed files of a peer with two channels would overlap, and compaction would
//! rewrite every block; keyed by position, files never overlap and compaction only moves them. A block that was lost and
//! fetched again is written at a new position, so nothing damaged is ever read to make room for it.
//!
//! The keys of `blocks` say whose block it is: everything else, but `state/`, can be made again from them.
//!
//! The fingerprint is the first 8 bytes of a SHA-256: a transaction id is 64 bytes of text, and an index of whole ids would
//! be a tenth of the ledger. Who looks one up compares the transaction found.

use grapevine_channels::ChannelId;
use grapevine_crypto::{Digest, sha256_of};

/// Version of this layout, stored under [`FORMAT`].
pub(super) const FORMAT_VERSION: u32 = 2;
/// Column family of the encoded blocks.
pub(super) const BLOCKS: &str = "blocks";
/// Column family that finds blocks by number.
pub(super) const NUMBERS: &str = "numbers";
/// Column family that finds blocks by header hash.
pub(super) const HASHES: &str = "hashes";
/// Column family that finds transactions by id.
pub(super) const TRANSACTIONS: &str = "transactions";
/// Column family of the heads, the format and the peer's own state.
pub(super) const META: &str = "meta";

/// Meta key of the layout version.
pub(super) const FORMAT: &[u8] = b"format";
/// Meta key of the next free position.
pub(super) const POSITION: &[u8] = b"position";
/// Prefix of the meta keys of channel heads.
pub(super) const CHANNEL: &[u8] = b"channel/";
/// Prefix of the meta keys of the peer's own state.
pub(super) const STATE: &[u8] = b"state/";

const HASH_BYTES: usize = 32;
/// Bytes of a transaction's fingerprint.
pub(super) const FINGERPRINT_BYTES: usize = 8;

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

/// Where a block lies and what must be found there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexEntry {
    /// Begin of the key in the column family of blocks.
    pub(super) position: u64,
    /// Header hash of the block.
    pub(super) hash: Digest,
    /// [`checksum`] of the encoded block.
    pub(super) checksum: u64,
}

impl IndexEntry {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut record = Vec::with_capacity(16 + HASH_BYTES);
        record.extend_from_slice(&self.position.to_be_bytes());
        record.extend_from_slice(self.hash.as_ref());
        record.extend_from_slice(&self.checksum.to_be_bytes());
        record
    }

    pub(super) fn decode(record: &[u8]) -> Option<Self> {
        let (position, rest) = record.split_first_chunk::<8>()?;
        let (hash, checksum) = rest.split_first_chunk::<HASH_BYTES>()?;
        Some(Self {
            position: u64::from_be_bytes(*position),
            hash: Digest(*hash),
            checksum: number(checksum)?,
        })
    }
}

/// Checksum of an encoded block, metadata included, taken when it is committed and compared whenever it is read. It is
/// against accidents, not against malice: who can write the ledger's files needs no collisions.
pub(super) fn checksum(encoded: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(encoded)
}

/// Key of a block.
pub(super) fn block(position: u64, number: u64, channel: &ChannelId) -> Vec<u8> {
    let name = channel.as_str().as_bytes();
    let mut key = Vec::with_capacity(16 + name.len());
    key.extend_from_slice(&position.to_be_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(name);
    key
}

/// Position, number and channel of a block's key.
pub(super) fn parse_block(key: &[u8]) -> Option<(u64, u64, ChannelId)> {
    let (position, rest) = key.split_first_chunk::<8>()?;
    let (number, name) = rest.split_first_chunk::<8>()?;
    let channel = std::str::from_utf8(name).ok()?.parse().ok()?;
    Some((u64::from_be_bytes(*position), u64::from_be_bytes(*number), channel))
}

/// Reads a u64 record of exactly eight bytes.
pub(super) fn number(record: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(record.try_into().ok()?))
}

/// Key of a block's index entry.
pub(super) fn by_number(channel: &ChannelId, number: u64) -> Vec<u8> {
    let mut key = channel_key(channel);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Key that finds a block's number by header hash.
pub(super) fn by_hash(channel: &ChannelId, hash: &Digest) -> Vec<u8> {
    let mut key = channel_key(channel);
    key.extend_from_slice(hash.as_ref());
    key
}

/// What the keys of a transaction begin with.
pub(super) fn fingerprint(channel: &ChannelId, transaction_id: &str) -> [u8; FINGERPRINT_BYTES] {
    let digest = sha256_of([channel_key(channel).as_slice(), transaction_id.as_bytes()]);
    digest.0.first_chunk().copied().unwrap_or_default()
}

/// Key of a transaction.
pub(super) fn transaction(fingerprint: [u8; FINGERPRINT_BYTES], number: u64, place: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(FINGERPRINT_BYTES + 12);
    key.extend_from_slice(&fingerprint);
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(&place.to_be_bytes());
    key
}

/// Block number and place in the block of a transaction's key.
pub(super) fn parse_transaction(key: &[u8]) -> Option<(u64, u32)> {
    let (_, rest) = key.split_first_chunk::<FINGERPRINT_BYTES>()?;
    let (number, place) = rest.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), u32::from_be_bytes(place.try_into().ok()?)))
}

/// Meta key of a channel's head.
pub(super) fn head(channel: &ChannelId) -> Vec<u8> {
    [CHANNEL, channel.as_str().as_bytes()].concat()
}

/// Meta key of a channel's newest config block.
pub(super) fn config(channel: &ChannelId) -> Vec<u8> {
    [b"config/", channel.as_str().as_bytes()].concat()
}

/// Meta key of the peer's own state.
pub(super) fn state(key: &[u8]) -> Vec<u8> {
    [STATE, key].concat()
}

/// A channel's name is at most 249 bytes, so its length always fits.
fn channel_key(channel: &ChannelId) -> Vec<u8> {
    let name = channel.as_str().as_bytes();
    let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
    let mut key = Vec::with_capacity(2 + name.len() + HASH_BYTES);
    key.extend_from_slice(&length.to_be_bytes());
    key.extend_from_slice(name);
    key
}
