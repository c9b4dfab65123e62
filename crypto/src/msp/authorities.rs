//! The certificate authorities of an MSP and the chains through them.
//!
//! Go's `x509.Verify`, on which Fabric builds, restricted to what an MSP needs: issuer and subject names equal byte by byte,
//! CA flag and `keyCertSign`, path length, validity of the CAs at the leaf's NotBefore plus one second, signatures over
//! the raw to-be-signed bytes. Names alone can be repeated by an attacker who configures an MSP, so the search is bounded
//! in depth and in signature checks.

use std::collections::BTreeSet;

use crate::certificate::Certificate;
use crate::digest::{Digest, sha256_of};
use crate::names::MspId;

use super::error::{Material, MspError, Sources};
use super::revocation::Revocations;

/// Longest chain, leaf and root included.
const CHAIN_LENGTH_MAX: usize = 10;

/// Most signature checks in one search for chains, Go's limit.
pub(super) const SIGNATURE_CHECKS_MAX: usize = 100;

/// Why there is no single chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChainError {
    None,
    Several,
}

/// Roots, intermediates, and which of them have CAs below them.
#[derive(Debug)]
pub(super) struct Authorities {
    roots: Vec<Certificate>,
    intermediates: Vec<Certificate>,
    inner: BTreeSet<Digest>,
}

impl Authorities {
    pub(super) fn new(
        id: &MspId,
        roots: Vec<Certificate>,
        intermediates: Vec<Certificate>,
        sources: &Sources,
    ) -> Result<Self, MspError> {
        if roots.is_empty() {
            return Err(MspError::RootsMissing(id.clone()));
        }
        for (certificates, material) in [(&roots, Material::Root), (&intermediates, Material::Intermediate)] {
            for (index, certificate) in certificates.iter().enumerate() {
                let name = || sources.name(material, index, id);
                if !certificate.may_sign_certificates() {
                    return Err(MspError::NotAnAuthority { certificate: name() });
                }
                if certificate.subject_key_id().is_none() {
                    return Err(MspError::SubjectKeyIdMissing { certificate: name() });
                }
            }
        }
        let mut authorities = Self { roots: distinct(roots), intermediates, inner: BTreeSet::new() };
        authorities.inner = authorities.inner_nodes(id, sources)?;
        authorities.intermediates = distinct(authorities.intermediates);
        Ok(authorities)
    }

    /// Every CA above some intermediate.
    fn inner_nodes(&self, id: &MspId, sources: &Sources) -> Result<BTreeSet<Digest>, MspError> {
        let mut inner = BTreeSet::new();
        for (index, intermediate) in self.intermediates.iter().enumerate() {
            let above = self.chain_above(intermediate).map_err(|_| MspError::IntermediateWithoutRoot {
                certificate: sources.name(Material::Intermediate, index, id),
            })?;
            inner.extend(above.iter().map(Certificate::fingerprint));
        }
        Ok(inner)
    }

    /// Refuses the MSP if an intermediate has been revoked by the CA above it.
    pub(super) fn check_not_revoked(
        &self,
        id: &MspId,
        revocations: &Revocations,
        sources: &Sources,
    ) -> Result<(), MspError> {
        for (index, intermediate) in self.intermediates.iter().enumerate() {
            let above = self.chain_above(intermediate).unwrap_or_default();
            if above.first().is_some_and(|issuer| revocations.is_revoked(issuer, intermediate)) {
                let certificate = sources.name(Material::Intermediate, index, id);
                return Err(MspError::RevokedAuthority { certificate });
            }
        }
        Ok(())
    }

    /// Roots and intermediates.
    pub(super) fn all(&self) -> impl Iterator<Item = &Certificate> {
        self.roots.iter().chain(&self.intermediates)
    }

    /// Whether there are CAs below this one.
    pub(super) fn is_inner(&self, authority: &Certificate) -> bool {
        self.inner.contains(&authority.fingerprint())
    }

    /// The only chain of CAs above `certificate`, issuer first, root last. Empty for a root itself.
    pub(super) fn chain_above(&self, certificate: &Certificate) -> Result<Vec<Certificate>, ChainError> {
        if self.roots.contains(certificate) {
            return Ok(Vec::new());
        }
        let mut search = Search {
            authorities: self,
            unix_seconds: certificate.not_before().saturating_add(1),
            checks_left: SIGNATURE_CHECKS_MAX,
            found: Vec::new(),
        };
        if certificate.not_after() < search.unix_seconds {
            return Err(ChainError::None);
        }
        search.extend(&mut vec![certificate.clone()]);
        if search.found.len() > 1 {
            return Err(ChainError::Several);
        }
        search.found.pop().ok_or(ChainError::None)
    }
}

/// Fabric's certifiers identifier: SHA-256 over the DER of the CAs, issuer first.
pub(super) fn certifiers_identifier(chain: &[Certificate]) -> Digest {
    sha256_of(chain.iter().map(Certificate::canonical_der))
}

fn distinct(certificates: Vec<Certificate>) -> Vec<Certificate> {
    let mut seen = BTreeSet::new();
    certificates.into_iter().filter(|certificate| seen.insert(certificate.fingerprint())).collect()
}

struct Search<'a> {
    authorities: &'a Authorities,
    unix_seconds: i64,
    checks_left: usize,
    found: Vec<Vec<Certificate>>,
}

impl Search<'_> {
    /// Depth first; stops at the second chain, since more than one is an error anyway.
    fn extend(&mut self, path: &mut Vec<Certificate>) {
        let Some(last) = path.last().cloned() else { return };
        if path.len() >= CHAIN_LENGTH_MAX {
            return;
        }
        let authorities = self.authorities;
        for root in &authorities.roots {
            if !path.contains(root) && self.issued(root, &last, path.len()) {
                let above = path.iter().skip(1).chain([root]).cloned().collect();
                self.found.push(above);
            }
        }
        for intermediate in &authorities.intermediates {
            if self.found.len() > 1 {
                return;
            }
            let is_root = authorities.roots.contains(intermediate);
            if !is_root && !path.contains(intermediate) && self.issued(intermediate, &last, path.len()) {
                path.push(intermediate.clone());
                self.extend(path);
                path.pop();
            }
        }
    }

    /// Whether `issuer` signed `subject` and was allowed to, `below` certificates standing below it.
    fn issued(&mut self, issuer: &Certificate, subject: &Certificate, below: usize) -> bool {
        let authorities_below = below.saturating_sub(1);
        let path_allowed = issuer
            .path_length_max()
            .is_none_or(|max| usize::try_from(max).is_ok_and(|max| authorities_below <= max));
        let valid = (issuer.not_before()..=issuer.not_after()).contains(&self.unix_seconds);
        if issuer.subject() != subject.issuer() || !issuer.may_sign_certificates() || !path_allowed || !valid
        {
            return false;
        }
        let Some(left) = self.checks_left.checked_sub(1) else { return false };
        self.checks_left = left;
        subject.verify_signed_by(issuer).is_ok()
    }
}
