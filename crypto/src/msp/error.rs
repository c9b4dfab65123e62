//! What can be wrong with an MSP, told to the operator: which file or configured item, and what to do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::certificate::CertificateError;
use crate::identity::IdentityError;
use crate::names::MspId;

/// An MSP configuration or directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MspError {
    /// The configuration names no MSP identifier.
    #[error("the MSP configuration has no name; set the MSP identifier, such as Org1MSP")]
    NameMissing,
    /// Signatures would be over another hash.
    #[error("the signature hash family {0} is not supported; configure SHA2")]
    HashFamily(String),
    /// No root CA.
    #[error("{0} has no root certificate; put the organisation's CA certificate into cacerts/")]
    RootsMissing(MspId),
    /// A certificate cannot be parsed.
    #[error(
        "{certificate} cannot be used: {source}; replace it with a PEM certificate of an Ed25519 or P-256 key"
    )]
    Certificate {
        /// File or configured item.
        certificate: String,
        /// What is wrong.
        source: Box<CertificateError>,
    },
    /// A CA certificate is not one.
    #[error(
        "{certificate} is not a certificate authority that may sign certificates; use the CA's own certificate"
    )]
    NotAnAuthority {
        /// File or configured item.
        certificate: String,
    },
    /// Fabric identifies CAs by their subject key identifier.
    #[error("{certificate} has no subject key identifier extension; issue the CA certificate again with one")]
    SubjectKeyIdMissing {
        /// File or configured item.
        certificate: String,
    },
    /// An intermediate CA does not chain to a root.
    #[error(
        "{certificate} does not have exactly one chain to a root certificate; add its root to cacerts/ or remove it"
    )]
    IntermediateWithoutRoot {
        /// File or configured item.
        certificate: String,
    },
    /// An intermediate CA is revoked.
    #[error("{certificate} has been revoked by its issuer; remove it from the MSP")]
    RevokedAuthority {
        /// File or configured item.
        certificate: String,
    },
    /// A revocation list cannot be parsed.
    #[error("{list} is not an X.509 revocation list: {problem}; replace or remove it")]
    RevocationList {
        /// File or configured item.
        list: String,
        /// What is wrong.
        problem: String,
    },
    /// A revocation list would silently have no effect.
    #[error(
        "{list} was signed by none of the CAs of this MSP, so it revokes nothing; replace it by a list of the \
         organisation's own CA or remove it"
    )]
    RevocationListUnusable {
        /// File or configured item.
        list: String,
    },
    /// A TLS CA certificate cannot be used.
    #[error("{certificate} cannot be used as a TLS certificate authority: {problem}; replace or remove it")]
    TlsAuthority {
        /// File or configured item.
        certificate: String,
        /// What is wrong.
        problem: String,
    },
    /// An organisational unit's CA is not one of the MSP's.
    #[error(
        "the certificate of the organisational unit \"{unit}\" in {msp} is none of the MSP's root or intermediate \
         certificates; name a file of cacerts/ or intermediatecerts/"
    )]
    UnknownCertifier {
        /// The organisational unit.
        unit: String,
        /// The MSP.
        msp: MspId,
    },
    /// An organisational unit without text.
    #[error("an organisational unit in the configuration of {0} is empty; set OrganizationalUnitIdentifier")]
    EmptyOrganizationalUnit(MspId),
    /// One organisational unit tells two roles.
    #[error("the organisational unit \"{unit}\" of {msp} is given to two roles; give each role its own")]
    SharedOrganizationalUnit {
        /// The organisational unit.
        unit: String,
        /// The MSP.
        msp: MspId,
    },
    /// There would be no administrator.
    #[error(
        "{0} has no administrators; enable NodeOUs with an AdminOUIdentifier in config.yaml or fill admincerts/"
    )]
    AdminsMissing(MspId),
    /// A listed administrator is not a valid member.
    #[error("the administrator {certificate} is not a valid member: {source}; remove or replace it")]
    InvalidAdmin {
        /// File or configured item.
        certificate: String,
        /// The rule that it breaks.
        source: Box<IdentityError>,
    },
    /// A listed administrator has the role of a peer or orderer.
    #[error("the administrator {certificate} has the role peer or orderer; list clients or admins only")]
    AdminRole {
        /// File or configured item.
        certificate: String,
    },
    /// A directory is missing or empty.
    #[error("{path} is missing or holds no file; {action}")]
    DirectoryEmpty {
        /// The directory.
        path: PathBuf,
        /// What to do.
        action: &'static str,
    },
    /// A file or directory cannot be read.
    #[error("cannot read {path}: {source}; check that it exists and that this user may read it")]
    Read {
        /// The path.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file is larger than anything that belongs there.
    #[error("{path} is larger than {bytes_max} bytes; remove it if it does not belong there")]
    FileTooLarge {
        /// The path.
        path: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// A directory holds more files than belong there.
    #[error("{path} holds more than {files_max} files; remove those that do not belong there")]
    TooManyFiles {
        /// The directory.
        path: PathBuf,
        /// The limit.
        files_max: usize,
    },
    /// `config.yaml` cannot be parsed.
    #[error("{path} is not a valid MSP config.yaml: {problem}")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        problem: String,
    },
    /// `signcerts/` must hold one certificate.
    #[error("{path} holds {count} files; leave exactly one, the certificate this node signs with")]
    SigningCertificateCount {
        /// The directory.
        path: PathBuf,
        /// How many files there are.
        count: usize,
    },
    /// The local certificate is not a member of its own MSP.
    #[error(
        "{path} is not a valid member of {msp}: {source}; enrol again with the CA in cacerts/, or correct cacerts/"
    )]
    InvalidLocalIdentity {
        /// The certificate.
        path: PathBuf,
        /// The MSP.
        msp: MspId,
        /// The rule that it breaks.
        source: Box<IdentityError>,
    },
    /// No private key fits the local certificate.
    #[error(
        "{path} holds no private key of the certificate in signcerts/ (expected {expected}){unreadable}; copy the key \
         that was made with the certificate"
    )]
    KeyMissing {
        /// The keystore.
        path: PathBuf,
        /// The file name that Fabric would give to the key.
        expected: String,
        /// Files that are no usable keys, as text.
        unreadable: String,
    },
}

/// Kinds of configured material.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Material {
    Root,
    Intermediate,
    Admin,
    RevocationList,
    TlsRoot,
    TlsIntermediate,
}

/// Where configured material came from, so that errors can name files.
#[derive(Debug, Default)]
pub(super) struct Sources(BTreeMap<(Material, usize), PathBuf>);

impl Sources {
    pub(super) fn record(&mut self, material: Material, paths: impl IntoIterator<Item = PathBuf>) {
        self.0.extend(paths.into_iter().enumerate().map(|(index, path)| ((material, index), path)));
    }

    /// The file, or a description counted from one such as `root certificate 1 of Org1MSP`.
    pub(super) fn name(&self, material: Material, index: usize, id: &MspId) -> String {
        if let Some(path) = self.0.get(&(material, index)) {
            return path.display().to_string();
        }
        let kind = match material {
            Material::Root => "root certificate",
            Material::Intermediate => "intermediate certificate",
            Material::Admin => "administrator certificate",
            Material::RevocationList => "revocation list",
            Material::TlsRoot => "TLS root certificate",
            Material::TlsIntermediate => "TLS intermediate certificate",
        };
        format!("{kind} {} of {id}", index.saturating_add(1))
    }
}
