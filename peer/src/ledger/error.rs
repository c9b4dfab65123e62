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
        "the ledger of channel {channel} is damaged at block {number} ({detail}); move the ledger directory away and let the peer fetch the channel again"
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
        "the ledger in {} is damaged ({detail}); move the directory away and let the peer fetch its channels again",
        path.display()
    )]
    DamagedStore {
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
    /// An earlier write failed, so what is on disk is unknown until the ledger is opened again.
    #[error(
        "the ledger refuses writes since one failed; free disk space or replace the disk, then restart the peer"
    )]
    Stopped,
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
