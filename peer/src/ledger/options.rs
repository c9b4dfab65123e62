//! RocksDB's settings: durable, small in memory, quiet on disk.
//!
//! Memory: write buffers are bounded together by [`WRITE_BUFFERS_BYTES_MAX`] (a block larger than the rest of the buffer
//! still goes in whole, and the buffer is then flushed), block contents bypass the cache, everything else shares
//! [`CACHE_BYTES`]. Log growth: RocksDB's own info log keeps two files of at most 1 MiB.
//!
//! Bytes written: a block goes to the write-ahead log and, when its write buffer is full, to a file that is only ever moved:
//! twice. Large values in files of their own (BlobDB) would not change that, since values pass through the log in any case,
//! and its garbage collection rewrites them. The index families have random keys, which levelled compaction rewrites over and
//! over while they are small; universal compaction merges runs of like size, so that an entry is rewritten about as often
//! as the number of runs can be halved.

use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompactionStyle, DBCompressionType,
    DBRecoveryMode, ErrorKind, LogLevel, Options, ReadOptions, WriteOptions,
};

use super::error::LedgerError;
use super::keys::{BLOCKS, HASHES, META, NUMBERS, TRANSACTIONS};

const MEBIBYTE: usize = 1024 * 1024;
/// Bound of all write buffers of one ledger together.
const WRITE_BUFFERS_BYTES_MAX: usize = 12 * MEBIBYTE;
/// Write buffer of the blocks; each flush makes one file of about this size. A group of commits goes in whole, so one may hold twice as
/// much, and while it is written to its file another fills.
const BLOCKS_BUFFER_BYTES: usize = 4 * MEBIBYTE;
/// Write buffer of the index of transactions.
const TRANSACTIONS_BUFFER_BYTES: usize = 2 * MEBIBYTE;
/// Sorted runs of an index family after which some are merged.
const INDEX_RUNS_MAX: i32 = 8;
/// All column families.
pub(super) const FAMILIES: [&str; 6] = ["default", BLOCKS, NUMBERS, HASHES, TRANSACTIONS, META];
/// Write buffer of the small column families.
const SMALL_BUFFER_BYTES: usize = MEBIBYTE;
/// Cache for the index and the heads.
const CACHE_BYTES: usize = 4 * MEBIBYTE;
/// The write-ahead log is cut when it grows past this.
const LOG_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Files a writer keeps open; a reader keeps all open, since the writer may delete them any time.
const OPEN_FILES_MAX: i32 = 128;
/// How often a reader retries when the writer replaced files between listing and reading them.
const READ_OPEN_ATTEMPTS: usize = 5;

/// Opens the store for writing and creates it where it is missing.
pub(super) fn open(path: &Path) -> Result<DB, LedgerError> {
    let mut options = database_options();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_open_files(OPEN_FILES_MAX);
    DB::open_cf_descriptors(&options, path, column_families()).map_err(|source| classify(path, source))
}

/// Opens the store for reading, as it stands now.
pub(super) fn open_read_only(path: &Path) -> Result<DB, LedgerError> {
    let mut options = database_options();
    options.set_max_open_files(-1);
    let mut attempt = 1;
    loop {
        match DB::open_cf_descriptors_read_only(&options, path, column_families(), false) {
            Ok(database) => return Ok(database),
            Err(source) if attempt >= READ_OPEN_ATTEMPTS => return Err(classify(path, source)),
            Err(_) => attempt += 1,
        }
    }
}

/// Column families of the store in `path`; empty if there is none yet.
pub(super) fn families(path: &Path) -> Result<Vec<String>, LedgerError> {
    // RocksDB names its current manifest in this file; without it there is no store at all.
    if !path.join("CURRENT").exists() {
        return Ok(Vec::new());
    }
    DB::list_cf(&Options::default(), path).map_err(|source| classify(path, source))
}

/// Opens only `family` of a store that may not be ours, and changes nothing in it.
pub(super) fn open_one(path: &Path, family: &str) -> Result<DB, LedgerError> {
    DB::open_cf_for_read_only(&Options::default(), path, [family], false)
        .map_err(|source| classify(path, source))
}

/// A write is on the disk when the call returns.
pub(super) fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

/// Blocks are read once and are large: they would only wash the cache out.
pub(super) fn uncached() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options.set_verify_checksums(true);
    options
}

/// Gives RocksDB's message the shape an operator can act on.
pub(super) fn classify(path: &Path, source: rocksdb::Error) -> LedgerError {
    let path = PathBuf::from(path);
    let message = source.as_ref();
    if message.contains("lock hold by current process")
        || (message.contains("While lock file") && message.contains("temporarily unavailable"))
    {
        LedgerError::Locked { path }
    } else if message.contains("Read-only file system") {
        LedgerError::ReadOnlyFileSystem { path }
    } else if message.contains("Permission denied") {
        LedgerError::Permission { path, detail: message.to_owned() }
    } else if message.contains("No space left on device") || message.contains("Disk quota exceeded") {
        LedgerError::DiskFull { path }
    } else if message.contains("Column families not opened") || message.contains("Column family not found") {
        LedgerError::Foreign { path }
    } else if is_damage(&source) {
        LedgerError::DamagedStore { path, detail: message.to_owned() }
    } else {
        LedgerError::Storage { path, source }
    }
}

/// Whether the files contradict each other or themselves, rather than that the disk does not do its work.
fn is_damage(error: &rocksdb::Error) -> bool {
    match error.kind() {
        ErrorKind::Corruption
        | ErrorKind::NotFound
        | ErrorKind::InvalidArgument
        | ErrorKind::NotSupported => true,
        // A file that the manifest names and that is not there, or is shorter than it was.
        ErrorKind::IOError => {
            let message = error.as_ref();
            message.contains("No such file or directory") || message.contains("too short")
        }
        _ => false,
    }
}

/// Whether there are files of a store in `path`, with or without one that names the current manifest.
pub(super) fn has_files(path: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(path) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("MANIFEST-") || name.ends_with(".sst") || name.ends_with(".log")
    })
}

/// Makes a manifest anew from the files that are there, and files from what can be read of the logs.
pub(super) fn repair(path: &Path) -> Result<(), LedgerError> {
    DB::repair(&database_options(), path).map_err(|source| classify(path, source))
}

/// Options of one column family, for making it anew.
pub(super) fn of_family(name: &str) -> Options {
    family(name, &Cache::new_lru_cache(CACHE_BYTES))
}

fn database_options() -> Options {
    let mut options = Options::default();
    options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES_MAX);
    options.set_max_total_wal_size(LOG_BYTES_MAX);
    // An ordinary crash tail is cut off; a hole in the middle of the log ends the replay there, and the check of the chain
    // at open tells whether what is left fits together.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_paranoid_checks(true);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(MEBIBYTE as u64);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(MEBIBYTE);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options.set_skip_stats_update_on_db_open(true);
    options
}

fn family(name: &str, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    let mut options = Options::default();
    options.set_max_write_buffer_number(2);
    options.set_block_based_table_factory(&table);
    // Blocks are whatever clients submit, mostly signatures and hashes or compressed already.
    options.set_compression_type(if name == BLOCKS {
        DBCompressionType::None
    } else {
        DBCompressionType::Lz4
    });
    options.set_write_buffer_size(match name {
        BLOCKS => BLOCKS_BUFFER_BYTES,
        TRANSACTIONS => TRANSACTIONS_BUFFER_BYTES,
        _ => SMALL_BUFFER_BYTES,
    });
    if [NUMBERS, HASHES, TRANSACTIONS].contains(&name) {
        options.set_compaction_style(DBCompactionStyle::Universal);
        options.set_level_zero_file_num_compaction_trigger(INDEX_RUNS_MAX);
    }
    options
}

fn column_families() -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(CACHE_BYTES);
    // The default family stays empty; RocksDB insists on having it.
    FAMILIES.iter().map(|name| ColumnFamilyDescriptor::new(*name, family(name, &cache))).collect()
}
