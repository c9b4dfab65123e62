//! From marshalled policies to [`Policy`].

use std::sync::Arc;

use grapevine_crypto::proto::MspPrincipal;
use prost::Message as _;

use super::{Policy, RULE_DEPTH_MAX, RULES_MAX, Rule, SignatureRule};
use crate::proto::policies::{
    ImplicitMetaPolicy, ImplicitMetaRule, SignaturePolicy, SignaturePolicyEnvelope, signature_policy,
};

/// A policy that does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFormatError {
    /// Not protobuf, or nested beyond every bound.
    #[error("policy cannot be decoded: {0}")]
    Decode(#[from] prost::DecodeError),
    /// Fabric knows version 0 only.
    #[error("signature policy has the unknown version {0}")]
    Version(i32),
    /// A node of the tree is empty.
    #[error("signature policy has an empty rule")]
    EmptyRule,
    /// A leaf names a principal that does not exist.
    #[error("signature policy names principal {index} of {principals}")]
    Principal {
        /// The index.
        index: i32,
        /// Number of principals.
        principals: usize,
    },
    /// Nested deeper than [`RULE_DEPTH_MAX`].
    #[error("signature policy is nested deeper than {RULE_DEPTH_MAX} levels")]
    TooDeep,
    /// More than [`RULES_MAX`] rules.
    #[error("signature policy has more than {RULES_MAX} rules")]
    TooManyRules,
    /// Neither ANY nor ALL nor MAJORITY.
    #[error("implicit meta policy has the unknown rule {0}")]
    UnknownRule(i32),
    /// Neither SIGNATURE nor IMPLICIT_META.
    #[error("policy has the unknown type {0}")]
    UnknownType(i32),
}

impl Policy {
    /// Compiles a marshalled `common.SignaturePolicyEnvelope` (Fabric: `cauthdsl.NewPolicyProvider`).
    pub fn from_signature_policy(value: &[u8]) -> Result<Self, PolicyFormatError> {
        let envelope = SignaturePolicyEnvelope::decode(value)?;
        if envelope.version != 0 {
            return Err(PolicyFormatError::Version(envelope.version));
        }
        let rule = envelope.rule.ok_or(PolicyFormatError::EmptyRule)?;
        let mut rules_left = RULES_MAX;
        let rule = compile(&rule, &envelope.identities, RULE_DEPTH_MAX, &mut rules_left)?;
        Ok(Self::Signature(SignatureRule { rule, principals: envelope.identities }))
    }

    /// Compiles a marshalled `common.ImplicitMetaPolicy` with the thresholds of Fabric's
    /// `policies.NewImplicitMetaPolicy`; without groups below, everything satisfies the policy.
    ///
    /// `policy_below` yields, for a name, the policies of that name of all groups directly below, [`Policy::Reject`] for
    /// a group that lacks one.
    pub fn from_implicit_meta_policy(
        value: &[u8],
        policy_below: impl FnOnce(&str) -> Vec<Arc<Self>>,
    ) -> Result<Self, PolicyFormatError> {
        let definition = ImplicitMetaPolicy::decode(value)?;
        let rule = ImplicitMetaRule::try_from(definition.rule);
        let rule = rule.map_err(|_| PolicyFormatError::UnknownRule(definition.rule))?;
        let policies = policy_below(&definition.sub_policy);
        let threshold = match rule {
            _ if policies.is_empty() => 0,
            ImplicitMetaRule::Any => 1,
            ImplicitMetaRule::All => policies.len(),
            ImplicitMetaRule::Majority => (policies.len() / 2).saturating_add(1),
        };
        Ok(Self::ImplicitMeta { threshold, policies })
    }
}

fn compile(
    policy: &SignaturePolicy,
    principals: &[MspPrincipal],
    depth_left: usize,
    rules_left: &mut usize,
) -> Result<Rule, PolicyFormatError> {
    *rules_left = rules_left.checked_sub(1).ok_or(PolicyFormatError::TooManyRules)?;
    let depth_left = depth_left.checked_sub(1).ok_or(PolicyFormatError::TooDeep)?;
    match policy.r#type.as_ref().ok_or(PolicyFormatError::EmptyRule)? {
        signature_policy::Type::SignedBy(index) => match usize::try_from(*index) {
            Ok(place) if place < principals.len() => Ok(Rule::SignedBy(place)),
            _ => Err(PolicyFormatError::Principal { index: *index, principals: principals.len() }),
        },
        signature_policy::Type::NOutOf(threshold) => {
            let rules = threshold.rules.iter();
            let rules = rules.map(|rule| compile(rule, principals, depth_left, rules_left));
            Ok(Rule::AtLeast { count: threshold.n, rules: rules.collect::<Result<_, _>>()? })
        }
    }
}
