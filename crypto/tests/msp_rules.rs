//! Fabric's rules for members, one test each, on chains issued here.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{NOW, VALIDITY, authority, config, identify, msp, organization};
use grapevine_crypto::issue::{CertificateAuthority, IssueError, Validity};
use grapevine_crypto::{
    Algorithm, Certificate, CertificateError, IdentityError, Msp, MspError, PemError, Role, proto,
    serialize_identity,
};
use proptest::prelude::*;

#[test]
fn members_of_every_role_and_algorithm_are_valid() {
    for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256] {
        let organization = organization(algorithm);
        for role in Role::ALL {
            let signer = organization.enrol("node", role, VALIDITY).unwrap();
            let identity = signer.identity();
            assert_eq!((identity.role(), identity.is_admin()), (Some(role), role == Role::Admin));
            let signature = signer.sign(b"message");
            assert_eq!(identity.verify(b"message", &signature), Ok(()));
            assert!(identity.verify(b"another", &signature).is_err());
        }
    }
}

#[test]
fn renewal_keeps_the_pki_id_and_changes_the_certificate() {
    let organization = organization(Algorithm::Ed25519);
    let old = organization.enrol("peer0", Role::Peer, VALIDITY).unwrap();
    let later = Validity::ten_years_from(NOW + 1000);
    let new = organization.enrol("peer0", Role::Peer, later).unwrap();
    let other = organization.enrol("peer1", Role::Peer, later).unwrap();
    assert_eq!(old.identity().pki_id(), new.identity().pki_id());
    assert_ne!(old.identity().certificate(), new.identity().certificate());
    assert_ne!(old.identity().pki_id(), other.identity().pki_id());
}

#[test]
fn members_without_a_name_do_not_share_a_pki_id() {
    let authority = authority();
    let msp = msp(&config(&[&authority]));
    let id = || {
        let issued = authority.issue_with_units("", &["peer"], VALIDITY).unwrap();
        identify(&msp, &issued.certificate).unwrap().pki_id()
    };
    assert_ne!(id(), id());
}

#[test]
fn another_ca_of_the_same_name_issues_no_members() {
    let (ours, theirs) = (authority(), authority());
    let issued = theirs.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap();
    let error = identify(&msp(&config(&[&ours])), &issued.certificate).unwrap_err();
    assert_eq!(error, IdentityError::NotIssuedByMsp("Org1MSP".into()));
}

#[test]
fn a_member_cannot_issue_members() {
    let authority = authority();
    let member = authority.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap();
    let mut config = config(&[&authority]);
    config.intermediate_certs = vec![member.certificate.pem().to_vec()];
    let error = Msp::from_config(&config).unwrap_err();
    assert!(matches!(error, MspError::NotAnAuthority { .. }), "{error}");
    assert!(error.to_string().contains("intermediate certificate 1 of Org1MSP"), "{error}");
}

#[test]
fn a_ca_cannot_act_as_a_member() {
    let authority = authority();
    let msp = msp(&config(&[&authority]));
    assert_eq!(identify(&msp, authority.certificate()).unwrap_err(), IdentityError::IsAuthority);
    let below = authority.issue_authority("ca2", VALIDITY).unwrap();
    assert_eq!(identify(&msp, below.certificate()).unwrap_err(), IdentityError::IsAuthority);
}

#[test]
fn another_msp_is_named_in_the_error() {
    let organization = organization(Algorithm::Ed25519);
    let signer = organization.enrol("peer0", Role::Peer, VALIDITY).unwrap();
    let foreign = serialize_identity(&"Org2MSP".into(), signer.identity().certificate().pem());
    let error = organization.msp().unwrap().identify(&foreign).unwrap_err();
    assert_eq!(error.to_string(), "the identity belongs to MSP Org2MSP, not to Org1MSP");
}

#[test]
fn intermediates_issue_members_and_the_ca_above_them_no_longer_does() {
    for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256] {
        let root = CertificateAuthority::new("org1.example.com", algorithm, VALIDITY).unwrap();
        let middle = root.issue_authority("middle", VALIDITY).unwrap();
        let lowest = middle.issue_authority("lowest", VALIDITY).unwrap();
        let mut config = config(&[&root]);
        let above = root.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap();
        let between = middle.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap();
        let below = lowest.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap();
        let not_issued = Err(IdentityError::NotIssuedByMsp("Org1MSP".into()));
        let inner = Err(IdentityError::IssuedByInnerAuthority("Org1MSP".into()));
        let outcome = |msp: &Msp, certificate| identify(msp, certificate).map(|_| ());

        let alone = msp(&config);
        assert_eq!(outcome(&alone, &above.certificate), Ok(()));
        assert_eq!(outcome(&alone, &below.certificate), not_issued);

        config.intermediate_certs =
            [&lowest, &middle].iter().map(|ca| ca.certificate().pem().to_vec()).collect();
        let full = msp(&config);
        assert_eq!(outcome(&full, &above.certificate), inner);
        assert_eq!(outcome(&full, &between.certificate), inner);
        assert_eq!(outcome(&full, &below.certificate), Ok(()));

        config.intermediate_certs = vec![lowest.certificate().pem().to_vec()];
        let error = Msp::from_config(&config).unwrap_err();
        assert!(matches!(error, MspError::IntermediateWithoutRoot { .. }), "{error}");
    }
}

#[test]
fn more_than_one_chain_is_refused() {
    let authority = authority();
    let renewed = authority.renew(VALIDITY).unwrap();
    let member = authority.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap();
    for root in [&authority, &renewed] {
        identify(&msp(&config(&[root])), &member.certificate).unwrap();
    }
    let error = identify(&msp(&config(&[&authority, &renewed])), &member.certificate).unwrap_err();
    assert_eq!(error, IdentityError::SeveralChains("Org1MSP".into()));
    // The same certificate twice is one chain, also when listed as root and as intermediate.
    let mut twice = config(&[&authority, &authority]);
    twice.intermediate_certs = vec![authority.certificate().pem().to_vec()];
    identify(&msp(&twice), &member.certificate).unwrap();
}

#[test]
fn expiry_is_told_but_does_not_invalidate() {
    let short = Validity { not_before: NOW, not_after: NOW + 10 };
    let authority = CertificateAuthority::new("org1", Algorithm::Ed25519, short).unwrap();
    let signer = authority.issue_enrolment("peer0", Role::Peer, short).unwrap();
    let identity = identify(&msp(&config(&[&authority])), &signer.certificate).unwrap();
    assert!(!identity.expired_at(NOW));
    assert!(!identity.expired_at(NOW + 10), "the last second counts");
    assert!(identity.expired_at(NOW + 11));
}

#[test]
fn a_ca_that_was_not_valid_at_issue_gives_no_chain() {
    let authority = authority();
    let member = authority.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap();
    let later = authority.renew(Validity::ten_years_from(NOW + 100)).unwrap();
    let error = identify(&msp(&config(&[&later])), &member.certificate).unwrap_err();
    assert_eq!(error, IdentityError::NotIssuedByMsp("Org1MSP".into()));
    let early = Validity::ten_years_from(NOW - 1);
    let error = authority.issue_enrolment("peer0", Role::Peer, early).unwrap_err();
    assert!(matches!(error, IssueError::OutsideAuthority { .. }));
}

#[test]
fn revoked_members_and_authorities_are_refused() {
    for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256] {
        let authority = CertificateAuthority::new("org1.example.com", algorithm, VALIDITY).unwrap();
        let revoked = authority.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap().certificate;
        let kept = authority.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap().certificate;
        let mut config = config(&[&authority]);
        config.revocation_list = vec![authority.revoke(&[&revoked], VALIDITY).unwrap()];
        let msp = msp(&config);
        assert_eq!(msp.unusable_revocation_lists(), 0);
        let serial = hex::encode(revoked.serial());
        assert_eq!(identify(&msp, &revoked).unwrap_err(), IdentityError::Revoked(serial));
        identify(&msp, &kept).unwrap();

        let below = authority.issue_authority("ca2", VALIDITY).unwrap();
        config.intermediate_certs = vec![below.certificate().pem().to_vec()];
        config.revocation_list = vec![authority.revoke(&[below.certificate()], VALIDITY).unwrap()];
        let error = Msp::from_config(&config).unwrap_err();
        assert!(matches!(error, MspError::RevokedAuthority { .. }), "{error}");
    }
}

#[test]
fn an_outdated_revocation_list_still_revokes() {
    let authority = authority();
    let revoked = authority.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap().certificate;
    let mut config = config(&[&authority]);
    let past = Validity { not_before: 1_000_000_000, not_after: 1_000_000_010 };
    config.revocation_list = vec![authority.revoke(&[&revoked], past).unwrap()];
    let error = identify(&msp(&config), &revoked).unwrap_err();
    assert_eq!(error, IdentityError::Revoked(hex::encode(revoked.serial())));
}

#[test]
fn revocation_lists_of_strangers_have_no_effect_and_are_counted() {
    let (ours, theirs) = (authority(), authority());
    let member = ours.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap().certificate;
    let mut config = config(&[&ours]);
    config.revocation_list = vec![theirs.revoke(&[&member], VALIDITY).unwrap()];
    let msp = msp(&config);
    assert_eq!(msp.unusable_revocation_lists(), 1);
    identify(&msp, &member).unwrap();
    config.revocation_list = vec![b"garbage".to_vec()];
    let error = Msp::from_config(&config).unwrap_err();
    assert!(error.to_string().contains("revocation list 1 of Org1MSP"), "{error}");
}

#[test]
fn roles_must_be_told_exactly_once() {
    let authority = authority();
    let msp = msp(&config(&[&authority]));
    let outcome = |units: &[&str]| {
        let issued = authority.issue_with_units("peer0", units, VALIDITY).unwrap();
        identify(&msp, &issued.certificate).map(|identity| identity.role())
    };
    assert_eq!(outcome(&["peer"]), Ok(Some(Role::Peer)));
    assert_eq!(outcome(&["department", "peer"]), Ok(Some(Role::Peer)));
    assert_eq!(outcome(&[]), Err(IdentityError::RoleMissing));
    assert_eq!(outcome(&["Peer"]), Err(IdentityError::RoleMissing));
    assert_eq!(outcome(&["peer", "orderer"]), Err(IdentityError::SeveralRoles));
    assert_eq!(outcome(&["peer", "peer"]), Err(IdentityError::SeveralRoles));
}

#[test]
fn roles_count_only_under_the_configured_certifier() {
    let (first, second) = (authority(), authority());
    let mut config = config(&[&first, &second]);
    let nodes = config.fabric_node_ous.as_mut().unwrap();
    nodes.peer_ou_identifier.as_mut().unwrap().certificate = first.certificate().pem().to_vec();
    let msp = msp(&config);
    let ours = first.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap();
    let theirs = second.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap();
    let client = second.issue_enrolment("user", Role::Client, VALIDITY).unwrap();
    identify(&msp, &ours.certificate).unwrap();
    identify(&msp, &client.certificate).unwrap();
    let error = identify(&msp, &theirs.certificate).unwrap_err();
    assert_eq!(error, IdentityError::WrongCertifier("peer".to_owned()));

    let stranger = authority();
    let nodes = config.fabric_node_ous.as_mut().unwrap();
    nodes.peer_ou_identifier.as_mut().unwrap().certificate = stranger.certificate().pem().to_vec();
    assert!(matches!(Msp::from_config(&config), Err(MspError::UnknownCertifier { .. })));
}

#[test]
fn demanded_organizational_units_are_demanded_of_everybody() {
    let authority = authority();
    let mut config = config(&[&authority]);
    config.organizational_unit_identifiers = vec![proto::FabricOuIdentifier {
        certificate: authority.certificate().pem().to_vec(),
        organizational_unit_identifier: "trade".to_owned(),
    }];
    let msp = msp(&config);
    let with = authority.issue_with_units("peer0", &["trade", "peer"], VALIDITY).unwrap();
    let without = authority.issue_with_units("peer0", &["peer"], VALIDITY).unwrap();
    identify(&msp, &with.certificate).unwrap();
    let error = identify(&msp, &without.certificate).unwrap_err();
    assert_eq!(error, IdentityError::OrganizationalUnitMissing("Org1MSP".into()));
}

#[test]
fn without_node_ous_admins_are_listed_and_nobody_has_a_role() {
    let authority = authority();
    let admin = authority.issue_with_units("admin", &[], VALIDITY).unwrap();
    let user = authority.issue_with_units("user", &["admin"], VALIDITY).unwrap();
    let mut config = config(&[&authority]);
    config.fabric_node_ous = None;
    assert!(matches!(Msp::from_config(&config), Err(MspError::AdminsMissing(_))));
    config.admins = vec![admin.certificate.pem().to_vec()];
    let msp = msp(&config);
    let admin = identify(&msp, &admin.certificate).unwrap();
    let user = identify(&msp, &user.certificate).unwrap();
    assert_eq!((admin.is_admin(), admin.role()), (true, None));
    assert_eq!((user.is_admin(), user.role()), (false, None));
}

#[test]
fn listed_admins_must_be_valid_clients_or_admins() {
    let authority = authority();
    let mut config = config(&[&authority]);
    let client = authority.issue_enrolment("client", Role::Client, VALIDITY).unwrap();
    config.admins = vec![client.certificate.pem().to_vec()];
    assert!(identify(&msp(&config), &client.certificate).unwrap().is_admin());
    let peer = authority.issue_enrolment("peer", Role::Peer, VALIDITY).unwrap();
    config.admins = vec![peer.certificate.pem().to_vec()];
    assert!(matches!(Msp::from_config(&config), Err(MspError::AdminRole { .. })));
    let stranger = common::authority().issue_enrolment("client", Role::Client, VALIDITY).unwrap();
    config.admins = vec![stranger.certificate.pem().to_vec()];
    assert!(matches!(Msp::from_config(&config), Err(MspError::InvalidAdmin { .. })));
}

#[test]
fn configurations_that_fabric_refuses_are_refused() {
    let authority = authority();
    let refuse = |change: &dyn Fn(&mut proto::FabricMspConfig)| {
        let mut config = config(&[&authority]);
        change(&mut config);
        Msp::from_config(&config).unwrap_err().to_string()
    };
    assert!(refuse(&|config| config.root_certs.clear()).contains("cacerts"));
    assert!(refuse(&|config| config.name.clear()).contains("MSP identifier"));
    assert!(refuse(&|config| config.root_certs[0].truncate(99)).contains("root certificate 1 of Org1MSP"));
    assert!(refuse(&|config| config.tls_root_certs.push(vec![1])).contains("TLS root certificate 1"));
    let sha3 = proto::FabricCryptoConfig { signature_hash_family: "SHA3".into(), ..Default::default() };
    assert!(refuse(&|config| config.crypto_config = Some(sha3.clone())).contains("SHA2"));
    let shared = |config: &mut proto::FabricMspConfig| {
        let nodes = config.fabric_node_ous.as_mut().unwrap();
        nodes.peer_ou_identifier.as_mut().unwrap().organizational_unit_identifier = "client".into();
    };
    assert!(refuse(&shared).contains("two roles"));
}

#[test]
fn one_spelling_of_the_pem_only() {
    let authority = authority();
    let msp = msp(&config(&[&authority]));
    let pem = authority.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap().certificate.pem().to_vec();
    let outcome = |pem: &[u8]| msp.identify(&serialize_identity(msp.id(), pem)).map(|_| ());
    let pem_error = |error| Err(IdentityError::Certificate(CertificateError::Pem(error)));
    assert_eq!(outcome(&pem), Ok(()));
    assert_eq!(outcome(&[pem.as_slice(), b"\n"].concat()), pem_error(PemError::TrailingBytes));
    assert_eq!(outcome(&[pem.as_slice(), &pem].concat()), pem_error(PemError::TrailingBytes));
    assert_eq!(outcome(&[b"text\n", pem.as_slice()].concat()), pem_error(PemError::NoBegin));
    assert_eq!(msp.identify(b"\xff\xff").unwrap_err(), IdentityError::Malformed);
    assert_eq!(msp.identify(&vec![0; 1 << 20]).unwrap_err(), IdentityError::Malformed);
}

#[test]
fn validate_takes_only_the_bytes_the_certificate_came_from() {
    let authority = authority();
    let msp = msp(&config(&[&authority]));
    let issue = || authority.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap().certificate;
    let (one, other) = (issue(), issue());
    let serialized = serialize_identity(msp.id(), one.pem());
    assert_eq!(msp.validate(&one, &serialized).unwrap().serialized(), serialized);
    assert_eq!(msp.validate(&other, &serialized).unwrap_err(), IdentityError::Malformed);
}

#[test]
fn valid_identities_are_cached_and_garbage_is_not() {
    let authority = authority();
    let msp = msp(&config(&[&authority]));
    let member = authority.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap().certificate;
    for _ in 0..3 {
        identify(&msp, &member).unwrap();
        let _ = msp.identify(b"garbage");
    }
    let statistics = msp.cache_statistics();
    assert_eq!((statistics.hits, statistics.misses, statistics.length), (2, 4, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn garbage_never_panics(bytes: Vec<u8>) {
        let _ = Certificate::from_der(&bytes);
        let _ = Certificate::from_pem(&bytes);
        let authority = authority();
        let msp = msp(&config(&[&authority]));
        prop_assert!(msp.identify(&bytes).is_err());
        prop_assert!(msp.identify(&serialize_identity(msp.id(), &bytes)).is_err());
        let mut config = config(&[&authority]);
        config.revocation_list = vec![bytes.clone()];
        prop_assert!(Msp::from_config(&config).is_err());
        config.revocation_list.clear();
        config.root_certs = vec![bytes];
        prop_assert!(Msp::from_config(&config).is_err());
    }

    /// Whatever byte of a valid certificate changes, it is no longer a member; parsing the wreck never panics.
    #[test]
    fn a_changed_certificate_is_no_member(position: prop::sample::Index, byte: u8, ed25519: bool) {
        let algorithm = if ed25519 { Algorithm::Ed25519 } else { Algorithm::EcdsaP256 };
        let authority = CertificateAuthority::new("org1", algorithm, VALIDITY).unwrap();
        let msp = msp(&config(&[&authority]));
        let mut der = authority.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap().certificate.der().to_vec();
        let position = position.index(der.len());
        prop_assume!(der[position] != byte);
        der[position] = byte;
        if let Ok(certificate) = Certificate::from_der(&der) {
            prop_assert!(identify(&msp, &certificate).is_err());
        }
    }

    /// A revocation list with a changed byte revokes nothing: it is unparsable or signed by nobody.
    #[test]
    fn a_changed_revocation_list_has_no_effect(position: prop::sample::Index, byte: u8) {
        let authority = authority();
        let member = authority.issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap().certificate;
        let mut list = authority.revoke(&[&member], VALIDITY).unwrap();
        let position = position.index(list.len());
        prop_assume!(list[position] != byte);
        list[position] = byte;
        let mut config = config(&[&authority]);
        config.revocation_list = vec![list];
        if let Ok(msp) = Msp::from_config(&config) {
            // A byte of the PEM's text may change without changing the list, as its line endings.
            let untouched = msp.unusable_revocation_lists() == 0;
            prop_assert_eq!(identify(&msp, &member).is_err(), untouched);
        }
    }
}
