//! Membership service providers: who belongs to an organisation (Fabric's X.509 MSP, package `msp`).
//!
//! An [`Msp`] is built from the verification material that an organisation publishes in a channel configuration, and
//! decides whether a certificate is a member and which principals it satisfies. Rules, all Fabric's:
//!
//! 1. The MSP identifier of the identity equals the MSP's.
//! 2. The certificate is one well-formed PEM block, is not a CA, and has exactly one chain, through configured
//!    intermediates, to a configured root. CA signatures may have high S, member signatures may not.
//! 3. Its issuer is a leaf of the CA tree: a CA with intermediates below it issues no members.
//! 4. The chain is checked at the certificate's own NotBefore plus one second, so that neither expired members nor
//!    expired CAs are refused here. Expiry is a question of its own: [`Identity::expired_at`].
//! 5. Its serial number is in no revocation list of its issuer (dates in the list are ignored).
//! 6. If organisational units are demanded it has one of them; with NodeOUs on it tells exactly one role.
//!
//! **Bounds.** Validated identities are cached by their serialised bytes, at most [`CACHED_IDENTITIES_MAX`],
//! oldest out first; only valid identities enter, so garbage cannot evict members. Building chains checks at most
//! [`authorities::SIGNATURE_CHECKS_MAX`] signatures. [`Msp::cache_statistics`] counts.

mod authorities;
mod cache;
mod directory;
mod error;
mod organizational_units;
mod principal;
mod revocation;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use prost::Message as _;
use x509_parser::prelude::FromDer as _;

use crate::certificate::Certificate;
use crate::digest::Digest;
use crate::identity::{Identity, IdentityError, IdentityFields};
use crate::names::{MspId, PkiId};
use crate::pem::{self, PEM_BYTES_MAX};
use crate::proto;
use crate::role::Role;

use authorities::{Authorities, ChainError};
pub use cache::CacheStatistics;
use cache::IdentityCache;
pub use directory::{LocalMsp, load_msp_config};
pub use error::MspError;
use error::{Material, Sources};
use organizational_units::OrganizationalUnits;
use revocation::Revocations;

/// Most validated identities an [`Msp`] remembers.
pub const CACHED_IDENTITIES_MAX: usize = 1024;

/// Longest serialised identity, bytes: a certificate and an MSP identifier.
const SERIALIZED_BYTES_MAX: usize = PEM_BYTES_MAX + 1024;

/// The verification side of an organisation's membership.
pub struct Msp {
    id: MspId,
    config: proto::FabricMspConfig,
    authorities: Authorities,
    revocations: Revocations,
    organizational_units: OrganizationalUnits,
    admins: BTreeSet<Digest>,
    cache: Mutex<IdentityCache>,
}

impl Msp {
    /// Builds an MSP from its configuration, as found in a channel configuration.
    ///
    /// # Errors
    /// [`MspError`] if Fabric would refuse the configuration: unusable or revoked CAs, unparsable revocation lists,
    /// invalid administrators, organisational units of unknown CAs, or a hash family other than SHA-2.
    pub fn from_config(config: &proto::FabricMspConfig) -> Result<Self, MspError> {
        Self::build(config, &Sources::default())
    }

    fn build(config: &proto::FabricMspConfig, sources: &Sources) -> Result<Self, MspError> {
        let id = MspId::from(config.name.as_str());
        if id.as_str().is_empty() {
            return Err(MspError::NameMissing);
        }
        check_hash_family(config)?;
        let roots = certificates(&config.root_certs, Material::Root, &id, sources)?;
        let intermediates = certificates(&config.intermediate_certs, Material::Intermediate, &id, sources)?;
        let authorities = Authorities::new(&id, roots, intermediates, sources)?;
        let revocations = Revocations::new(&id, &config.revocation_list, &authorities, sources)?;
        authorities.check_not_revoked(&id, &revocations, sources)?;
        check_tls_authorities(config, &id, sources)?;
        let organizational_units = OrganizationalUnits::new(&id, config, &authorities)?;
        let admins = certificates(&config.admins, Material::Admin, &id, sources)?;
        if admins.is_empty() && !organizational_units.tells(Role::Admin) {
            return Err(MspError::AdminsMissing(id));
        }
        let msp = Self {
            config: proto::FabricMspConfig { signing_identity: Vec::new(), ..config.clone() },
            authorities,
            revocations,
            organizational_units,
            admins: admins.iter().map(Certificate::fingerprint).collect(),
            cache: Mutex::new(IdentityCache::new(CACHED_IDENTITIES_MAX)),
            id,
        };
        msp.check_admins(&admins, sources)?;
        Ok(msp)
    }

    /// The MSP identifier.
    #[must_use]
    pub const fn id(&self) -> &MspId {
        &self.id
    }

    /// The configuration it was built from, as it goes into a channel configuration.
    #[must_use]
    pub fn to_config(&self) -> proto::FabricMspConfig {
        self.config.clone()
    }

    /// The organisation's TLS certificate authorities, PEM: roots and intermediates, as Fabric peers trust both.
    #[must_use]
    pub fn tls_root_certificates(&self) -> Vec<Vec<u8>> {
        self.config.tls_root_certs.iter().chain(&self.config.tls_intermediate_certs).cloned().collect()
    }

    /// How many revocation lists are without effect because none of the MSP's CAs signed them.
    #[must_use]
    pub fn unusable_revocation_lists(&self) -> usize {
        self.revocations.unusable().len()
    }

    /// How the cache of validated identities has done.
    #[must_use]
    pub fn cache_statistics(&self) -> CacheStatistics {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).statistics()
    }

    /// Decodes and validates an identity as it travels. Valid identities are cached.
    ///
    /// # Errors
    /// [`IdentityError`] naming the rule that the identity breaks.
    pub fn identify(&self, serialized: &[u8]) -> Result<Identity, IdentityError> {
        if serialized.len() > SERIALIZED_BYTES_MAX {
            return Err(IdentityError::Malformed);
        }
        if let Some(identity) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).find(serialized) {
            return Ok(identity);
        }
        let message = self.decode(serialized)?;
        let certificate = Certificate::from_pem(&message.id_bytes)?;
        let identity = self.validated(&certificate, serialized)?;
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(identity.clone());
        Ok(identity)
    }

    /// Validates a certificate that was already parsed from `serialized`. Not cached.
    ///
    /// # Errors
    /// [`IdentityError`]; [`IdentityError::Malformed`] too if `serialized` does not carry this certificate's PEM.
    pub fn validate(&self, certificate: &Certificate, serialized: &[u8]) -> Result<Identity, IdentityError> {
        let message = self.decode(serialized)?;
        if message.id_bytes != certificate.pem() {
            return Err(IdentityError::Malformed);
        }
        self.validated(certificate, serialized)
    }

    fn decode(&self, serialized: &[u8]) -> Result<proto::SerializedIdentity, IdentityError> {
        let message = proto::SerializedIdentity::decode(serialized).map_err(|_| IdentityError::Malformed)?;
        if message.mspid != self.id.as_str() {
            return Err(IdentityError::OtherMsp { expected: self.id.clone(), actual: message.mspid.into() });
        }
        Ok(message)
    }

    fn validated(&self, certificate: &Certificate, serialized: &[u8]) -> Result<Identity, IdentityError> {
        if certificate.is_ca() {
            return Err(IdentityError::IsAuthority);
        }
        let chain = self.authorities.chain_above(certificate).map_err(|error| match error {
            ChainError::None => IdentityError::NotIssuedByMsp(self.id.clone()),
            ChainError::Several => IdentityError::SeveralChains(self.id.clone()),
        })?;
        let issuer = chain.first().ok_or_else(|| IdentityError::NotIssuedByMsp(self.id.clone()))?;
        if self.authorities.is_inner(issuer) {
            return Err(IdentityError::IssuedByInnerAuthority(self.id.clone()));
        }
        if self.revocations.is_revoked(issuer, certificate) {
            return Err(IdentityError::Revoked(hex::encode(certificate.serial())));
        }
        let certifiers_identifier = authorities::certifiers_identifier(&chain);
        let units = certificate.organizational_units();
        let role = self.organizational_units.check(&self.id, units, certifiers_identifier)?;
        let listed = self.admins.contains(&certificate.fingerprint());
        Ok(Identity::new(IdentityFields {
            msp_id: self.id.clone(),
            pki_id: pki_id(&self.id, certificate),
            certificate: certificate.clone(),
            role,
            is_admin: listed || role == Some(Role::Admin),
            serialized: serialized.to_vec(),
            certifiers_identifier,
        }))
    }

    /// Listed administrators must be valid, and clients or admins where roles are told (Fabric's `postSetup`).
    fn check_admins(&self, admins: &[Certificate], sources: &Sources) -> Result<(), MspError> {
        for (index, admin) in admins.iter().enumerate() {
            let name = || sources.name(Material::Admin, index, &self.id);
            let identity = self
                .validated(admin, &[])
                .map_err(|source| MspError::InvalidAdmin { certificate: name(), source: Box::new(source) })?;
            if matches!(identity.role(), Some(Role::Peer | Role::Orderer)) {
                return Err(MspError::AdminRole { certificate: name() });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Msp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Msp")
            .field("id", &self.id)
            .field("authorities", &self.authorities)
            .finish_non_exhaustive()
    }
}

fn pki_id(msp_id: &MspId, certificate: &Certificate) -> PkiId {
    match certificate.subject_common_name() {
        Some(name) if !name.is_empty() => PkiId::new(msp_id, name),
        // Nameless members must not share one identity.
        _ => PkiId::new(msp_id, &certificate.fingerprint().to_string()),
    }
}

fn check_hash_family(config: &proto::FabricMspConfig) -> Result<(), MspError> {
    let family = config.crypto_config.as_ref().map_or("", |crypto| crypto.signature_hash_family.as_str());
    if matches!(family, "" | "SHA2") { Ok(()) } else { Err(MspError::HashFamily(family.to_owned())) }
}

fn certificates(
    pems: &[Vec<u8>],
    material: Material,
    id: &MspId,
    sources: &Sources,
) -> Result<Vec<Certificate>, MspError> {
    let parse = |(index, pem): (usize, &Vec<u8>)| {
        Certificate::from_configured_pem(pem).map_err(|source| MspError::Certificate {
            certificate: sources.name(material, index, id),
            source: Box::new(source),
        })
    };
    pems.iter().enumerate().map(parse).collect()
}

/// TLS authorities may have keys of any kind, RSA too: they are only handed to the TLS library.
fn check_tls_authorities(
    config: &proto::FabricMspConfig,
    id: &MspId,
    sources: &Sources,
) -> Result<(), MspError> {
    let roots = config.tls_root_certs.iter().enumerate().map(|(index, pem)| (Material::TlsRoot, index, pem));
    let intermediates = config.tls_intermediate_certs.iter().enumerate();
    let intermediates = intermediates.map(|(index, pem)| (Material::TlsIntermediate, index, pem));
    for (material, index, bytes) in roots.chain(intermediates) {
        let error = |problem: String| MspError::TlsAuthority {
            certificate: sources.name(material, index, id),
            problem,
        };
        let block = pem::first_block(bytes, PEM_BYTES_MAX).map_err(|problem| error(problem.to_string()))?;
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(&block.contents)
            .map_err(|problem| error(problem.to_string()))?;
        if !certificate.is_ca() {
            return Err(error("it is not a certificate authority".to_owned()));
        }
    }
    Ok(())
}
