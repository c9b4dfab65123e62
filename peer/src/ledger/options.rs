//! RocksDB's settings: durable, small in memory, quiet on disk.
//!
//! Memory: write buffers are bounded together by [`WRITE_BUFFERS_BYTES_MAX`] (a block larger than the rest of the buffer
//! still goes in whole, and the buffer is then flushed), block contents bypass the cache, everything else shares
//! [`CACHE_BYTES`]. Log growth: RocksDB's own info log keeps two files of at most 1 MiB.

use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, LogLevel,
    Options, ReadOptions, WriteOptions,
};

use super::error::LedgerError;
use super::keys::{BLOCKS, INDEX, META};

const MEBIBYTE: usize = 1024 * 1024;
/// Bound of all write buffers of one ledger together.
const WRITE_BUFFERS_BYTES_MAX: usize = 16 * MEBIBYTE;
/// Write buffer of the blocks; each flush makes one file of about this size.
const BLOCKS_BUFFER_BYTES: usize = 8 * MEBIBYTE;
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
    } else if message.contains("Permission denied") || message.contains("Read-only file system") {
        LedgerError::Permission { path, detail: message.to_owned() }
    } else if message.contains("Column families not opened") || message.contains("Column family not found") {
        LedgerError::Foreign { path }
    } else if message.starts_with("Corruption") {
        LedgerError::DamagedStore { path, detail: message.to_owned() }
    } else {
        LedgerError::Storage { path, source }
    }
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

fn column_families() -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(CACHE_BYTES);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&cache);
    let family = |buffer_bytes: usize, compression: DBCompressionType| {
        let mut options = Options::default();
        options.set_write_buffer_size(buffer_bytes);
        options.set_max_write_buffer_number(2);
        options.set_compression_type(compression);
        options.set_block_based_table_factory(&table);
        options
    };
    vec![
        // The default family stays empty; RocksDB insists on having it.
        ColumnFamilyDescriptor::new("default", family(64 * 1024, DBCompressionType::None)),
        ColumnFamilyDescriptor::new(BLOCKS, family(BLOCKS_BUFFER_BYTES, DBCompressionType::None)),
        ColumnFamilyDescriptor::new(INDEX, family(SMALL_BUFFER_BYTES, DBCompressionType::Lz4)),
        ColumnFamilyDescriptor::new(META, family(SMALL_BUFFER_BYTES, DBCompressionType::Lz4)),
    ]
}
