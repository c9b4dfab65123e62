//! MSP directories on disk, laid out as Fabric and `cryptogen` do.
//!
//! | entry | holds |
//! |---|---|
//! | `cacerts/` | root CAs, at least one |
//! | `intermediatecerts/` | intermediate CAs |
//! | `admincerts/` | administrators, not needed with NodeOUs |
//! | `crls/` | revocation lists |
//! | `tlscacerts/`, `tlsintermediatecerts/` | TLS CAs |
//! | `config.yaml` | `NodeOUs` and `OrganizationalUnitIdentifiers` |
//! | `signcerts/` | the node's own certificate (local MSP only) |
//! | `keystore/` | its private key, under any file name (local MSP only) |
//!
//! Files are taken in the order of their names; hidden files and sub-directories are skipped, symbolic links followed.
//! Fabric warns about files it cannot use and goes on; here they are errors that name the file, since an MSP without
//! one of its CAs or lists is not the one the operator meant.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::certificate::Certificate;
use crate::identity::{IdentityError, Signer, serialize_identity};
use crate::key::PrivateKey;
use crate::names::MspId;
use crate::proto;

use super::Msp;
use super::error::{Material, MspError, Sources};
use super::revocation::LIST_BYTES_MAX;

/// Most files in one sub-directory.
const FILES_MAX: usize = 256;

/// Largest file, bytes: a revocation list.
const FILE_BYTES_MAX: u64 = LIST_BYTES_MAX as u64;

/// A node's own MSP: how it verifies members of its organisation, and how it signs.
#[derive(Debug)]
pub struct LocalMsp {
    /// The verification side.
    pub msp: Msp,
    /// The node's certificate and key.
    pub signer: Signer,
}

impl LocalMsp {
    /// Loads an MSP directory with `signcerts/` and `keystore/`.
    ///
    /// # Errors
    /// [`MspError`] naming the file or directory and what to do about it.
    pub fn load(directory: &Path, id: &MspId) -> Result<Self, MspError> {
        let (config, sources) = read_config(directory, id)?;
        let msp = Msp::build(&config, &sources)?;
        if let Some(list) = msp.revocations.unusable().first() {
            return Err(MspError::RevocationListUnusable { list: list.clone() });
        }
        let signer = load_signer(directory, &msp)?;
        Ok(Self { msp, signer })
    }
}

/// Reads the verification material of an MSP directory, as it goes into a channel configuration.
///
/// # Errors
/// [`MspError`] naming the file or directory; also if [`Msp::from_config`] would refuse the result.
pub fn load_msp_config(directory: &Path, id: &MspId) -> Result<proto::FabricMspConfig, MspError> {
    let (config, sources) = read_config(directory, id)?;
    Msp::build(&config, &sources)?;
    Ok(config)
}

fn read_config(directory: &Path, id: &MspId) -> Result<(proto::FabricMspConfig, Sources), MspError> {
    let mut sources = Sources::default();
    let mut read = |name: &str, material: Material| -> Result<Vec<Vec<u8>>, MspError> {
        let files = read_directory(&directory.join(name))?;
        sources.record(material, files.iter().map(|(path, _)| path.clone()));
        Ok(files.into_iter().map(|(_, bytes)| bytes).collect())
    };
    let root_certs = read("cacerts", Material::Root)?;
    if root_certs.is_empty() {
        return Err(MspError::DirectoryEmpty {
            path: directory.join("cacerts"),
            action: "point the configuration at an MSP directory whose cacerts/ holds the organisation's CA certificate",
        });
    }
    let mut config = proto::FabricMspConfig {
        name: id.as_str().to_owned(),
        root_certs,
        intermediate_certs: read("intermediatecerts", Material::Intermediate)?,
        admins: read("admincerts", Material::Admin)?,
        revocation_list: read("crls", Material::RevocationList)?,
        tls_root_certs: read("tlscacerts", Material::TlsRoot)?,
        tls_intermediate_certs: read("tlsintermediatecerts", Material::TlsIntermediate)?,
        crypto_config: Some(proto::FabricCryptoConfig {
            signature_hash_family: "SHA2".to_owned(),
            identity_identifier_hash_function: "SHA256".to_owned(),
        }),
        ..Default::default()
    };
    read_yaml(directory, &mut config)?;
    Ok((config, sources))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct ConfigYaml {
    organizational_unit_identifiers: Vec<UnitYaml>,
    #[serde(rename = "NodeOUs")]
    node_ous: Option<NodeOusYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NodeOusYaml {
    #[serde(rename = "Enable")]
    enable: bool,
    #[serde(rename = "ClientOUIdentifier")]
    client: Option<UnitYaml>,
    #[serde(rename = "PeerOUIdentifier")]
    peer: Option<UnitYaml>,
    #[serde(rename = "AdminOUIdentifier")]
    admin: Option<UnitYaml>,
    #[serde(rename = "OrdererOUIdentifier")]
    orderer: Option<UnitYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct UnitYaml {
    /// Path relative to the MSP directory.
    certificate: String,
    organizational_unit_identifier: String,
}

fn read_yaml(directory: &Path, config: &mut proto::FabricMspConfig) -> Result<(), MspError> {
    let path = directory.join("config.yaml");
    let Some(bytes) = optional(read_file(&path))? else { return Ok(()) };
    let problem = |problem: String| MspError::Yaml { path: path.clone(), problem };
    let text = std::str::from_utf8(&bytes).map_err(|error| problem(error.to_string()))?;
    let yaml: Option<ConfigYaml> =
        serde_saphyr::from_str(text).map_err(|error| problem(error.to_string()))?;
    let yaml = yaml.unwrap_or_default();
    let unit = |unit: UnitYaml| -> Result<proto::FabricOuIdentifier, MspError> {
        let certificate = if unit.certificate.is_empty() {
            Vec::new()
        } else {
            read_file(&directory.join(&unit.certificate))?
        };
        let organizational_unit_identifier = unit.organizational_unit_identifier;
        Ok(proto::FabricOuIdentifier { certificate, organizational_unit_identifier })
    };
    let identifiers = yaml.organizational_unit_identifiers.into_iter().map(unit);
    config.organizational_unit_identifiers = identifiers.collect::<Result<_, _>>()?;
    if let Some(nodes) = yaml.node_ous {
        config.fabric_node_ous = Some(proto::FabricNodeOus {
            enable: nodes.enable,
            client_ou_identifier: nodes.client.map(unit).transpose()?,
            peer_ou_identifier: nodes.peer.map(unit).transpose()?,
            admin_ou_identifier: nodes.admin.map(unit).transpose()?,
            orderer_ou_identifier: nodes.orderer.map(unit).transpose()?,
        });
    }
    Ok(())
}

fn load_signer(directory: &Path, msp: &Msp) -> Result<Signer, MspError> {
    let certificates = directory.join("signcerts");
    let mut files = read_directory(&certificates)?;
    let count = files.len();
    let (Some((path, pem)), 1) = (files.pop(), count) else {
        return Err(MspError::SigningCertificateCount { path: certificates, count });
    };
    let invalid = |source: IdentityError| MspError::InvalidLocalIdentity {
        path: path.clone(),
        msp: msp.id().clone(),
        source: Box::new(source),
    };
    // The bytes travel as they are, so they must be as strict as everybody else demands of them.
    let certificate = Certificate::from_pem(&pem).map_err(|error| invalid(error.into()))?;
    let serialized = serialize_identity(msp.id(), certificate.pem());
    let identity = msp.identify(&serialized).map_err(invalid)?;
    let key = find_key(&directory.join("keystore"), &certificate)?;
    Signer::new(identity, key).map_err(|_| key_missing(&directory.join("keystore"), &certificate, &[]))
}

/// Any file name will do: Fabric's `<ski>_sk`, `cryptogen`'s `priv_sk`, or the operator's own.
fn find_key(keystore: &Path, certificate: &Certificate) -> Result<PrivateKey, MspError> {
    let mut unreadable = Vec::new();
    for (path, bytes) in read_directory(keystore)? {
        let bytes = Zeroizing::new(bytes);
        let parsed = std::str::from_utf8(&bytes)
            .map_err(|_| "it is not text".to_owned())
            .and_then(|text| PrivateKey::from_pkcs8_pem(text).map_err(|error| error.to_string()));
        match parsed {
            Ok(key) if key.public_key() == *certificate.public_key() => return Ok(key),
            Ok(_) => {}
            Err(problem) => unreadable.push(format!("{}: {problem}", path.display())),
        }
    }
    Err(key_missing(keystore, certificate, &unreadable))
}

fn key_missing(keystore: &Path, certificate: &Certificate, unreadable: &[String]) -> MspError {
    let unreadable =
        if unreadable.is_empty() { String::new() } else { format!("; unusable: {}", unreadable.join(", ")) };
    let expected = format!("{}_sk", certificate.public_key().key_id());
    MspError::KeyMissing { path: keystore.to_owned(), expected, unreadable }
}

/// The files of a directory by name; nothing if the directory does not exist.
fn read_directory(path: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, MspError> {
    let unreadable = |source| MspError::Read { path: path.to_owned(), source };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(unreadable)?;
        // Mounted secrets carry their versions in hidden entries.
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if paths.len() == FILES_MAX {
            return Err(MspError::TooManyFiles { path: path.to_owned(), files_max: FILES_MAX });
        }
        paths.push(entry.path());
    }
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let metadata = fs::metadata(&path).map_err(|source| MspError::Read { path: path.clone(), source })?;
        if !metadata.is_dir() {
            let bytes = read_file(&path)?;
            files.push((path, bytes));
        }
    }
    Ok(files)
}

fn read_file(path: &Path) -> Result<Vec<u8>, MspError> {
    use std::io::Read as _;
    let unreadable = |source| MspError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= FILE_BYTES_MAX) {
        Ok(bytes)
    } else {
        Err(MspError::FileTooLarge { path: path.to_owned(), bytes_max: FILE_BYTES_MAX })
    }
}

fn optional(result: Result<Vec<u8>, MspError>) -> Result<Option<Vec<u8>>, MspError> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(MspError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
