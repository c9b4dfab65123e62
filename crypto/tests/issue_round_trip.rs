//! From a new CA to a member that signs: written to disk, loaded, verified.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use common::{NOW, VALIDITY, organization};
use grapevine_crypto::issue::{CertificateAuthority, IssueError, Organization, Validity};
use grapevine_crypto::{Algorithm, Certificate, LocalMsp, Msp, PrivateKey, Role, load_msp_config};

#[test]
fn a_written_member_loads_signs_and_is_verified_by_the_channel_side() {
    for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256] {
        let directory = tempfile::tempdir().unwrap();
        let organization = organization(algorithm);
        organization.save(directory.path()).unwrap();
        let peer = directory.path().join("peers/peer0");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        organization.write_member_dir(&peer, "peer0", Role::Peer, &names, VALIDITY).unwrap();

        let local = LocalMsp::load(&peer.join("msp"), organization.msp_id()).unwrap();
        assert_eq!(local.signer.identity().role(), Some(Role::Peer));
        let signature = local.signer.sign(b"message");

        // Another organisation knows only what stands in the channel configuration.
        let config = load_msp_config(&directory.path().join("msp"), organization.msp_id()).unwrap();
        assert_eq!(config, organization.msp_config());
        let member = Msp::from_config(&config).unwrap().identify(local.signer.serialized()).unwrap();
        assert_eq!(member.verify(b"message", &signature), Ok(()));
        assert_eq!(member.pki_id(), local.signer.identity().pki_id());
        assert_eq!(local.msp.to_config(), config);
    }
}

#[test]
fn a_reloaded_authority_issues_members_of_the_same_msp() {
    for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256] {
        let directory = tempfile::tempdir().unwrap();
        let organization = organization(algorithm);
        organization.save(directory.path()).unwrap();
        let reloaded = Organization::load(directory.path(), "Org1MSP".into()).unwrap();
        let later = Validity::ten_years_from(NOW + 5);
        let signer = reloaded.enrol("peer1", Role::Peer, later).unwrap();
        let member = organization.msp().unwrap().identify(signer.serialized()).unwrap();
        assert_eq!(member.certificate().not_before(), NOW + 5);
        assert_eq!(
            member.certificate().authority_key_id(),
            organization.authority().certificate().subject_key_id()
        );
    }
}

#[test]
fn private_keys_are_readable_by_their_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let organization = organization(Algorithm::Ed25519);
    organization.save(directory.path()).unwrap();
    let peer = directory.path().join("peer0");
    organization.write_member_dir(&peer, "peer0", Role::Peer, &[], VALIDITY).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut keys = vec![peer.join("tls/server.key")];
    for keystore in [directory.path().join("ca"), directory.path().join("tlsca"), peer.join("msp/keystore")] {
        let files = std::fs::read_dir(keystore).unwrap().map(|entry| entry.unwrap().path());
        keys.extend(files.filter(|path| path.to_string_lossy().ends_with("_sk")));
    }
    assert_eq!(keys.len(), 4);
    assert!(keys.iter().all(|key| mode(key) == 0o600));
    // Writing over a key that somebody made readable closes it again.
    std::fs::set_permissions(&keys[0], std::fs::Permissions::from_mode(0o644)).unwrap();
    organization.write_member_dir(&peer, "peer0", Role::Peer, &[], VALIDITY).unwrap();
    assert_eq!(mode(&keys[0]), 0o600);
}

#[test]
fn keystore_files_are_named_as_fabric_names_them() {
    let directory = tempfile::tempdir().unwrap();
    let organization = organization(Algorithm::EcdsaP256);
    organization.write_member_dir(directory.path(), "peer0", Role::Peer, &[], VALIDITY).unwrap();
    let pem = std::fs::read(directory.path().join("msp/signcerts/peer0-cert.pem")).unwrap();
    let key_id = Certificate::from_pem(&pem).unwrap().public_key().key_id();
    assert!(directory.path().join(format!("msp/keystore/{key_id}_sk")).is_file());
}

#[test]
fn tls_certificates_are_p256_and_belong_to_the_tls_authority() {
    let directory = tempfile::tempdir().unwrap();
    let organization = organization(Algorithm::Ed25519);
    let names = ["peer0.org1.example.com".to_owned(), "127.0.0.1".to_owned()];
    organization.write_member_dir(directory.path(), "peer0", Role::Peer, &names, VALIDITY).unwrap();
    let read = |name: &str| std::fs::read(directory.path().join("tls").join(name)).unwrap();
    let server = Certificate::from_pem(&read("server.crt")).unwrap();
    let authority = Certificate::from_pem(&read("ca.crt")).unwrap();
    let key = PrivateKey::from_pkcs8_pem(&String::from_utf8(read("server.key")).unwrap()).unwrap();
    assert_eq!(server.public_key().algorithm(), Algorithm::EcdsaP256);
    assert_eq!(key.public_key(), *server.public_key());
    assert_eq!(server.authority_key_id(), authority.subject_key_id());
    assert_eq!(authority.subject_common_name(), Some("tlsca.org1.example.com"));
    assert!(server.der().windows(22).any(|window| window == b"peer0.org1.example.com"));
    // A TLS certificate is no member: another CA signed it.
    let msp = organization.msp().unwrap();
    assert!(common::identify(&msp, &server).is_err());
}

#[test]
fn loading_an_authority_names_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let error = CertificateAuthority::load(directory.path()).unwrap_err();
    assert!(matches!(error, IssueError::NoAuthority(_)), "{error}");
    let (one, other) = (common::authority(), common::authority());
    one.save(directory.path()).unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().ends_with("_sk") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let elsewhere = tempfile::tempdir().unwrap();
    other.save(elsewhere.path()).unwrap();
    for entry in std::fs::read_dir(elsewhere.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().ends_with("_sk") {
            std::fs::copy(&path, directory.path().join("wrong_sk")).unwrap();
        }
    }
    let error = CertificateAuthority::load(directory.path()).unwrap_err();
    assert!(matches!(error, IssueError::KeyMismatch(_)), "{error}");
}

#[test]
fn names_and_times_that_a_certificate_cannot_hold_are_errors() {
    let authority = common::authority();
    let error = authority.issue_tls("peer0", &["name with ü".to_owned()], VALIDITY).unwrap_err();
    assert!(error.to_string().contains("peer0"), "{error}");
    let never = Validity { not_before: i64::MAX, not_after: i64::MAX };
    assert!(CertificateAuthority::new("org1", Algorithm::Ed25519, never).is_err());
    assert!(authority.issue_with_units("peer0", &["a", "b", "c"], VALIDITY).is_err());
}
