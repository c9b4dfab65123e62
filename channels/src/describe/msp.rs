//! What an organisation's MSP trusts.

use grapevine_crypto::{Certificate, Msp};
use serde::Serialize;

use super::{printable, utc};

/// A certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuthorityDescription {
    /// `root`, `intermediate`, `tls root` or `tls intermediate`.
    pub kind: &'static str,
    /// Subject common name; what is wrong with the certificate if it cannot be read here, as with RSA keys for TLS.
    pub subject: String,
    /// Last moment of validity, RFC 3339.
    pub expires: Option<String>,
    /// The same in Unix seconds.
    pub not_after: Option<i64>,
    /// SHA-256 of the certificate in hex.
    pub fingerprint: Option<String>,
}

/// The verification side of an organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MspDescription {
    /// MSP ID.
    pub id: String,
    /// Certificate authorities for members and for TLS.
    pub authorities: Vec<AuthorityDescription>,
    /// Common names of the administrators listed by certificate.
    pub admins: Vec<String>,
    /// Whether certificates tell roles.
    pub node_ous: bool,
    /// Organisational units of which members need one.
    pub organizational_units: Vec<String>,
    /// Certificate revocation lists.
    pub revocation_lists: usize,
    /// Those of them that no authority of the MSP signed, so that they are without effect.
    pub unusable_revocation_lists: usize,
}

impl MspDescription {
    pub(super) fn new(msp: &Msp) -> Self {
        let config = msp.to_config();
        let kinds = [
            ("root", &config.root_certs),
            ("intermediate", &config.intermediate_certs),
            ("tls root", &config.tls_root_certs),
            ("tls intermediate", &config.tls_intermediate_certs),
        ];
        let authorities =
            kinds.into_iter().flat_map(|(kind, pems)| pems.iter().map(move |pem| authority(kind, pem)));
        let units = config.organizational_unit_identifiers.iter();
        Self {
            id: printable(msp.id().as_str()),
            authorities: authorities.collect(),
            admins: config.admins.iter().map(|pem| authority("admin", pem).subject).collect(),
            node_ous: config.fabric_node_ous.as_ref().is_some_and(|units| units.enable),
            organizational_units: units.map(|unit| printable(&unit.organizational_unit_identifier)).collect(),
            revocation_lists: config.revocation_list.len(),
            unusable_revocation_lists: msp.unusable_revocation_lists(),
        }
    }
}

/// Describes a certificate as one line tells it.
pub(super) fn certificate_line(pem: &[u8]) -> String {
    let described = authority("", pem);
    match (described.expires, described.fingerprint) {
        (Some(expires), Some(fingerprint)) => {
            let short: String = fingerprint.chars().take(16).collect();
            format!("{} (expires {expires}, SHA-256 {short})", described.subject)
        }
        _ => described.subject,
    }
}

fn authority(kind: &'static str, pem: &[u8]) -> AuthorityDescription {
    match Certificate::from_pem(pem) {
        Ok(certificate) => AuthorityDescription {
            kind,
            subject: printable(certificate.subject_common_name().unwrap_or("(no common name)")),
            expires: Some(utc(certificate.not_after())),
            not_after: Some(certificate.not_after()),
            fingerprint: Some(certificate.fingerprint().to_string()),
        },
        Err(error) => AuthorityDescription {
            kind,
            subject: format!("not shown: {}", printable(&error.to_string())),
            expires: None,
            not_after: None,
            fingerprint: None,
        },
    }
}
