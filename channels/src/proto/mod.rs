//! Hyperledger Fabric's messages as this project needs them, written by hand.
//!
//! The structs carry the field numbers of `hyperledger/fabric-protos`; the proto file and message are named on each
//! type. Fields that hold whole marshalled messages or bulk data are [`bytes::Bytes`], so decoding from `Bytes`
//! copies nothing. Two deliberate deviations, both invisible on the wire:
//!
//! * maps are `BTreeMap`s, so that encoding is deterministic;
//! * a block inside a `DeliverResponse` is `bytes` (a marshalled `common.Block`) instead of a message: both are
//!   length-delimited fields, and this way a block is neither parsed nor re-encoded on its way through.
//!
//! `prost` refuses wrong wire types where Go keeps them as unknown fields. So nothing that a client can put inside a
//! transaction is decoded with these structs before the block holding it counts as authentic;
//! [`crate::transaction`] reads such bytes as Go does.

pub mod common;
pub mod configtx;
pub mod orderer;
pub mod peer;
pub mod policies;
