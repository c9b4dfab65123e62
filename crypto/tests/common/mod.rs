//! Organisations for tests.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use grapevine_crypto::issue::{CertificateAuthority, Organization, Validity};
use grapevine_crypto::{Algorithm, Certificate, Identity, IdentityError, Msp, proto, serialize_identity};

/// The time at which test networks begin, Unix seconds.
pub const NOW: i64 = 1_800_000_000;
/// From [`NOW`] for ten years.
pub const VALIDITY: Validity = Validity::ten_years_from(NOW);

pub fn organization(algorithm: Algorithm) -> Organization {
    Organization::new("Org1MSP".into(), "org1.example.com", algorithm, VALIDITY).unwrap()
}

pub fn authority() -> CertificateAuthority {
    CertificateAuthority::new("org1.example.com", Algorithm::Ed25519, VALIDITY).unwrap()
}

/// An MSP configuration with the usual roles, certified by any CA.
pub fn config(roots: &[&CertificateAuthority]) -> proto::FabricMspConfig {
    let unit = |unit: &str| {
        let organizational_unit_identifier = unit.to_owned();
        Some(proto::FabricOuIdentifier { certificate: Vec::new(), organizational_unit_identifier })
    };
    proto::FabricMspConfig {
        name: "Org1MSP".to_owned(),
        root_certs: roots.iter().map(|root| root.certificate().pem().to_vec()).collect(),
        fabric_node_ous: Some(proto::FabricNodeOus {
            enable: true,
            client_ou_identifier: unit("client"),
            peer_ou_identifier: unit("peer"),
            admin_ou_identifier: unit("admin"),
            orderer_ou_identifier: unit("orderer"),
        }),
        ..Default::default()
    }
}

pub fn msp(config: &proto::FabricMspConfig) -> Msp {
    Msp::from_config(config).unwrap()
}

pub fn identify(msp: &Msp, certificate: &Certificate) -> Result<Identity, IdentityError> {
    msp.identify(&serialize_identity(msp.id(), certificate.pem()))
}
