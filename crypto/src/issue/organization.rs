//! An organisation with an enrolment CA and a TLS CA, as `cryptogen` makes one.

use std::path::Path;

use crate::identity::{Signer, serialize_identity};
use crate::key::Algorithm;
use crate::msp::Msp;
use crate::names::MspId;
use crate::proto;
use crate::role::Role;

use super::directory::{write_msp_dir, write_tls_dir};
use super::{CertificateAuthority, IssueError, Validity};

/// Two CAs under one MSP identifier.
#[derive(Clone, Debug)]
pub struct Organization {
    msp_id: MspId,
    authority: CertificateAuthority,
    tls_authority: CertificateAuthority,
}

impl Organization {
    /// A new organisation with new CAs. `algorithm` is that of enrolment; TLS is always P-256.
    ///
    /// # Errors
    /// [`IssueError::Unencodable`] if the validity cannot be written into a certificate.
    pub fn new(
        msp_id: MspId,
        domain: &str,
        algorithm: Algorithm,
        validity: Validity,
    ) -> Result<Self, IssueError> {
        let authority = CertificateAuthority::new(domain, algorithm, validity)?;
        let tls_authority = CertificateAuthority::new_tls(domain, validity)?;
        Ok(Self { msp_id, authority, tls_authority })
    }

    /// Loads an organisation from the directory of [`Self::save`]; `cryptogen`'s organisation directories work too.
    ///
    /// # Errors
    /// [`IssueError`] if `ca/` or `tlsca/` does not hold a CA and its key.
    pub fn load(directory: &Path, msp_id: MspId) -> Result<Self, IssueError> {
        let authority = CertificateAuthority::load(&directory.join("ca"))?;
        let tls_authority = CertificateAuthority::load(&directory.join("tlsca"))?;
        Ok(Self { msp_id, authority, tls_authority })
    }

    /// Writes `ca/`, `tlsca/` (with private keys) and `msp/` (verification material only).
    ///
    /// # Errors
    /// [`IssueError::File`].
    pub fn save(&self, directory: &Path) -> Result<(), IssueError> {
        self.authority.save(&directory.join("ca"))?;
        self.tls_authority.save(&directory.join("tlsca"))?;
        write_msp_dir(&directory.join("msp"), &self.authority, &self.tls_authority, None)
    }

    /// The MSP identifier.
    #[must_use]
    pub const fn msp_id(&self) -> &MspId {
        &self.msp_id
    }

    /// The enrolment CA.
    #[must_use]
    pub const fn authority(&self) -> &CertificateAuthority {
        &self.authority
    }

    /// The TLS CA.
    #[must_use]
    pub const fn tls_authority(&self) -> &CertificateAuthority {
        &self.tls_authority
    }

    /// The organisation's MSP as it goes into a channel configuration; NodeOUs on.
    #[must_use]
    pub fn msp_config(&self) -> proto::FabricMspConfig {
        let root = self.authority.certificate().pem().to_vec();
        let unit = |role: Role| {
            let organizational_unit_identifier = role.organizational_unit().to_owned();
            Some(proto::FabricOuIdentifier { certificate: root.clone(), organizational_unit_identifier })
        };
        proto::FabricMspConfig {
            name: self.msp_id.as_str().to_owned(),
            root_certs: vec![root.clone()],
            tls_root_certs: vec![self.tls_authority.certificate().pem().to_vec()],
            crypto_config: Some(proto::FabricCryptoConfig {
                signature_hash_family: "SHA2".to_owned(),
                identity_identifier_hash_function: "SHA256".to_owned(),
            }),
            fabric_node_ous: Some(proto::FabricNodeOus {
                enable: true,
                client_ou_identifier: unit(Role::Client),
                peer_ou_identifier: unit(Role::Peer),
                admin_ou_identifier: unit(Role::Admin),
                orderer_ou_identifier: unit(Role::Orderer),
            }),
            ..Default::default()
        }
    }

    /// The organisation's MSP.
    ///
    /// # Errors
    /// [`IssueError::Msp`], which does not happen for CAs made by this module.
    pub fn msp(&self) -> Result<Msp, IssueError> {
        Ok(Msp::from_config(&self.msp_config())?)
    }

    /// A new member that can sign, without touching the disk.
    ///
    /// # Errors
    /// [`IssueError`] if the certificate cannot be issued.
    pub fn enrol(&self, common_name: &str, role: Role, validity: Validity) -> Result<Signer, IssueError> {
        let issued = self.authority.issue_enrolment(common_name, role, validity)?;
        let serialized = serialize_identity(&self.msp_id, issued.certificate.pem());
        let identity = self.msp()?.identify(&serialized)?;
        Ok(Signer::new(identity, issued.key)?)
    }

    /// Enrols a member and writes its directory: `msp/` (local MSP) and `tls/`.
    ///
    /// # Errors
    /// [`IssueError`] if a certificate cannot be issued or a file not be written.
    pub fn write_member_dir(
        &self,
        directory: &Path,
        common_name: &str,
        role: Role,
        alternative_names: &[String],
        validity: Validity,
    ) -> Result<(), IssueError> {
        let issued = self.authority.issue_enrolment(common_name, role, validity)?;
        write_msp_dir(&directory.join("msp"), &self.authority, &self.tls_authority, Some(&issued))?;
        let tls = self.tls_authority.issue_tls(common_name, alternative_names, validity)?;
        write_tls_dir(&directory.join("tls"), &self.tls_authority, &tls)
    }
}
