//! `peer/configuration.proto` and `peer/events.proto`: application values of a channel config, and the peer's own
//! deliver service.

use std::collections::BTreeMap;

use bytes::Bytes;

/// `protos.AnchorPeers`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AnchorPeers {
    /// Peers that other organisations may contact first.
    #[prost(message, repeated, tag = "1")]
    pub anchor_peers: Vec<AnchorPeer>,
}

/// `protos.AnchorPeer`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AnchorPeer {
    /// Name or address.
    #[prost(string, tag = "1")]
    pub host: String,
    /// TCP port.
    #[prost(int32, tag = "2")]
    pub port: i32,
}

/// `protos.ACLs`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Acls {
    /// Resource name to policy.
    #[prost(btree_map = "string, message", tag = "1")]
    pub acls: BTreeMap<String, ApiResource>,
}

/// `protos.APIResource`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ApiResource {
    /// Path of a policy.
    #[prost(string, tag = "1")]
    pub policy_ref: String,
}

/// `protos.DeliverResponse` of the peer's deliver service.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeliverResponse {
    /// A block in one of several forms, or how the range ended.
    #[prost(oneof = "deliver_response::Type", tags = "1, 2, 3")]
    pub r#type: Option<deliver_response::Type>,
}

/// Types nested in [`DeliverResponse`].
pub mod deliver_response {
    use bytes::Bytes;

    /// Kind of a response.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Type {
        /// A `common.Status`; ends a range.
        #[prost(enumeration = "super::super::common::Status", tag = "1")]
        Status(i32),
        /// A marshalled `common.Block`.
        #[prost(bytes = "bytes", tag = "2")]
        Block(Bytes),
        /// A block without transaction bodies.
        #[prost(message, tag = "3")]
        FilteredBlock(super::FilteredBlock),
    }
}

/// `protos.FilteredBlock`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FilteredBlock {
    /// The channel.
    #[prost(string, tag = "1")]
    pub channel_id: String,
    /// Block number.
    #[prost(uint64, tag = "2")]
    pub number: u64,
    /// One entry per transaction.
    #[prost(message, repeated, tag = "4")]
    pub filtered_transactions: Vec<FilteredTransaction>,
}

/// `protos.FilteredTransaction`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FilteredTransaction {
    /// Transaction id.
    #[prost(string, tag = "1")]
    pub txid: String,
    /// A `common.HeaderType`.
    #[prost(int32, tag = "2")]
    pub r#type: i32,
    /// A `protos.TxValidationCode`; 254 is NOT_VALIDATED.
    #[prost(int32, tag = "3")]
    pub tx_validation_code: i32,
    /// Of an endorser transaction: its chaincode events.
    #[prost(message, optional, tag = "4")]
    pub transaction_actions: Option<FilteredTransactionActions>,
}

/// `protos.FilteredTransactionActions`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FilteredTransactionActions {
    /// One for each action with an event.
    #[prost(message, repeated, tag = "1")]
    pub chaincode_actions: Vec<FilteredChaincodeAction>,
}

/// `protos.FilteredChaincodeAction`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FilteredChaincodeAction {
    /// The event, without its payload.
    #[prost(message, optional, tag = "1")]
    pub chaincode_event: Option<ChaincodeEvent>,
}

/// `protos.ChaincodeEvent`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ChaincodeEvent {
    /// The chaincode that raised it.
    #[prost(string, tag = "1")]
    pub chaincode_id: String,
    /// The transaction.
    #[prost(string, tag = "2")]
    pub tx_id: String,
    /// Its name.
    #[prost(string, tag = "3")]
    pub event_name: String,
    /// What it carries.
    #[prost(bytes = "bytes", tag = "4")]
    pub payload: Bytes,
}
