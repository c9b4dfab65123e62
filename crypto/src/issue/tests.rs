//! Certificates that no well-meaning CA issues: built here, where the builder's parameters can be reached.

use super::*;
use crate::msp::Msp;
use crate::{proto, serialize_identity};

const VALIDITY: Validity = Validity::ten_years_from(1_800_000_000);

fn authority() -> CertificateAuthority {
    CertificateAuthority::new("org1", Algorithm::Ed25519, VALIDITY).unwrap()
}

fn config(roots: &[&CertificateAuthority], below: &[&CertificateAuthority]) -> proto::FabricMspConfig {
    let pems = |authorities: &[&CertificateAuthority]| {
        authorities.iter().map(|authority| authority.certificate().pem().to_vec()).collect()
    };
    let admin = proto::FabricOuIdentifier {
        organizational_unit_identifier: "admin".to_owned(),
        ..Default::default()
    };
    proto::FabricMspConfig {
        name: "Org1MSP".to_owned(),
        root_certs: pems(roots),
        intermediate_certs: pems(below),
        fabric_node_ous: Some(proto::FabricNodeOus {
            enable: true,
            admin_ou_identifier: Some(admin),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// An intermediate below `above`, its parameters changed.
fn changed(
    above: &CertificateAuthority,
    change: impl FnOnce(&mut CertificateParams),
) -> CertificateAuthority {
    let key = PrivateKey::generate(Algorithm::Ed25519);
    let mut parameters = authority_parameters("changed", "org1", &key.public_key(), VALIDITY).unwrap();
    change(&mut parameters);
    let certificate = above.sign("changed", &parameters, &key.public_key(), VALIDITY).unwrap();
    CertificateAuthority::from_parts(certificate, key)
}

#[test]
fn path_length_constraints_hold() {
    let root = authority();
    let last = changed(&root, |parameters| parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let below = last.issue_authority("below", VALIDITY).unwrap();
    // The constrained CA may issue members …
    let msp = Msp::from_config(&config(&[&root], &[&last])).unwrap();
    let member = last.issue_enrolment("admin", Role::Admin, VALIDITY).unwrap();
    msp.identify(&serialize_identity(msp.id(), member.certificate.pem())).unwrap();
    // … but no CA that does.
    let msp = Msp::from_config(&config(&[&root], &[&last, &below])).unwrap();
    let member = below.issue_enrolment("admin", Role::Admin, VALIDITY).unwrap();
    let error = msp.identify(&serialize_identity(msp.id(), member.certificate.pem())).unwrap_err();
    assert_eq!(error, IdentityError::NotIssuedByMsp("Org1MSP".into()));
}

#[test]
fn a_ca_without_the_right_to_sign_certificates_is_refused() {
    let root = authority();
    let unfit = changed(&root, |parameters| parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    let error = Msp::from_config(&config(&[&root], &[&unfit])).unwrap_err();
    assert!(matches!(error, MspError::NotAnAuthority { .. }), "{error}");
}

#[test]
fn unknown_critical_extensions_are_refused_and_others_ignored() {
    let authority = authority();
    let key = PrivateKey::generate(Algorithm::Ed25519).public_key();
    let mut extension = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    let mut parameters = leaf_parameters("peer0", VALIDITY).unwrap();
    parameters.custom_extensions = vec![extension.clone()];
    authority.sign("peer0", &parameters, &key, VALIDITY).unwrap();
    extension.set_criticality(true);
    parameters.custom_extensions = vec![extension.clone()];
    let error = authority.sign("peer0", &parameters, &key, VALIDITY).unwrap_err();
    let expected = CertificateError::CriticalExtension("1.2.3.4".to_owned());
    assert!(matches!(error, IssueError::Certificate(found) if found == expected));
    extension.set_criticality(false);
    parameters.custom_extensions = vec![extension.clone(), extension];
    let error = authority.sign("peer0", &parameters, &key, VALIDITY).unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
}

/// A CA that certifies a small-order key would let its holder sign all messages at once.
#[test]
fn certificates_of_weak_keys_are_refused() {
    let authority = authority();
    let mut bytes = vec![0; 32];
    bytes[0] = 1;
    let weak = SubjectKey { bytes, algorithm: Algorithm::Ed25519 };
    let parameters = leaf_parameters("peer0", VALIDITY).unwrap();
    let made = parameters.signed_by(&weak, &authority.issuer().unwrap()).unwrap();
    let error = Certificate::from_der(made.der()).unwrap_err();
    assert_eq!(error, CertificateError::PublicKey(KeyError::Weak));
}

#[test]
fn chains_are_bounded_in_length() {
    let mut authorities = vec![authority()];
    for number in 1..10 {
        let above = authorities.last().unwrap();
        authorities.push(above.issue_authority(&format!("ca{number}"), VALIDITY).unwrap());
    }
    let (root, below) = authorities.split_first().unwrap();
    let below: Vec<_> = below.iter().collect();
    let outcome = |below: &[&CertificateAuthority]| {
        let msp = Msp::from_config(&config(&[root], below)).unwrap();
        let lowest = below.last().unwrap();
        let member = lowest.issue_enrolment("admin", Role::Admin, VALIDITY).unwrap();
        msp.identify(&serialize_identity(msp.id(), member.certificate.pem())).map(|_| ())
    };
    // Root, eight intermediates and the member are ten.
    assert_eq!(outcome(&below[..8]), Ok(()));
    assert_eq!(outcome(&below), Err(IdentityError::NotIssuedByMsp("Org1MSP".into())));
}

/// An MSP full of CAs of one name must not make every stranger cost hundreds of signature checks.
#[test]
fn the_search_for_chains_is_bounded_in_signature_checks() {
    let authorities: Vec<_> = (0..101).map(|_| authority()).collect();
    let msp = Msp::from_config(&config(&authorities.iter().collect::<Vec<_>>(), &[])).unwrap();
    let outcome = |authority: &CertificateAuthority| {
        let member = authority.issue_enrolment("admin", Role::Admin, VALIDITY).unwrap();
        msp.identify(&serialize_identity(msp.id(), member.certificate.pem())).is_ok()
    };
    assert!(outcome(&authorities[99]));
    assert!(!outcome(&authorities[100]));
}
