//! The policies of configtxgen's sample profiles.

use std::collections::BTreeMap;

use grapevine_crypto::proto::{FabricMspConfig, MspPrincipal, MspRole, MspRoleType, PrincipalClassification};
use prost::Message as _;

use crate::proto::configtx::ConfigPolicy;
pub(super) use crate::proto::policies::ImplicitMetaRule as Rule;
use crate::proto::policies::{
    ImplicitMetaPolicy, Policy, PolicyType, SignaturePolicy, SignaturePolicyEnvelope, signature_policy,
};

/// Who may change anything: the policy of this name at the element's own group.
pub(super) const ADMINS: &str = "Admins";

/// Policies (name, name of the policy below, rule).
pub(super) fn meta_policies(policies: &[(&str, &str, Rule)]) -> BTreeMap<String, ConfigPolicy> {
    let policies = policies.iter().map(|(name, sub_policy, rule)| {
        let policy = ImplicitMetaPolicy { sub_policy: (*sub_policy).to_owned(), rule: (*rule).into() };
        ((*name).to_owned(), config_policy(PolicyType::ImplicitMeta, policy.encode_to_vec()))
    });
    policies.collect()
}

pub(super) fn orderer_org_policies(msp: &FabricMspConfig) -> BTreeMap<String, ConfigPolicy> {
    BTreeMap::from([
        any_role(msp, "Readers", &[MspRoleType::Member]),
        any_role(msp, "Writers", &[MspRoleType::Member]),
        any_role(msp, ADMINS, &[MspRoleType::Admin]),
    ])
}

pub(super) fn application_org_policies(msp: &FabricMspConfig) -> BTreeMap<String, ConfigPolicy> {
    let roles_known = msp.fabric_node_ous.as_ref().is_some_and(|node_ous| node_ous.enable);
    let (readers, writers, endorsers): (&[_], &[_], &[_]) = if roles_known {
        (
            &[MspRoleType::Admin, MspRoleType::Peer, MspRoleType::Client],
            &[MspRoleType::Admin, MspRoleType::Client],
            &[MspRoleType::Peer],
        )
    } else {
        (&[MspRoleType::Member], &[MspRoleType::Member], &[MspRoleType::Member])
    };
    BTreeMap::from([
        any_role(msp, "Readers", readers),
        any_role(msp, "Writers", writers),
        any_role(msp, ADMINS, &[MspRoleType::Admin]),
        any_role(msp, "Endorsement", endorsers),
    ])
}

/// One signature by a member with any of the roles.
fn any_role(msp: &FabricMspConfig, name: &str, roles: &[MspRoleType]) -> (String, ConfigPolicy) {
    let principals = roles.iter().map(|role| MspPrincipal {
        principal_classification: PrincipalClassification::Role.into(),
        principal: MspRole { msp_identifier: msp.name.clone(), role: (*role).into() }.encode_to_vec(),
    });
    let leaves = (0_i32..).zip(roles).map(|(index, _)| rule(signature_policy::Type::SignedBy(index)));
    let one_of = signature_policy::NOutOf { n: 1, rules: leaves.collect() };
    let envelope = SignaturePolicyEnvelope {
        version: 0,
        rule: Some(rule(signature_policy::Type::NOutOf(one_of))),
        identities: principals.collect(),
    };
    (name.to_owned(), config_policy(PolicyType::Signature, envelope.encode_to_vec()))
}

fn rule(kind: signature_policy::Type) -> SignaturePolicy {
    SignaturePolicy { r#type: Some(kind) }
}

fn config_policy(kind: PolicyType, value: Vec<u8>) -> ConfigPolicy {
    let policy = Policy { r#type: kind.into(), value };
    ConfigPolicy { version: 0, policy: Some(policy), mod_policy: ADMINS.to_owned() }
}
