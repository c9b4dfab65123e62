//! `common/policies.proto`: who must sign.

use grapevine_crypto::proto::MspPrincipal;

/// `common.Policy.PolicyType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PolicyType {
    /// No type was set.
    Unknown = 0,
    /// [`SignaturePolicyEnvelope`].
    Signature = 1,
    /// Never implemented by Fabric.
    Msp = 2,
    /// [`ImplicitMetaPolicy`].
    ImplicitMeta = 3,
}

/// `common.Policy`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Policy {
    /// A [`PolicyType`].
    #[prost(enumeration = "PolicyType", tag = "1")]
    pub r#type: i32,
    /// The marshalled policy.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `common.SignaturePolicyEnvelope`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SignaturePolicyEnvelope {
    /// Always 0.
    #[prost(int32, tag = "1")]
    pub version: i32,
    /// The tree.
    #[prost(message, optional, tag = "2")]
    pub rule: Option<SignaturePolicy>,
    /// Principals, which leaves name by index.
    #[prost(message, repeated, tag = "3")]
    pub identities: Vec<MspPrincipal>,
}

/// `common.SignaturePolicy`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SignaturePolicy {
    /// Leaf or inner node.
    #[prost(oneof = "signature_policy::Type", tags = "1, 2")]
    pub r#type: Option<signature_policy::Type>,
}

/// Types nested in [`SignaturePolicy`].
pub mod signature_policy {
    /// `common.SignaturePolicy.NOutOf`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct NOutOf {
        /// How many rules must hold.
        #[prost(int32, tag = "1")]
        pub n: i32,
        /// The rules.
        #[prost(message, repeated, tag = "2")]
        pub rules: Vec<super::SignaturePolicy>,
    }

    /// Kind of a node.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Type {
        /// Index into the principals of the envelope.
        #[prost(int32, tag = "1")]
        SignedBy(i32),
        /// Threshold over rules.
        #[prost(message, tag = "2")]
        NOutOf(NOutOf),
    }
}

/// `common.ImplicitMetaPolicy`: a threshold over the policies of one name in the groups below.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ImplicitMetaPolicy {
    /// Name of the policy in each group below.
    #[prost(string, tag = "1")]
    pub sub_policy: String,
    /// An [`ImplicitMetaRule`].
    #[prost(enumeration = "ImplicitMetaRule", tag = "2")]
    pub rule: i32,
}

/// `common.ImplicitMetaPolicy.Rule`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ImplicitMetaRule {
    /// At least one.
    Any = 0,
    /// Every one.
    All = 1,
    /// More than half.
    Majority = 2,
}
