//! MSP principals, the atoms of policies.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{VALIDITY, authority, config, identify, msp, organization};
use grapevine_crypto::proto::{
    CombinedPrincipal, MspIdentityAnonymity, MspPrincipal, MspRole, MspRoleType, OrganizationUnit,
    PrincipalClassification,
};
use grapevine_crypto::{Algorithm, Identity, Role, sha256};

fn principal(kind: PrincipalClassification, message: &impl prost::Message) -> MspPrincipal {
    MspPrincipal { principal_classification: kind.into(), principal: message.encode_to_vec() }
}

fn role(msp: &str, role: MspRoleType) -> MspPrincipal {
    let message = MspRole { msp_identifier: msp.to_owned(), role: role.into() };
    principal(PrincipalClassification::Role, &message)
}

#[test]
fn roles_are_those_told_by_the_certificate() {
    let organization = organization(Algorithm::EcdsaP256);
    let msp = organization.msp().unwrap();
    let member = |role: Role| organization.enrol("node", role, VALIDITY).unwrap().identity().clone();
    let kinds = [
        (Role::Client, MspRoleType::Client),
        (Role::Peer, MspRoleType::Peer),
        (Role::Admin, MspRoleType::Admin),
        (Role::Orderer, MspRoleType::Orderer),
    ];
    for (has, _) in kinds {
        let member = member(has);
        assert!(msp.satisfies(&member, &role("Org1MSP", MspRoleType::Member)));
        assert!(!msp.satisfies(&member, &role("Org2MSP", MspRoleType::Member)));
        for (wanted, kind) in kinds {
            assert_eq!(msp.satisfies(&member, &role("Org1MSP", kind)), has == wanted, "{has} {wanted}");
        }
    }
}

#[test]
fn an_identity_of_another_msp_satisfies_nothing() {
    let (ours, theirs) = (organization(Algorithm::Ed25519), organization(Algorithm::Ed25519));
    let stranger = theirs.enrol("peer0", Role::Peer, VALIDITY).unwrap();
    assert!(!ours.msp().unwrap().satisfies(stranger.identity(), &role("Org1MSP", MspRoleType::Member)));
}

#[test]
fn a_member_revoked_since_no_longer_satisfies() {
    let authority = authority();
    let mut config = config(&[&authority]);
    let issued = authority.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap();
    let before = msp(&config);
    let member = identify(&before, &issued.certificate).unwrap();
    config.revocation_list = vec![authority.revoke(&[&issued.certificate], VALIDITY).unwrap()];
    let after = msp(&config);
    let principal = role("Org1MSP", MspRoleType::Member);
    assert!(before.satisfies(&member, &principal));
    assert!(!after.satisfies(&member, &principal));
}

#[test]
fn organizational_units_need_the_name_and_the_certifier() {
    let authority = authority();
    let msp = msp(&config(&[&authority]));
    let issued = authority.issue_with_units("peer0", &["trade", "peer"], VALIDITY).unwrap();
    let member = identify(&msp, &issued.certificate).unwrap();
    let unit = |msp_identifier: &str, unit: &str, certifiers_identifier: Vec<u8>| {
        let message = OrganizationUnit {
            msp_identifier: msp_identifier.to_owned(),
            organizational_unit_identifier: unit.to_owned(),
            certifiers_identifier,
        };
        principal(PrincipalClassification::OrganizationUnit, &message)
    };
    let certifier = sha256(authority.certificate().der()).0.to_vec();
    assert!(msp.satisfies(&member, &unit("Org1MSP", "trade", certifier.clone())));
    assert!(msp.satisfies(&member, &unit("Org1MSP", "peer", certifier.clone())));
    assert!(!msp.satisfies(&member, &unit("Org1MSP", "other", certifier.clone())));
    assert!(!msp.satisfies(&member, &unit("Org2MSP", "trade", certifier)));
    assert!(!msp.satisfies(&member, &unit("Org1MSP", "trade", vec![0; 32])));
    assert!(!msp.satisfies(&member, &unit("Org1MSP", "trade", Vec::new())));
}

#[test]
fn the_certifiers_identifier_covers_the_whole_chain_issuer_first() {
    let root = authority();
    let lower = root.issue_authority("lower", VALIDITY).unwrap();
    let mut config = config(&[&root]);
    config.intermediate_certs = vec![lower.certificate().pem().to_vec()];
    let msp = msp(&config);
    let issued = lower.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap();
    let member = identify(&msp, &issued.certificate).unwrap();
    let message = OrganizationUnit {
        msp_identifier: "Org1MSP".to_owned(),
        organizational_unit_identifier: "peer".to_owned(),
        certifiers_identifier: sha256(&[lower.certificate().der(), root.certificate().der()].concat())
            .0
            .to_vec(),
    };
    assert!(msp.satisfies(&member, &principal(PrincipalClassification::OrganizationUnit, &message)));
}

#[test]
fn identities_match_exactly_one_certificate() {
    let organization = organization(Algorithm::Ed25519);
    let msp = organization.msp().unwrap();
    let member = || organization.enrol("peer0", Role::Peer, VALIDITY).unwrap().identity().clone();
    let (one, renewed) = (member(), member());
    let exactly = |identity: &Identity| MspPrincipal {
        principal_classification: PrincipalClassification::Identity.into(),
        principal: identity.serialized().to_vec(),
    };
    assert!(msp.satisfies(&one, &exactly(&one)));
    assert!(!msp.satisfies(&renewed, &exactly(&one)));
}

#[test]
fn combined_principals_need_every_part_and_have_a_bounded_depth() {
    let organization = organization(Algorithm::Ed25519);
    let msp = organization.msp().unwrap();
    let peer = organization.enrol("peer0", Role::Peer, VALIDITY).unwrap().identity().clone();
    let all = |principals: &[MspPrincipal]| {
        let message = CombinedPrincipal { principals: principals.to_vec() };
        principal(PrincipalClassification::Combined, &message)
    };
    let (member, is_peer) = (role("Org1MSP", MspRoleType::Member), role("Org1MSP", MspRoleType::Peer));
    assert!(msp.satisfies(&peer, &all(&[member.clone(), is_peer.clone()])));
    assert!(!msp.satisfies(&peer, &all(&[member, role("Org1MSP", MspRoleType::Admin)])));
    assert!(!msp.satisfies(&peer, &all(&[])));
    let mut nested = is_peer;
    for depth in 1..=6 {
        nested = all(&[nested]);
        assert_eq!(msp.satisfies(&peer, &nested), depth <= 4, "depth {depth}");
    }
}

#[test]
fn malformed_and_unknown_principals_satisfy_nobody() {
    let organization = organization(Algorithm::Ed25519);
    let msp = organization.msp().unwrap();
    let peer = organization.enrol("peer0", Role::Peer, VALIDITY).unwrap().identity().clone();
    for kind in -1..8 {
        let garbage = MspPrincipal { principal_classification: kind, principal: vec![0xff; 9] };
        assert!(!msp.satisfies(&peer, &garbage), "{kind}");
    }
    let unknown_role = MspRole { msp_identifier: "Org1MSP".to_owned(), role: 99 };
    assert!(!msp.satisfies(&peer, &principal(PrincipalClassification::Role, &unknown_role)));
    let anonymous = MspIdentityAnonymity { anonymity_type: 1 };
    assert!(!msp.satisfies(&peer, &principal(PrincipalClassification::Anonymity, &anonymous)));
    let nominal = MspIdentityAnonymity { anonymity_type: 0 };
    assert!(msp.satisfies(&peer, &principal(PrincipalClassification::Anonymity, &nominal)));
}
