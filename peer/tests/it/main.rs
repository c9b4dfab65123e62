//! The peer from outside: its binary, its processes, its files. One binary, so that RocksDB is linked once.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod admin;
mod blocks;
mod cli;
mod deliver;
mod deliver_server;
mod deliver_wire;
mod expiry;
