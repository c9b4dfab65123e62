//! Policies in the notation of Fabric's tools: `OR('Org1MSP.admin', …)`, `OutOf(2, …)`, `MAJORITY Admins`.

use grapevine_crypto::proto::{
    MspPrincipal, MspRole, MspRoleType, OrganizationUnit, PrincipalClassification,
};
use prost::Message as _;

use super::identity::IdentityDescription;
use super::printable;
use crate::policy::RULE_DEPTH_MAX;
use crate::proto::configtx::ConfigPolicy;
use crate::proto::policies::{
    ImplicitMetaPolicy, ImplicitMetaRule, PolicyType, SignaturePolicy, SignaturePolicyEnvelope,
    signature_policy,
};

const UNREADABLE: &str = "(unreadable)";

/// A policy of a config; one that cannot be read says so.
pub(super) fn describe(entry: &ConfigPolicy) -> String {
    let Some(policy) = &entry.policy else { return "(empty)".to_owned() };
    match PolicyType::try_from(policy.r#type) {
        Ok(PolicyType::ImplicitMeta) => match ImplicitMetaPolicy::decode(policy.value.as_slice()) {
            Ok(meta) => format!("{} {}", rule_name(meta.rule), printable(&meta.sub_policy)),
            Err(_) => UNREADABLE.to_owned(),
        },
        Ok(PolicyType::Signature) => match SignaturePolicyEnvelope::decode(policy.value.as_slice()) {
            Ok(envelope) => {
                let rule = envelope.rule.as_ref();
                rule.map_or_else(
                    || UNREADABLE.to_owned(),
                    |rule| signature_rule(rule, &envelope.identities, 0),
                )
            }
            Err(_) => UNREADABLE.to_owned(),
        },
        _ => format!("(policy of unknown type {})", policy.r#type),
    }
}

fn rule_name(rule: i32) -> &'static str {
    match ImplicitMetaRule::try_from(rule) {
        Ok(ImplicitMetaRule::Any) => "ANY",
        Ok(ImplicitMetaRule::All) => "ALL",
        Ok(ImplicitMetaRule::Majority) => "MAJORITY",
        Err(_) => "(unknown rule)",
    }
}

fn signature_rule(rule: &SignaturePolicy, principals: &[MspPrincipal], depth: usize) -> String {
    if depth >= RULE_DEPTH_MAX {
        return "…".to_owned();
    }
    match &rule.r#type {
        None => UNREADABLE.to_owned(),
        Some(signature_policy::Type::SignedBy(index)) => {
            let principal = usize::try_from(*index).ok().and_then(|index| principals.get(index));
            principal.map_or_else(
                || UNREADABLE.to_owned(),
                |principal| format!("'{}'", describe_principal(principal)),
            )
        }
        Some(signature_policy::Type::NOutOf(threshold)) => {
            let below = depth.saturating_add(1);
            let rules: Vec<String> =
                threshold.rules.iter().map(|rule| signature_rule(rule, principals, below)).collect();
            let list = rules.join(", ");
            match (usize::try_from(threshold.n), rules.len()) {
                (Ok(needed), count) if needed == count && count > 0 => format!("AND({list})"),
                (Ok(1), _) => format!("OR({list})"),
                _ if list.is_empty() => format!("OutOf({})", threshold.n),
                _ => format!("OutOf({}, {list})", threshold.n),
            }
        }
    }
}

fn describe_principal(principal: &MspPrincipal) -> String {
    let bytes = principal.principal.as_slice();
    match PrincipalClassification::try_from(principal.principal_classification) {
        Ok(PrincipalClassification::Role) => match MspRole::decode(bytes) {
            Ok(role) => format!("{}.{}", printable(&role.msp_identifier), role_name(role.role)),
            Err(_) => UNREADABLE.to_owned(),
        },
        Ok(PrincipalClassification::OrganizationUnit) => match OrganizationUnit::decode(bytes) {
            Ok(unit) => {
                let (msp, unit) =
                    (printable(&unit.msp_identifier), printable(&unit.organizational_unit_identifier));
                format!("{msp} OU={unit}")
            }
            Err(_) => UNREADABLE.to_owned(),
        },
        Ok(PrincipalClassification::Identity) => {
            let identity = IdentityDescription::new(bytes, None);
            format!("{} CN={}", identity.msp_id, identity.common_name)
        }
        _ => format!("principal of class {}", principal.principal_classification),
    }
}

fn role_name(role: i32) -> &'static str {
    match MspRoleType::try_from(role) {
        Ok(MspRoleType::Member) => "member",
        Ok(MspRoleType::Admin) => "admin",
        Ok(MspRoleType::Client) => "client",
        Ok(MspRoleType::Peer) => "peer",
        Ok(MspRoleType::Orderer) => "orderer",
        Err(_) => "(unknown role)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::policies::Policy;

    fn principal(msp: &str, role: MspRoleType) -> MspPrincipal {
        let role = MspRole { msp_identifier: msp.to_owned(), role: role.into() };
        MspPrincipal {
            principal_classification: PrincipalClassification::Role.into(),
            principal: role.encode_to_vec(),
        }
    }

    fn signed_by(index: i32) -> SignaturePolicy {
        SignaturePolicy { r#type: Some(signature_policy::Type::SignedBy(index)) }
    }

    fn out_of(n: i32, rules: Vec<SignaturePolicy>) -> SignaturePolicy {
        let threshold = signature_policy::NOutOf { n, rules };
        SignaturePolicy { r#type: Some(signature_policy::Type::NOutOf(threshold)) }
    }

    fn shown(rule: SignaturePolicy) -> String {
        let identities = vec![principal("A", MspRoleType::Admin), principal("B\u{7}", MspRoleType::Member)];
        let value = SignaturePolicyEnvelope { version: 0, rule: Some(rule), identities }.encode_to_vec();
        let policy = Policy { r#type: PolicyType::Signature.into(), value };
        describe(&ConfigPolicy { policy: Some(policy), ..ConfigPolicy::default() })
    }

    #[test]
    fn thresholds_read_as_in_fabrics_tools() {
        assert_eq!(shown(signed_by(0)), "'A.admin'");
        assert_eq!(shown(out_of(1, vec![signed_by(0), signed_by(1)])), "OR('A.admin', 'B\\u{7}.member')");
        assert_eq!(shown(out_of(2, vec![signed_by(0), signed_by(0)])), "AND('A.admin', 'A.admin')");
        let nested = out_of(2, vec![signed_by(0), out_of(1, vec![signed_by(0), signed_by(1)]), signed_by(1)]);
        assert_eq!(shown(nested), "OutOf(2, 'A.admin', OR('A.admin', 'B\\u{7}.member'), 'B\\u{7}.member')");
        assert_eq!(shown(out_of(0, Vec::new())), "OutOf(0)");
        assert_eq!(shown(signed_by(7)), UNREADABLE);
    }

    #[test]
    fn meta_policies_and_what_is_none() {
        let value =
            ImplicitMetaPolicy { sub_policy: "Admins".into(), rule: ImplicitMetaRule::Majority.into() };
        let policy = Policy { r#type: PolicyType::ImplicitMeta.into(), value: value.encode_to_vec() };
        let entry = |policy| ConfigPolicy { policy, ..ConfigPolicy::default() };
        assert_eq!(describe(&entry(Some(policy))), "MAJORITY Admins");
        assert_eq!(describe(&entry(None)), "(empty)");
        let broken = Policy { r#type: PolicyType::ImplicitMeta.into(), value: vec![0xff] };
        assert_eq!(describe(&entry(Some(broken))), UNREADABLE);
        let unknown = Policy { r#type: 9, value: Vec::new() };
        assert_eq!(describe(&entry(Some(unknown))), "(policy of unknown type 9)");
    }
}
