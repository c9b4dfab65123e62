//! What can go wrong with the ledger, worded for the operator who has to mend it.

use std::path::PathBuf;

use grapevine_channels::ChannelId;
use grapevine_crypto::Digest;

/// Why a ledger could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another process holds the ledger open for writing.
    #[error(
        "the ledger in {} is in use by another process; stop the peer that runs on it, or give this one its own peer.fileSystemPath",
        path.display()
    )]
    Locked {
        /// Directory of the ledger.
        path: PathBuf,
    },
    /// There is no ledger to read.
    #[error(
        "no ledger in {}; check peer.fileSystemPath, or start the peer once or join a channel to create it",
        path.display()
    )]
    Missing {
        /// Directory where a ledger was looked for.
        path: PathBuf,
    },
    /// The path of the ledger names something that is not a directory.
    #[error("{} is not a directory; move that file away or choose another peer.fileSystemPath", path.display())]
    NotADirectory {
        /// The offending path.
        path: PathBuf,
    },
    /// The directory holds a database that is not a grapevine ledger.
    #[error(
        "the database in {} is not a grapevine ledger; choose an empty directory as peer.fileSystemPath",
        path.display()
    )]
    Foreign {
        /// Directory of the database.
        path: PathBuf,
    },
    /// The operating system refused access.
    #[error("no permission for the ledger in {}; run as the user who owns it ({detail})", path.display())]
    Permission {
        /// Directory of the ledger.
        path: PathBuf,
        /// Message of the operating system.
        detail: String,
    },
    /// The file system of the ledger was mounted or remounted read-only.
    #[error(
        "the file system of {} is read-only; look into the system's log for why, and remount it writable",
        path.display()
    )]
    ReadOnlyFileSystem {
        /// Directory of the ledger.
        path: PathBuf,
    },
    /// There is no space left.
    #[error("the disk of {} is full; free some space or give peer.fileSystemPath a larger disk", path.display())]
    DiskFull {
        /// Directory of the ledger.
        path: PathBuf,
    },
    /// An older version wrote this ledger, in a layout that is no longer read.
    #[error(
        "the ledger in {} has format {found}, this version reads format {supported}; move the directory away, and the peer fetches its channels again",
        path.display()
    )]
    OlderFormat {
        /// Directory of the ledger.
        path: PathBuf,
        /// Format version found.
        found: u32,
        /// Format version this program reads.
        supported: u32,
    },
    /// The ledger was made by another peer: a copied data directory.
    #[error(
        "the ledger in {} belongs to {owner}, not to this peer: a copied data directory or a wrong peer.fileSystemPath; give this peer a directory of its own, or start it once with --take-over-ledger to keep the copied blocks",
        path.display()
    )]
    OtherOwner {
        /// Directory of the ledger.
        path: PathBuf,
        /// Name and PKI-ID of the peer that made it.
        owner: String,
    },
    /// A newer version wrote this ledger.
    #[error(
        "the ledger in {} has format {found}, this version knows formats up to {supported}; start a newer grapevine",
        path.display()
    )]
    NewerFormat {
        /// Directory of the ledger.
        path: PathBuf,
        /// Format version found.
        found: u32,
        /// Newest format version this program reads.
        supported: u32,
    },
    /// What is stored contradicts itself.
    #[error(
        "the ledger of channel {channel} is damaged at block {number} ({detail}); a running peer fetches it again from others by itself, or when told to: grapevine channel repair"
    )]
    Damaged {
        /// Channel concerned.
        channel: ChannelId,
        /// Block concerned.
        number: u64,
        /// What does not fit.
        detail: String,
    },
    /// The store's own records cannot be read.
    #[error(
        "the ledger in {} is damaged ({detail}); start the peer on it, which mends what can be mended and fetches the rest",
        path.display()
    )]
    DamagedStore {
        /// Directory of the ledger.
        path: PathBuf,
        /// What does not fit.
        detail: String,
    },
    /// What is left of the store cannot be made into a ledger.
    #[error(
        "the ledger in {} is damaged beyond mending ({detail}); move the directory away and start the peer: it fetches its channels again, those that peer.yaml does not list after: grapevine channel join",
        path.display()
    )]
    Unmendable {
        /// Directory of the ledger.
        path: PathBuf,
        /// What does not fit.
        detail: String,
    },
    /// No such channel here.
    #[error("this peer has not joined channel {channel}; join it with: grapevine channel join --block FILE")]
    UnknownChannel {
        /// Channel asked for.
        channel: ChannelId,
    },
    /// The channel exists already, with another genesis block.
    #[error(
        "channel {channel} was joined with another genesis block ({stored}) than the one offered ({offered}); check which file belongs to your network"
    )]
    OtherGenesis {
        /// Channel concerned.
        channel: ChannelId,
        /// Header hash of the genesis block stored.
        stored: Digest,
        /// Header hash of the genesis block offered.
        offered: Digest,
    },
    /// A channel must start with block 0 without a previous hash.
    #[error("block {number} is not a genesis block; give the channel's block 0 to join channel {channel}")]
    NotGenesis {
        /// Channel concerned.
        channel: ChannelId,
        /// Number of the block offered.
        number: u64,
    },
    /// A block that is not the next one.
    #[error("channel {channel} needs block {expected} next, not {found}")]
    NotNext {
        /// Channel concerned.
        channel: ChannelId,
        /// Height of the ledger, which is the next number.
        expected: u64,
        /// Number of the block offered.
        found: u64,
    },
    /// A block whose previous hash is not the tip's hash.
    #[error("block {number} of channel {channel} does not follow the ledger's tip {tip}")]
    NotLinked {
        /// Channel concerned.
        channel: ChannelId,
        /// Number of the block offered.
        number: u64,
        /// Header hash of the ledger's last block.
        tip: Digest,
    },
    /// A write to a ledger opened for reading.
    #[error("the ledger was opened for reading only")]
    ReadOnly,
    /// An earlier write failed, so what is on disk is unknown until the ledger has been opened again, which the running
    /// peer does by itself.
    #[error("the ledger takes no writes since one failed, until it has been opened again")]
    Stopped,
    /// The ledger is being opened again after a failed write.
    #[error("the ledger is being opened again after a failed write; try again in a moment")]
    Reopening,
    /// The disk has lost blocks that were written and synced.
    #[error(
        "channel {channel} had {height} blocks on the disk and has {left} after a failed write: the disk loses what it was told to keep; start the peer again, which fetches the blocks, and replace the disk"
    )]
    Shrunk {
        /// Channel concerned.
        channel: ChannelId,
        /// Blocks that were there.
        height: u64,
        /// Blocks that are left.
        left: u64,
    },
    /// A block offered in place of a lost one is not that block.
    #[error("block {number} of channel {channel} is not the one that was lost: {detail}")]
    NotTheLostBlock {
        /// Channel concerned.
        channel: ChannelId,
        /// Number of the lost block.
        number: u64,
        /// What differs.
        detail: String,
    },
    /// RocksDB failed.
    #[error("the ledger in {} failed: {source}; check disk space and disk health, then restart", path.display())]
    Storage {
        /// Directory of the ledger.
        path: PathBuf,
        /// RocksDB's own message.
        source: rocksdb::Error,
    },
    /// The thread that writes could not be started.
    #[error("the ledger thread could not be started: {0}; raise the limit of threads for this user")]
    Thread(std::io::Error),
}

impl LedgerError {
    /// Whether what is stored contradicts itself, rather than that the disk does not do its work.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::DamagedStore { .. })
    }
}
