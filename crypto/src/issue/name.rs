//! Re-making a CA's name for the certificate builder.
//!
//! A chain holds only if the issuer's name in a certificate equals the CA's subject byte for byte, string types
//! included. The builder wants names as values, so a CA loaded from disk has its subject taken apart here; whether the
//! result is the same name is checked on every certificate issued.

use rcgen::string::{Ia5String, PrintableString, TeletexString};
use rcgen::{DistinguishedName, DnType, DnValue};
use x509_parser::asn1_rs::Tag;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

/// The name with the given DER; `None` for string types that no CA uses today.
pub(super) fn distinguished_name(der: &[u8]) -> Option<DistinguishedName> {
    let (_, parsed) = X509Name::from_der(der).ok()?;
    let mut name = DistinguishedName::new();
    for attribute in parsed.iter_attributes() {
        let kind = DnType::CustomDnType(attribute.attr_type().iter()?.collect());
        let text = std::str::from_utf8(attribute.as_slice()).ok()?;
        let value = match attribute.attr_value().header.tag() {
            Tag::Utf8String => DnValue::Utf8String(text.to_owned()),
            Tag::PrintableString => DnValue::PrintableString(PrintableString::try_from(text).ok()?),
            Tag::Ia5String => DnValue::Ia5String(Ia5String::try_from(text).ok()?),
            Tag::T61String => DnValue::TeletexString(TeletexString::try_from(text).ok()?),
            _ => return None,
        };
        name.push(kind, value);
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use crate::issue::{CertificateAuthority, Validity};
    use crate::{Algorithm, Certificate, PrivateKey, Role};

    /// `cryptogen` writes names of five attributes as PrintableString.
    #[test]
    fn a_ca_made_by_cryptogen_issues_under_its_exact_name() {
        let directory = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../integration-tests/fixtures/fabric-vectors/ecdsa/crypto/peerOrganizations/org1.example.com"
        );
        let pem = std::fs::read(format!("{directory}/ca/ca.org1.example.com-cert.pem")).unwrap();
        let certificate = Certificate::from_pem(&pem).unwrap();
        let validity = Validity::ten_years_from(certificate.not_before());
        // The private key is not published; names do not depend on it.
        let authority =
            CertificateAuthority::from_parts(certificate.clone(), PrivateKey::generate(Algorithm::EcdsaP256));
        let issued = authority.issue_enrolment("peer9.org1.example.com", Role::Peer, validity).unwrap();
        assert_eq!(issued.certificate.issuer(), certificate.subject());
        assert_eq!(issued.certificate.authority_key_id(), certificate.subject_key_id());
    }
}
