//! Policies: which identities must have signed.
//!
//! Two kinds exist (Fabric: `common/cauthdsl`, `common/policies`). A *signature policy* is a tree of thresholds whose
//! leaves name principals; each signature satisfies at most one leaf on the way ("used" tracking). An *implicit meta
//! policy* counts how many groups directly below satisfy their policy of a given name.
//!
//! # Promises
//! * Signatures are turned into identities once per evaluation, by [`crate::config::ChannelConfig::evaluate`]: each
//!   identity counts once, whoever is unknown, revoked or has signed wrongly does not count, none of that is fatal.
//! * Evaluation gives what Fabric gives, its greedy choice included: a leaf takes the first unused identity that fits,
//!   and every rule of a threshold is tried even if enough hold already.
//! * Compiling is bounded: [`RULE_DEPTH_MAX`] levels, [`RULES_MAX`] rules. So evaluation is bounded by rules times
//!   signatures ([`crate::verify::SIGNATURES_MAX`] for blocks).
//! * What does not compile is a typed error of the config; what is missing rejects everything.

mod compile;

use std::sync::Arc;

use bytes::Bytes;
use grapevine_crypto::proto::MspPrincipal;

pub use compile::PolicyFormatError;

/// Deepest nesting of thresholds in a signature policy.
pub const RULE_DEPTH_MAX: usize = 32;
/// Most rules of a signature policy, leaves included.
pub const RULES_MAX: usize = 4096;

/// Somebody's signature over something; nothing is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedData {
    /// What was signed.
    pub data: Bytes,
    /// Marshalled `msp.SerializedIdentity` of the claimed signer.
    pub identity: Bytes,
    /// The signature.
    pub signature: Bytes,
}

/// A policy is not satisfied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy {path} is not satisfied by the {identities} valid of {signatures} signatures{}", if *defined { "" } else { ": the channel's config does not define it" })]
pub struct PolicyError {
    /// Which policy.
    pub path: String,
    /// Signatures given.
    pub signatures: usize,
    /// Distinct identities of the channel that signed correctly.
    pub identities: usize,
    /// Whether the channel's config defines the policy.
    pub defined: bool,
}

/// A compiled policy.
#[derive(Debug, Clone)]
pub enum Policy {
    /// Thresholds over principals.
    Signature(SignatureRule),
    /// Threshold over the policies of the groups below.
    ImplicitMeta {
        /// How many must hold.
        threshold: usize,
        /// The policies.
        policies: Vec<Arc<Self>>,
    },
    /// Never satisfied: what stands in for a missing policy.
    Reject,
}

/// A compiled signature policy.
#[derive(Debug, Clone)]
pub struct SignatureRule {
    rule: Rule,
    principals: Vec<MspPrincipal>,
}

#[derive(Debug, Clone)]
enum Rule {
    /// Index into the principals; within bounds by construction.
    SignedBy(usize),
    AtLeast {
        count: i32,
        rules: Vec<Self>,
    },
}

impl Policy {
    /// Whether the identities satisfy this policy. Each must be distinct and have signed; `satisfies` says whether one
    /// fits a principal.
    pub fn evaluate<I>(&self, identities: &[I], satisfies: &dyn Fn(&I, &MspPrincipal) -> bool) -> bool {
        match self {
            Self::Reject => false,
            Self::ImplicitMeta { threshold, policies } => {
                let held = policies.iter().filter(|policy| policy.evaluate(identities, satisfies));
                held.take(*threshold).count() == *threshold
            }
            Self::Signature(policy) => {
                let mut used = vec![false; identities.len()];
                policy.holds(&policy.rule, identities, &mut used, satisfies)
            }
        }
    }
}

impl SignatureRule {
    fn holds<I>(
        &self,
        rule: &Rule,
        identities: &[I],
        used: &mut Vec<bool>,
        satisfies: &dyn Fn(&I, &MspPrincipal) -> bool,
    ) -> bool {
        match rule {
            Rule::SignedBy(index) => {
                let Some(principal) = self.principals.get(*index) else { return false };
                let fitting = identities
                    .iter()
                    .zip(used.iter_mut())
                    .find(|(identity, used)| !**used && satisfies(identity, principal));
                fitting.is_some_and(|(_, used)| {
                    *used = true;
                    true
                })
            }
            Rule::AtLeast { count, rules } => {
                let mut held = 0_i32;
                for rule in rules {
                    let mut attempt = used.clone();
                    if self.holds(rule, identities, &mut attempt, satisfies) {
                        held = held.saturating_add(1);
                        *used = attempt;
                    }
                }
                held >= *count
            }
        }
    }
}
