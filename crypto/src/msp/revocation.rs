//! Certificate revocation lists (RFC 5280 5), as Fabric reads them.
//!
//! A list belongs to the CA whose subject key identifier it names, and counts only if that CA's key signed it. Dates are
//! ignored: a list never gets too old, and a revoked certificate is revoked for all time. Fabric skips lists that no CA
//! signed; here they are counted, and a local MSP directory that holds one is refused.

use std::collections::BTreeSet;

use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::certificate::{Certificate, signature_algorithm, without_leading_zeros};
use crate::der;
use crate::digest::Digest;
use crate::names::MspId;
use crate::pem;

use super::authorities::Authorities;
use super::error::{Material, MspError, Sources};

/// Longest revocation list, bytes.
pub(super) const LIST_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What has been revoked by which CA.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    revoked: BTreeSet<(Digest, Vec<u8>)>,
    unusable: Vec<String>,
}

impl Revocations {
    pub(super) fn new(
        id: &MspId,
        lists: &[Vec<u8>],
        authorities: &Authorities,
        sources: &Sources,
    ) -> Result<Self, MspError> {
        let mut revocations = Self::default();
        for (index, bytes) in lists.iter().enumerate() {
            let name = sources.name(Material::RevocationList, index, id);
            let used = revocations
                .add(bytes, authorities)
                .map_err(|problem| MspError::RevocationList { list: name.clone(), problem })?;
            if !used {
                revocations.unusable.push(name);
            }
        }
        Ok(revocations)
    }

    /// Adds a list, PEM or DER; tells whether any CA signed it.
    fn add(&mut self, bytes: &[u8], authorities: &Authorities) -> Result<bool, String> {
        let der = if bytes.starts_with(&[0x30]) {
            bytes.to_vec()
        } else {
            pem::first_block(bytes, LIST_BYTES_MAX).map_err(|error| error.to_string())?.contents
        };
        let parts = der::split_signed(&der).ok_or("its outer structure is not strict DER")?;
        let (_, list) = CertificateRevocationList::from_der(&der).map_err(|error| error.to_string())?;
        let algorithm = signature_algorithm(&list.signature_algorithm);
        let key_id = list.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
            _ => None,
        });
        let mut used = false;
        for authority in authorities.all().filter(|authority| authority.subject_key_id() == key_id) {
            let key = authority.public_key();
            if key.verify_certificate(algorithm, parts.to_be_signed, parts.signature).is_ok() {
                used = true;
                for revoked in list.iter_revoked_certificates() {
                    let serial = without_leading_zeros(revoked.raw_serial()).to_vec();
                    self.revoked.insert((authority.fingerprint(), serial));
                }
            }
        }
        Ok(used)
    }

    /// Whether `issuer` has revoked `certificate`.
    pub(super) fn is_revoked(&self, issuer: &Certificate, certificate: &Certificate) -> bool {
        !self.revoked.is_empty()
            && self.revoked.contains(&(issuer.fingerprint(), certificate.serial().to_vec()))
    }

    /// Lists that have no effect.
    pub(super) fn unusable(&self) -> &[String] {
        &self.unusable
    }
}
