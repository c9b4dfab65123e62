//! The gRPC client of Fabric's `orderer.AtomicBroadcast` (`orderer/ab.proto`), generated at build time.

#[allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::all, clippy::use_self)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/orderer.AtomicBroadcast.rs"));
}

pub(super) use generated::atomic_broadcast_client::AtomicBroadcastClient;
