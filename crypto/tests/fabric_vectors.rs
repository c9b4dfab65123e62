//! Certificates made by Fabric's own `cryptogen`: the trees in `integration-tests/fixtures/fabric-vectors`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use grapevine_crypto::{
    Algorithm, Certificate, Identity, IdentityError, LocalMsp, Msp, MspError, MspId, PkiId, Role,
    load_msp_config, serialize_identity,
};

const NETWORKS: [(&str, Algorithm); 2] = [("ecdsa", Algorithm::EcdsaP256), ("ed25519", Algorithm::Ed25519)];

/// Organisation directory, MSP identifier, and its members: directory, common name, role.
type Members = &'static [(&'static str, &'static str, Role)];
const ORGANIZATIONS: [(&str, &str, Members); 3] = [
    (
        "peerOrganizations/org1.example.com",
        "Org1MSP",
        &[
            ("peers/peer0.org1.example.com", "peer0.org1.example.com", Role::Peer),
            ("peers/peer1.org1.example.com", "peer1.org1.example.com", Role::Peer),
            ("users/User1@org1.example.com", "User1@org1.example.com", Role::Client),
            ("users/Admin@org1.example.com", "Admin@org1.example.com", Role::Admin),
        ],
    ),
    (
        "peerOrganizations/org2.example.com",
        "Org2MSP",
        &[("peers/peer1.org2.example.com", "peer1.org2.example.com", Role::Peer)],
    ),
    (
        "ordererOrganizations/example.com",
        "OrdererMSP",
        &[
            ("orderers/orderer.example.com", "orderer.example.com", Role::Orderer),
            ("users/Admin@example.com", "Admin@example.com", Role::Admin),
        ],
    ),
];

fn tree(network: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../integration-tests/fixtures/fabric-vectors")
        .join(network)
        .join("crypto")
}

fn only_file(directory: &Path) -> Vec<u8> {
    let mut entries = std::fs::read_dir(directory).unwrap();
    let path = entries.next().unwrap().unwrap().path();
    assert!(entries.next().is_none());
    std::fs::read(path).unwrap()
}

fn msp(network: &str, organization: &str, id: &str) -> Msp {
    let config = load_msp_config(&tree(network).join(organization).join("msp"), &id.into()).unwrap();
    Msp::from_config(&config).unwrap()
}

fn member_pem(network: &str, organization: &str, member: &str) -> Vec<u8> {
    only_file(&tree(network).join(organization).join(member).join("msp/signcerts"))
}

fn identify(msp: &Msp, pem: &[u8]) -> Result<Identity, IdentityError> {
    msp.identify(&serialize_identity(msp.id(), pem))
}

#[test]
fn every_member_is_valid_in_its_own_msp_with_its_role() {
    for (network, algorithm) in NETWORKS {
        for (organization, id, members) in ORGANIZATIONS {
            let msp = msp(network, organization, id);
            assert_eq!(msp.id().as_str(), id);
            assert_eq!(msp.tls_root_certificates().len(), 1);
            for (member, name, role) in members {
                let pem = member_pem(network, organization, member);
                let identity = identify(&msp, &pem).unwrap();
                assert_eq!(identity.role(), Some(*role), "{network} {member}");
                assert_eq!(identity.is_admin(), *role == Role::Admin);
                assert_eq!(identity.certificate().subject_common_name(), Some(*name));
                assert_eq!(identity.certificate().organizational_units(), [role.organizational_unit()]);
                // Whatever the network's algorithm, cryptogen gives users P-256 keys: chains of mixed algorithms.
                let expected = if member.starts_with("users") { Algorithm::EcdsaP256 } else { algorithm };
                assert_eq!(identity.certificate().public_key().algorithm(), expected);
                assert_eq!(identity.certificate().pem(), pem);
                assert_eq!(identity.pki_id(), PkiId::new(&id.into(), name));
                // The vectors expire on 17 November 2036.
                assert!(!identity.expired_at(2_110_000_000));
                assert!(identity.expired_at(2_111_000_000));
            }
        }
    }
}

#[test]
fn members_are_strangers_to_other_organizations_and_other_networks() {
    let peer = member_pem("ecdsa", "peerOrganizations/org1.example.com", "peers/peer0.org1.example.com");
    for (network, organization, id) in [
        ("ecdsa", "peerOrganizations/org2.example.com", "Org2MSP"),
        // Same names, other keys.
        ("ed25519", "peerOrganizations/org1.example.com", "Org1MSP"),
    ] {
        let msp = msp(network, organization, id);
        assert_eq!(identify(&msp, &peer).unwrap_err(), IdentityError::NotIssuedByMsp(id.into()));
    }
}

#[test]
fn the_ca_itself_is_no_member() {
    for (network, _) in NETWORKS {
        let organization = "peerOrganizations/org1.example.com";
        let msp = msp(network, organization, "Org1MSP");
        let ca = only_file(&tree(network).join(organization).join("ca"));
        assert_eq!(identify(&msp, &ca).unwrap_err(), IdentityError::IsAuthority);
    }
}

/// `cryptogen` signs with Go's X.509 library, which does not normalise S: about half of its certificates are high S.
#[test]
fn certificates_with_high_s_signatures_chain_and_have_a_low_s_fingerprint() {
    let mut high = 0;
    for (organization, id, members) in ORGANIZATIONS {
        let msp = msp("ecdsa", organization, id);
        let ca = only_file(&tree("ecdsa").join(organization).join("ca"));
        let pems = members.iter().map(|(member, _, _)| member_pem("ecdsa", organization, member));
        for pem in pems.chain([ca]) {
            let certificate = Certificate::from_pem(&pem).unwrap();
            if certificate.fingerprint() != grapevine_crypto::sha256(certificate.der()) {
                high += 1;
            }
            assert!(certificate.is_ca() || identify(&msp, &pem).is_ok());
        }
    }
    assert!(high > 0, "the vectors hold at least one high-S certificate");
}

#[test]
fn a_local_directory_without_its_private_key_says_so() {
    let directory =
        tree("ed25519").join("peerOrganizations/org1.example.com/peers/peer0.org1.example.com/msp");
    let error = LocalMsp::load(&directory, &MspId::from("Org1MSP")).unwrap_err();
    assert!(matches!(error, MspError::KeyMissing { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("keystore") && text.contains("_sk") && text.contains("copy the key"), "{text}");
}

#[test]
fn an_msp_directory_yields_the_same_config_again() {
    let msp = msp("ecdsa", "peerOrganizations/org1.example.com", "Org1MSP");
    let again = Msp::from_config(&msp.to_config()).unwrap();
    assert_eq!(again.to_config(), msp.to_config());
    let nodes = msp.to_config().fabric_node_ous.unwrap();
    assert!(nodes.enable);
    assert_eq!(nodes.peer_ou_identifier.unwrap().organizational_unit_identifier, "peer");
}
