//! The ordering service from outside: over gRPC, over its files, and as a process.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod broadcast;
mod client;
mod config_updates;
mod deliver;
mod faults;
mod files;
mod process;
mod submit;
mod tls;
